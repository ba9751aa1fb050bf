"""When a result should not be believed, said in a line: the model does not know such photos, or the match is low."""

from typing import Any

from pnp_ovss.mini import STUFF, THINGS
from pnp_ovss.mini.territory import is_drawn
from pnp_ovss.types import RGB

LOW_MATCH = 0.0
"""Match logit below which a photo may show none of the classes, for a model nobody has calibrated: our guess."""


def doubts(model: Any, photo: RGB, match: float | None) -> tuple[str, ...]:
    """Return a line for each reason to doubt what the model finds in the photo.

    ``match``: the match logit of photo and prompt, where there is one.
    """
    lines = []
    if set(model.known or ()) == {*THINGS, *STUFF} and not is_drawn(photo):
        advice = "take a model for photos, such as blip-large-flickr"
        lines.append(f"{model.name} knows drawn scenes only, which this is not: its masks mean nothing; {advice}")
    bound = getattr(model, "calibration", {}).get("match", LOW_MATCH)
    if match is not None and match < bound:
        lines.append(f"the match of {match:.1f} is low (below {bound:g}): the photo may not show what is named")
    return tuple(lines)
