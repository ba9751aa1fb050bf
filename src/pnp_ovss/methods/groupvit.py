"""GroupViT, as its authors segment with it: see ``methods.groups``."""

from pnp_ovss.methods.groups import TRAINED, Grouping
from pnp_ovss.methods.on_clip import ClipConfig, presets
from pnp_ovss.models.groupvit import load_groupvit


class GroupVitMethod(Grouping):
    """GroupViT. Source: Xu et al., CVPR 2022. The threshold of the background is published per benchmark."""

    name = "groupvit"
    checkpoint, loader = "groupvit-yfcc", staticmethod(load_groupvit)
    presets = presets(
        ClipConfig(prob_threshold=0.95, **TRAINED),
        voc21={},
        context60={"prob_threshold": 0.35},
        object81={},
    )
