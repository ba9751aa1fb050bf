"""The page of a tuning run: the rewards of the settings that were tried, and the masks that the best ones give."""

from pathlib import Path

import numpy as np
from jinja2 import StrictUndefined, Template

from pnp_ovss._version import VERSION
from pnp_ovss.pictures.figures import data_url, panels
from pnp_ovss.tuning.objective import Candidate, Example, Objective
from pnp_ovss.tuning.search import Study, best_trial, finished_trials
from pnp_ovss.types import BACKGROUND

SHOWN = 6
"""Photos with the best and with the worst masks."""
SIDE = 900
"""Longest side of a picture on the page, in pixels."""


def report(study: Study, objective: Objective) -> str:
    """Return the page as HTML, without script or network; ``study`` has a best trial."""
    best = best_trial(study)
    assert best is not None
    rewards = [float(values.mean()) for values in objective(best.params)]
    order = [int(index) for index in np.argsort(rewards)[::-1]]
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    template = Template(page, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    rendered: str = template.render(
        version=VERSION,
        objective=objective,
        space=study.user_attrs["space"],
        best=best,
        trials=finished_trials(study),
        rewards=rewards,
        picture=lambda index: _picture(objective, objective.examples[index], best.params),
        groups={"Best masks": order[:SHOWN], "Worst masks": order[SHOWN:][::-1][:SHOWN]},
    )
    return rendered


def _picture(objective: Objective, example: Example, candidate: Candidate) -> str:
    """Return the masks that a candidate gives and the class maps they come from, as the URL of a JPEG."""
    photo = example.read()
    labels = objective.labels(photo, example.classes, candidate)
    background = (BACKGROUND,) if objective.config.has_background(len(example.classes)) else ()
    maps = objective.maps(photo, example.classes).at(candidate["layer"], candidate["head"])
    picture = panels(photo, labels, (*background, *example.classes), maps.numpy())
    picture.thumbnail((SIDE, SIDE))
    return data_url(picture)
