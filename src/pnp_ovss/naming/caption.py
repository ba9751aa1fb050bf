"""Names by a captioner: it describes the photo in several ways, and what its captions agree on counts."""

from pnp_ovss.models.captioner import Captioner as Captioner
from pnp_ovss.models.registry import CAPTIONERS as CAPTIONERS
from pnp_ovss.naming.base import Guess, Naming
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.naming.phrases import nouns
from pnp_ovss.types import RGB


class CaptionNamer:
    """Reads the nouns of a photo's captions."""

    def __init__(self, captioner: Captioner) -> None:
        self.source = f"caption by {captioner.name}"
        self._captioner = captioner

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return what the captions name; the confidence is the share of the captions that name it, by probability."""
        captions = self._captioner.captions(image)
        shares: dict[str, float] = {}
        for caption, share in captions:
            for name in nouns(caption, candidates):
                shares[name] = min(1.0, shares.get(name, 0.0) + share)
        order = sorted(shares, key=lambda name: -shares[name])
        return Naming(tuple(Guess(name, shares[name]) for name in order), (f"caption: {captions[0][0]}",))
