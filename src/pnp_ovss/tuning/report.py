"""The page of a tuning run: the rewards of the settings that were tried, and the masks that the best ones give."""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pnp_ovss._version import VERSION
from pnp_ovss.pictures import panels
from pnp_ovss.tuning.objective import Candidate, Example, Objective
from pnp_ovss.tuning.search import Study, best_trial, finished_trials
from pnp_ovss.types import BACKGROUND

__all__ = ["report"]

SHOWN = 6
"""Photos with the best and with the worst masks."""
SIDE = 900
"""Longest side of a picture on the page, in pixels."""
FORMS = {
    "black": "the share of masks whose class is likelier in the mask than in a black picture",
    "rest": "the share of masks whose class is likelier in the mask than in the rest of the photo",
    "graded": "how likely the class is in the mask against a black picture, 0.5 where they are equal; mean over masks",
}


def report(study: Study, objective: Objective) -> str:
    """Return the page as HTML, without script or network; ``study`` has a best trial."""
    best = best_trial(study)
    assert best is not None
    rewards = [float(values.mean()) for values in objective(best.params)]
    order = [int(index) for index in np.argsort(rewards)[::-1]]
    folder = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return template.get_template("report.html").render(
        version=VERSION,
        objective=objective,
        meaning=FORMS[objective.reward.form],
        space=study.user_attrs["space"],
        best=best,
        trials=finished_trials(study),
        rewards=rewards,
        picture=lambda index: _picture(objective, objective.examples[index], best.params),
        groups={"Best masks": order[:SHOWN], "Worst masks": order[SHOWN:][::-1][:SHOWN]},
    )


def _picture(objective: Objective, example: Example, candidate: Candidate) -> str:
    """Return the masks that a candidate gives and the class maps they come from, as the URL of a JPEG."""
    photo = example.read()
    labels = objective.labels(photo, example.classes, candidate)
    background = (BACKGROUND,) if objective.config.has_background(len(example.classes)) else ()
    maps = objective.maps(photo, example.classes).at(candidate["layer"], candidate["head"])
    picture = panels(photo, labels, (*background, *example.classes), maps.numpy())
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=84)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
