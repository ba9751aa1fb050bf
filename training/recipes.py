"""The checkpoints that can be trained. A new one is a model, a loss, what to watch, and an entry in ``RECIPES``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import BertTokenizer

from training.batches import Batch
from training.config import TrainConfig
from training.losses import match_loss
from training.model import MiniBlip
from training.model_bridgetower import MiniBridgeTower
from training.model_clip import MiniClip, clip_loss, watch_clip
from training.monitor import watch_match
from training.scene_cache import DrawnScenes


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is made."""

    config: TrainConfig
    model: Callable[[TrainConfig], Any]
    loss: Callable[[Any, Batch, TrainConfig, int], tuple[Tensor, dict[str, Tensor]]]
    """Model, batch, config and step to the mean of the shards' losses, and its parts for the log."""
    watch: Callable[[Any, DrawnScenes, BertTokenizer, TrainConfig], dict[str, Any]]
    """Model and watched scenes to numbers for the log and the card."""
    card: str
    """What README.md says of this one; fields are those of ``watch``."""


MATCH_CARD = """\
- **Match accuracy** on true and almost true captions of 256 scenes of seed 1: {match_accuracy:.3f}.
- **Best layer and head** (from 0) on 48 scenes of seed 1, on the patch grid, without DropOut, blur or CRF: attention
  alone layer {attention[layer]}, head {attention[head]}, mIoU {attention[miou]:.2f}; attention * relu(gradient) layer
  {gradcam[layer]}, head {gradcam[head]}, mIoU {gradcam[miou]:.2f}.
- Attention is trained to lie where the model's own tag head, taught by words, sees a name. Hub models are not: expect
  their attention to be less tidy."""
EXPLAIN_CARD = """
- The gradient of the match is trained likewise, in the last steps."""
ENC_CARD = """
- **Token 0**: replace [CLS] by [ENC], the last row of the text encoder's vocabulary, when text and image are
  encoded together."""
CLIP_CARD = """\
- **Naming** 256 scenes of seed 1 from the 26 names, at even odds: precision {precision:.3f}, recall {recall:.3f}, F1
  {f1:.3f}."""

RECIPES: dict[str, Recipe] = {
    "mini-blip": Recipe(
        TrainConfig("mini-blip"), MiniBlip, match_loss, watch_match, MATCH_CARD + EXPLAIN_CARD + ENC_CARD
    ),
    "mini-bridgetower": Recipe(
        TrainConfig(
            "mini-bridgetower",
            image_tower="mini-clip",
            steps=2000,
            explain=0,  # tried: it forgets what it had learned of matching before its gradient shows places
            pairs=1,
            contrast=0.0,  # mini-clip's image tower has been through that
            fade_from=0,
            fade_none=1.0,  # all attention stays
            look_layers=(0, 1),
        ),
        MiniBridgeTower,
        match_loss,
        watch_match,
        MATCH_CARD,
    ),
    "mini-clip": Recipe(
        TrainConfig("mini-clip", steps=2400, explain=0, hide_share=(0.05, 0.5)),
        MiniClip,
        clip_loss,
        watch_clip,
        CLIP_CARD,
    ),
}
