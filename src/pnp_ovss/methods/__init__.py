"""How class maps come about. A new method is one file or folder here and one line in ``METHODS``."""

from pathlib import Path
from typing import Any

from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.base import Method, MethodInfo
from pnp_ovss.methods.clippy import ClippyMethod
from pnp_ovss.methods.corrclip import CorrClip
from pnp_ovss.methods.dense_clip import ClearClip, MaskClip, Naclip, PlainClip, Sclip
from pnp_ovss.methods.groupvit import GroupVitMethod
from pnp_ovss.methods.ovsegmentor import OvSegmentorMethod
from pnp_ovss.methods.pnp import PRESETS, Config, PnP
from pnp_ovss.methods.proxyclip import ProxyClip
from pnp_ovss.methods.reco import Reco
from pnp_ovss.methods.resclip import ResClip
from pnp_ovss.methods.scclip import ScClip
from pnp_ovss.methods.segclip import SegClipMethod
from pnp_ovss.methods.tcl import Tcl

__all__ = ["DEFAULT_METHOD", "METHODS", "Method", "MethodInfo", "load_method", "method_info", "resolve_config"]

DEFAULT_METHOD = "pnp"

METHODS: dict[str, MethodInfo] = {
    "pnp": MethodInfo(
        "PnP-OVSS: text-to-image attention of a VLM, GradCAM and Saliency DropOut",
        "blip-large-flickr",
        "Luo et al., CVPR 2024, arXiv 2311.17095",
        Config,
        PnP.from_pretrained,
        PnP.resolve_config,
        PRESETS,
        "mini-blip",
    ),
    "clip": PlainClip.info("CLIP as it is: its patches compared with words", "Radford et al., ICML 2021"),
    "maskclip": MaskClip.info("MaskCLIP: every patch attends to itself alone", "Zhou, Loy, Dai, ECCV 2022"),
    "sclip": Sclip.info("SCLIP: attention by like queries and by like keys", "Wang, Mei, Yuille, ECCV 2024"),
    "clearclip": ClearClip.info("ClearCLIP: attention by like queries, no residual", "Lan et al., ECCV 2024"),
    "naclip": Naclip.info("NACLIP: attention by like keys that are near", "Hajimiri, Ben Ayed, Dolz, WACV 2025"),
    "proxyclip": ProxyClip.info("ProxyCLIP: attention by the likeness of DINO's patches", "Lan et al., ECCV 2024"),
    "corrclip": CorrClip.info("CorrCLIP: attention by DINO inside regions of the photo", "Zhang et al., ICCV 2025"),
    "resclip": ResClip.info("ResCLIP: NACLIP again, inside what it has labelled alike", "Yang et al., CVPR 2025"),
    "scclip": ScClip.info("SC-CLIP: outliers healed, likeness of middle blocks", "Bai et al., arXiv 2411.15869"),
    "groupvit": GroupVitMethod.info(
        "GroupViT: tokens that group patches (non-commercial)", "Xu et al., CVPR 2022, arXiv 2202.11094"
    ),
    "clippy": ClippyMethod.info("CLIPpy: DINO trained on with captions (GPL-3.0 code)", "Ranasinghe et al., ICCV 2023"),
    "tcl": Tcl.info(
        "TCL: a decoder on CLIP, trained with captions (MIT)", "Cha, Mun, Roh, CVPR 2023, arXiv 2212.00785"
    ),
    "reco": Reco.info(
        "ReCo: what photos of an archive that show a word have in common", "Shin et al., NeurIPS 2022, arXiv 2206.07045"
    ),
    "segclip": SegClipMethod.info("SegCLIP: patches gathered around centres (no licence)", "Luo et al., ICML 2023"),
    "ovsegmentor": OvSegmentorMethod.info(
        "OVSegmentor: tokens that group patches once (non-commercial)", "Xu et al., CVPR 2023"
    ),
}


def load_method(
    name: str,
    model: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    preset: str | Path = "auto",
    **settings: Any,
) -> Method:
    """Return a method on a checkpoint (its default one where none is named).

    ``preset``: a name, a JSON file, or "auto", the checkpoint's own; ``settings`` go on top.

    Raises: ConfigError for a method or setting that does not exist; ModelError if the checkpoint cannot be loaded.
    """
    info = method_info(name)
    return info.load(model or info.checkpoint, device, dtype, revision, preset, **settings)


def resolve_config(
    model: str | Path | None = None,
    preset: str | Path = "auto",
    revision: str | None = None,
    method: str = DEFAULT_METHOD,
    **settings: Any,
) -> Any:
    """Return the settings that ``load_method`` would take; nothing is fetched.

    Raises: ConfigError for a method, preset or setting that does not exist; ModelError if the model is here and broken.
    """
    info = method_info(method)
    return info.resolve_config(model or info.checkpoint, preset, revision, **settings)


def method_info(name: str) -> MethodInfo:
    """Return the method's line of ``METHODS``. Raises: ConfigError if there is none."""
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
    return METHODS[name]
