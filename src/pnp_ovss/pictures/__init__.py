"""Pictures for people: coloured label maps, overlays with a legend, and the contact sheet of the demo."""

from pnp_ovss.pictures.overlay import overlay
from pnp_ovss.pictures.palette import check_count, class_colours, label_png, mask_picture
from pnp_ovss.pictures.panels import panels
from pnp_ovss.pictures.sheet import Row, contact_sheet

__all__ = ["Row", "check_count", "class_colours", "contact_sheet", "label_png", "mask_picture", "overlay", "panels"]
