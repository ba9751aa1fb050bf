"""PnP-OVSS: cross-attention, GradCAM and Saliency DropOut."""
