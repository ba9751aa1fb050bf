"""Pictures for people: coloured label maps, overlays with a legend, heat, and the contact sheet of the demo."""

from pnp_ovss.pictures.figures import overlay, panels
from pnp_ovss.pictures.palette import check_count, class_colours, label_png, mask_picture

__all__ = ["check_count", "class_colours", "label_png", "mask_picture", "overlay", "panels"]
