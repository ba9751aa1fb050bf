"""OVSegmentor, as its authors segment with it: see ``methods.groups``."""

from pnp_ovss.methods.groups import TRAINED, Grouping
from pnp_ovss.methods.on_clip import ALL_NAMED, ClipConfig, presets
from pnp_ovss.models.ovsegmentor import load_ovsegmentor


class OvSegmentorMethod(Grouping):
    """OVSegmentor. Source: Xu et al., CVPR 2023. The threshold of the background is published per benchmark."""

    name = "ovsegmentor"
    checkpoint, loader = "ovsegmentor", staticmethod(load_ovsegmentor)
    presets = presets(
        ClipConfig(prob_threshold=0.95, **TRAINED),
        voc21={},
        context60={"prob_threshold": 0.35},
        object81={"prob_threshold": 0.9},
        ade150=ALL_NAMED,
    )
