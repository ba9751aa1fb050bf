"""Scores against masks: the metrics, and the ablation on drawn scenes."""
