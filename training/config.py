"""Everything that decides what a training run learns, in one frozen dataclass."""

import json
from dataclasses import asdict, dataclass
from typing import Any

TRAIN_SEED = 0  # scenes the model learns from
TUNE_SEED = 1  # scenes progress is watched on
HELD_OUT_SEED = 2  # scenes final scores are measured on; nothing in training/ draws them


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of one mini checkpoint."""

    name: str = "mini-blip"  # row of training.recipes.RECIPES
    steps: int = 3500
    seed: int = TRAIN_SEED

    image_size: int = 112  # pixels
    patch: int = 8  # pixels
    width: int = 128  # of both towers
    layers: int = 4  # of each tower
    heads: int = 4
    image_tower: str | None = None  # mini checkpoint whose image tower this one takes over; only mini-bridgetower does

    scenes: int = 50_000  # pre-drawn; each is image_tokens several times, mirrored and tinted
    batch: int = 64  # images per step
    pairs: int = 2  # true captions per image, each with an almost true one
    shards: int = 2  # a batch is cut into so many parts, one thread each
    rate: float = 1e-3  # AdamW's peak learning rate
    decay: float = 0.05  # AdamW's weight decay, matrices only
    warmup: int = 300  # steps
    clip: float = 1.0  # gradient norm
    average: float = 0.999  # decay of the running mean of the weights, which is what is exported

    keep: float = 0.5  # share of patch tokens the image tower sees (the rest is left out, to save time)
    full_from: float = 0.85  # from this share of the run on it sees all of them
    hide: float = 0.5  # how often patches are blacked out in the pixels, as Saliency DropOut will do
    hide_share: tuple[float, float] = (0.05, 0.3)  # how many of them

    match_from: int = 200  # first step with the match loss: before, the image tower knows no words
    smoothing: float = 0.1  # of the match labels, while it learns to match; it pins the logit, so it ends with that
    fade_from: int = 1500  # from this step on the attention of some patches is set to 0: the logit must count evidence
    fade: tuple[float, float] = (0.05, 0.7)  # share of the image_tokens patches whose attention stays
    fade_none: float = 0.25  # how often all of it stays all the same
    contrast: float = 0.3  # weight of the contrastive loss
    temperature: float = 0.07
    tags: float = 3.0  # weight of the tag loss
    look: float = 0.3  # weight of the look loss
    look_layers: tuple[int, ...] = (0, 1, 2)  # of the text tower; in the last one only [ENC] has a say in the match
    explain: int = 800  # last steps, with the image tower at rest: the match learns to rest on the patches it names
    explain_rate: float = 0.3  # of the peak learning rate, at their beginning
    explain_layer: int = 1  # the text layer whose attention has to explain the match
    explain_slope: float = 4.0  # how sharply the explain loss tells a positive gradient from a negative one
    summary_every: int = 4  # before fade_from the match sees the image's [CLS], which knows no places, once in so many

    log_every: int = 50  # steps
    watch_every: int = 500  # steps between evaluations and exports
    save_every: int = 250  # steps between resumable checkpoints
    watch_scenes: int = 256

    def __post_init__(self) -> None:
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")
        if self.batch % self.shards:
            raise ValueError(f"batch {self.batch} is not a multiple of shards {self.shards}")
        if not 0 <= self.explain < self.steps:
            raise ValueError(
                f"explain {self.explain} leaves nothing of {self.steps} steps to learn in; give more steps"
            )
        if not 0 < self.keep <= 1 or not 0 <= self.full_from <= 1:
            raise ValueError(f"keep {self.keep} and full_from {self.full_from} are shares, 0 to 1")

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch

    @property
    def learned(self) -> int:
        """The step at which the image tower is done and explaining begins."""
        return self.steps - self.explain

    def kept(self, step: int) -> int:
        """How many patch tokens the image tower sees at this step."""
        return self.grid**2 if step >= self.full_from * self.learned else round(self.keep * self.grid**2)

    def to_dict(self) -> dict[str, Any]:
        """As JSON would give it back, so that two can be compared."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain
