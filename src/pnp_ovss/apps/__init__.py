"""Where people annotate: a Label Studio backend, a CVAT function, a FiftyOne zoo model. One module each."""

from collections.abc import Sequence

from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.segmenter import check_background, settle


def check_names(classes: Sequence[str], model: str, preset: str) -> tuple[str, ...]:
    """Return the names of the classes that every photo will be asked for, checked before the model is loaded.

    Raises: InputError if a name cannot be used; ConfigError or ModelError as ``settle`` does.
    """
    prompt = make_prompt(classes)
    check_background(settle(model, preset), prompt)
    return prompt.classes
