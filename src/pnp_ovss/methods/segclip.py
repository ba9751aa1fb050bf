"""SegCLIP, as its authors segment with it: see ``methods.groups``."""

from pnp_ovss.methods.groups import TRAINED, Grouping
from pnp_ovss.methods.on_clip import ClipConfig, presets
from pnp_ovss.models.segclip import load_segclip

NATIVE = TRAINED | {"short_side": 224, "crop": 224, "stride": 224}


class SegClipMethod(Grouping):
    """SegCLIP. Source: Luo et al., ICML 2023. The threshold of the background is published per benchmark."""

    name = "segclip"
    checkpoint, loader = "segclip", staticmethod(load_segclip)
    presets = presets(
        ClipConfig(prob_threshold=0.8, **NATIVE),
        voc21={},
        context60={"prob_threshold": 0.25},
        object81={"prob_threshold": 0.65},
    )
