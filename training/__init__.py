"""Trains the mini checkpoints that the package ships; see README.md. Not part of the wheel."""
