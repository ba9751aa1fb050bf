"""Names by the model that segments: its matching head says of every name whether the photo shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from pnp_ovss.errors import ModelError
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.models import VLM
from pnp_ovss.models.base import Matcher
from pnp_ovss.naming.base import Calibration, Naming, names_to_score, ranked
from pnp_ovss.types import RGB, Vocabulary

CALIBRATIONS: dict[str, Calibration] = {
    "mini-blip": Calibration(slope=1.163, cut=6.25),  # python -m benchmarks.naming, 200 tuning scenes
}
"""Per model, chosen on photos or scenes whose names are known. Others: the softmax of the head's two logits."""


@dataclass(frozen=True)
class Itm:
    """Matches ``"A picture of NAME"`` for every name with the photo, which is encoded once."""

    vlm: VLM
    calibration: Calibration = field(default_factory=Calibration)

    @classmethod
    def from_vlm(cls, vlm: VLM) -> "Itm":
        """Return the namer with the calibration of its model."""
        return cls(vlm, CALIBRATIONS.get(vlm.name, Calibration()))

    @property
    def source(self) -> str:
        """What names the classes, in words."""
        return f"itm by {self.vlm.name}"

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return every name of the vocabulary, the surest first. Without one: the names the model can know."""
        names = names_to_score(candidates, self.vlm.known, self.source)
        return ranked(names, self.calibration(self.scores(image, names)))

    def scores(self, image: RGB, names: Sequence[str]) -> Float[Tensor, " name"]:
        """Return the log odds that the photo shows each name, as the matching head sees it."""
        if not isinstance(self.vlm, Matcher):
            raise ModelError(
                f"{self.vlm.name} cannot match many names at once; name with --namer clip, or another model"
            )
        pixels = self.vlm.prepare(image, self.vlm.size)[None]
        return self.vlm.match(pixels, [make_prompt([name]) for name in names])[0].cpu()
