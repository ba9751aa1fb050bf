"""Names by the model that segments: its matching head says of every name whether the photo shows it."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from pnp_ovss.errors import ConfigError, ModelError
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.models import VLM
from pnp_ovss.models.base import Matcher
from pnp_ovss.naming.base import CALIBRATIONS, Calibration, Naming, Options, names_to_score, ranked
from pnp_ovss.types import RGB, Vocabulary


class Itm:
    """Matches ``"A picture of NAME"`` for every name with the photo, which is encoded once.

    Without a ``calibration``, that of the model, or else the softmax of the matching head's two logits.
    """

    def __init__(self, vlm: VLM, calibration: Calibration | None = None) -> None:
        self.source = f"itm by {vlm.name}"
        self._vlm = vlm
        self._calibration = calibration or CALIBRATIONS.get(vlm.name, Calibration())

    @classmethod
    def load(cls, options: Options) -> "Itm":
        """Return the namer with the model of the options."""
        if options.vlm is None:
            raise ConfigError("the itm namer needs a model; give one with --model, such as blip-large-flickr")
        return cls(options.vlm())

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return every name of the vocabulary, the surest first. Without one: the names the model can know."""
        names = names_to_score(candidates, self._vlm.known, self.source)
        return ranked(names, self._calibration(self.scores(image, names)))

    def scores(self, image: RGB, names: Sequence[str]) -> Float[Tensor, " name"]:
        """Return the log odds that the photo shows each name, as the matching head sees it."""
        vlm = self._vlm
        if not isinstance(vlm, Matcher):
            raise ModelError(f"{vlm.name} cannot match many names at once; name with --namer clip, or another model")
        pixels = vlm.prepare(image, vlm.size)[None]
        return vlm.match(pixels, [make_prompt([name]) for name in names])[0].cpu()
