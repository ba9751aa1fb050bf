"""Whether a model does on ten drawn scenes what a sound one does, and if not, what may be wrong with it.

A checkpoint that is read wrongly gives masks all the same. What is said here comes from the model's answers alone, not
from how it was read. The scenes are those for tuning; held-out ones are for scores that are published.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from pnp_ovss.errors import ModelError
from pnp_ovss.methods import Method
from pnp_ovss.methods.pnp.prompt import PREFIX, make_prompt
from pnp_ovss.mini import CLASSES, SIMILAR, THINGS, TUNE_SEED, Scene, draw
from pnp_ovss.models import FAMILIES, VLM, find
from pnp_ovss.models.base import Matcher
from pnp_ovss.models.blip import Blip
from pnp_ovss.models.clip import similarity
from pnp_ovss.models.hub import SHORT_NAMES, read_settings
from pnp_ovss.types import Vocabulary

SCENES = 10
ABSENT = 4
"""Names for each scene that are not in it."""
NAMES, REVERSED = 0.75, 0.25
"""Share of pairs in which the right name scores higher: enough, and so few that scores are the wrong way round."""
DOUBTFUL = 0.9
"""Below this share other normalisations are tried."""
GAIN, LEAST = 1.3, 0.25
"""What makes right names stand out so many times as far is a suspect; and the deviations that this is at least of."""
SURE = 2.0
"""Standard deviations above chance from which salience counts as on the object."""
PLANTED, CHANGED = 64, 0.04
"""Cells that are changed in all, to see where they come out, and their share of a scene's."""
SEEN, CLEAR = 4.0, 0.1
"""Standard deviations above chance from which changed cells count as seen, for the best of many places is above it by
itself; and by how much their mean rank has to be better in another place than in their own."""
FAR = 2
"""Cells by which a grid may be shifted."""
CENTRED, SPREAD = 1.5, (0.4, 2.5)
"""Mean of normalised pixels at most, and the range of their standard deviation."""
ON_CLIP = "mini-clip", "naclip"
"""What a method on CLIP is compared with."""
PLACED, UNSEEN = "in place", "not seen"
NORMALISATIONS = {
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "ViLT's": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Means and standard deviations that checkpoints are trained with."""

Margins = Float[Tensor, " _"]
"""By how much right names score higher than wrong ones, a number for each pair within a scene."""


@dataclass(frozen=True)
class Sanity:
    """What a model did on the scenes."""

    score: str
    """What names are compared with photos by: "matching head", "ranking head" or "similarity"."""
    names: float
    """Share of pairs of a name in a scene and one that is not in which the first has the higher score; chance: 0.5."""
    salience: float
    """Share of names whose class map is highest on their object, which is called the pointing game."""
    chance: float
    """The same share for a cell taken at random."""
    grid: str
    """Where a cell of a photo comes out: "in place", where else, or "not seen"."""
    mean: float
    deviation: float
    """Of the pixels as the model sees them."""
    suspects: tuple[str, ...]
    """What may be wrong, a line each; empty if nothing looks so."""


def plan(model: str, method: str | None = None) -> tuple[str, str, str]:
    """Return the method that a model is checked by, and the shipped model that it is compared with, and its method.

    Without ``method`` it is that of the model's family. Raises: ModelError if the model, a short name, hub id or
    folder, cannot be found, or knows no names.
    """
    if method not in (None, "pnp"):
        return str(method), *ON_CLIP
    known = SHORT_NAMES.get(model)
    kind = known.family if known else str(read_settings(find(model).folder / "config.json", model).get("model_type"))
    methods = dict.fromkeys(FAMILIES, "pnp") | {"clip": "naclip", "groupvit": "groupvit"}
    if kind not in methods:
        expected = f"one that compares names with photos ({', '.join(methods)})"
        raise ModelError(f"{model} is a model of kind {kind!r}, which knows no names; give {expected}, or its --method")
    on_pnp = "mini-bridgetower" if kind == "bridgetower" else "mini-blip", "pnp"
    return methods[kind], *(on_pnp if methods[kind] == "pnp" else ON_CLIP)


def check_sanity(method: Any) -> Sanity:
    """Return what a method with a ``backbone`` does on the scenes. For PnP-OVSS one pass is enough."""
    model, config = method.backbone, method.config
    side: int = getattr(config, "short_side", None) or getattr(config, "size", None) or model.size
    scenes = [draw(TUNE_SEED, index, side) for index in range(SCENES)]
    starts = [start for start in model.starts if start != model.first_token] if isinstance(model, Blip) else []
    changes = [{}, *({"first_token": start} for start in starts)]
    compared, points = [], list[tuple[bool, float]]()
    for index, scene in enumerate(scenes):  # one after the other, for a model keeps the states of its last image
        compared.append(_compare(model, index, scene, side, changes))
        points += _point(method, scene)
    own, *others = _joined(compared)
    tried = {f"[ENC]: behind token {start}": one for start, one in zip(starts, others, strict=True)}

    suspects = list[str]()
    mean, deviation = _pixels(method, scenes, side)
    if abs(mean) > CENTRED or not SPREAD[0] < deviation < SPREAD[1]:
        got = f"pixels have mean {mean:.2f} and deviation {deviation:.2f}, not about 0 and 1"
        suspects.append(f"normalisation: {got}; image_mean, image_std or their scale may be wrong")
    elif _in_order(own) < DOUBTFUL or _colours(model) != _colours(type(model)):
        tried |= _normalised(model, scenes, side)
    head = isinstance(model, VLM)
    suspects += _doubts(own, tried, head)
    grid = _check_grid(method, scenes)
    if grid not in (PLACED, UNSEEN):
        suspects.append(f"grid: a part of a photo comes out {grid}")
    share, (salience, chance) = _in_order(own), np.mean(points, axis=0).tolist()
    if not suspects and share < NAMES:
        suspects.append("names: right ones hardly score higher; are these the trained weights?")
    elif not suspects and salience < chance + SURE * (chance * (1 - chance) / len(points)) ** 0.5:
        suspects.append("salience: it is rarely on the object; another layer and head, both from 0, may be better")
    score = "matching head" if isinstance(model, Matcher) else "ranking head" if head else "similarity"
    return Sanity(score, share, salience, chance, grid, mean, deviation, tuple(suspects))


def _doubts(own: Margins, tried: dict[str, Margins], head: bool) -> list[str]:
    """Return what may be wrong with names: what makes right ones stand out further is. ``head``: it is a logit's."""
    share, gap = _in_order(own), max(_gap(own), LEAST)
    if share < REVERSED:
        reason = "its outputs may be swapped, index 0 for 1" if head else "its sign may be wrong"
        return [f"{'match logit' if head else 'similarity'}: wrong names score above right ones; {reason}"]
    better = {what: _gap(one) / gap for what, one in tried.items() if _in_order(one) >= max(share, NAMES)}
    what = max(better, key=lambda what: better[what], default="")
    if better.get(what, 0) > GAIN:
        return [f"{what} right names stand out {better[what]:.1f} times as far"]
    return []


def _normalised(model: Any, scenes: Sequence[Scene], side: int) -> dict[str, Margins]:
    """Return the margins with other normalisations of the pixels than the model's."""
    others = {name: colours for name, colours in NORMALISATIONS.items() if colours != _colours(model)}
    changes = [dict(zip(("mean", "std"), colours, strict=True)) for colours in others.values()]
    found = _joined([_compare(model, index, scene, side, changes) for index, scene in enumerate(scenes)])
    return {f"normalisation: with {name} mean and std": one for name, one in zip(others, found, strict=True)}


def _colours(model: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(model.mean), tuple(model.std)


def _pixels(method: Any, scenes: Sequence[Scene], side: int) -> tuple[float, float]:
    """Return mean and standard deviation of what the model sees of the scenes."""
    prepare = getattr(method, "prepare", None) or partial(method.backbone.prepare, size=side)
    pixels = torch.stack([prepare(scene.image).float() for scene in scenes])
    return float(pixels.mean()), float(pixels.std())


def _joined(found: Sequence[Sequence[Margins]]) -> list[Margins]:
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _compare(model: Any, index: int, scene: Scene, side: int, changes: Sequence[dict[str, Any]]) -> list[Margins]:
    """Return for each change of the model by how much right names of a scene score higher than wrong ones."""
    likely = {*scene.things, *(name for thing in scene.things for name in SIMILAR[thing])}
    absent = [name for name in np.roll(THINGS, 2 * index).tolist() if name not in likely][:ABSENT]
    found = []
    for change in changes:
        with _changed(model, change):
            scores = _scores(
                model, model.prepare(scene.image, side if isinstance(model, VLM) else None), [*scene.things, *absent]
            ).cpu()
        right, wrong = scores[: len(scene.things)], scores[len(scene.things) :]
        found.append((right[:, None] - wrong).flatten())
    return found


def _scores(model: Any, pixels: Float[Tensor, "3 h w"], names: Sequence[str]) -> Float[Tensor, " name"]:
    """Return how well each name alone goes with an image, by whatever the model compares them with."""
    if not isinstance(model, VLM):
        texts = model.encode_words(names, [f"{PREFIX}{{}}"])
        return similarity(model.encode_images(pixels[None]), texts)[0]
    prompts = [make_prompt([name]) for name in names]
    if isinstance(model, Matcher):
        return model.match(pixels[None], prompts)[0]
    return model.attend(pixels.expand(len(names), -1, -1, -1), prompts, [model.layers - 1]).match


@contextmanager
def _changed(model: Any, change: dict[str, Any]) -> Iterator[None]:
    kept = {name: getattr(model, name) for name in change}
    vars(model).update(change)
    try:
        yield
    finally:
        vars(model).update(kept)


def _in_order(margins: Margins) -> float:
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def _gap(margins: Margins) -> float:
    """Return the mean margin in standard deviations, so that scores of any scale can be compared."""
    return float(margins.mean() / margins.std().clamp_min(1e-12))


def _point(method: Method, scene: Scene) -> Iterator[tuple[bool, float]]:
    """Yield for each name whether its class map is highest on its object, and the share of cells that are."""
    [found] = method.class_maps([scene.image], [Vocabulary.of(scene.things)])
    for name, map_ in zip(scene.things, found.maps.float().cpu(), strict=True):
        mask = torch.from_numpy(scene.mask == CLASSES.index(name)).float()
        cells = adaptive_max_pool2d(mask[None], map_.shape)[0].flatten()
        yield bool(cells[map_.argmax()]), float(cells.mean())


def _check_grid(method: Method, scenes: Sequence[Scene]) -> str:
    """Return where cells of photos come out whose colours are inverted: where class maps change most."""
    planted = list[tuple[Any, Any]]()
    for index, scene in enumerate(scenes):
        planted.append(_plant(method, index, scene))
        if (count := sum(int(cells.sum()) for cells, _ in planted)) >= PLANTED:
            break
    ranks = {place: np.concatenate([rank[move(cells)] for cells, rank in planted]).mean() for place, move in _places()}
    best = max(ranks, key=lambda place: ranks[place])
    if ranks[best] < 0.5 + SEEN / (12 * count) ** 0.5:  # ranks by chance are uniform in [0, 1]
        return UNSEEN
    return best if ranks[best] > ranks[PLACED] + CLEAR else PLACED


def _plant(method: Method, index: int, scene: Scene) -> tuple[Bool[np.ndarray, "gh gw"], Float[np.ndarray, "gh gw"]]:
    """Return cells that were changed, and the rank in [0, 1] of each cell by how much its class maps changed."""
    words = [Vocabulary.of(scene.things)]
    before = method.class_maps([scene.image], words)[0].maps
    cells = np.random.default_rng((TUNE_SEED, index)).random(before.shape[1:]) < CHANGED
    cells[1, 2] = True  # at least one
    inside = np.array(Image.fromarray(cells).resize(scene.image.shape[1::-1], Image.Resampling.NEAREST))
    image = np.where(inside[..., None], 255 - scene.image, scene.image)
    change = (method.class_maps([image], words)[0].maps - before).abs().mean(0).float().cpu().numpy()
    return cells, (rankdata(change) / change.size).reshape(change.shape)


def _places() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield the ways in which a grid may come out wrong, after the right one."""
    yield PLACED, lambda cells: cells
    yield "with rows and columns swapped", lambda cells: cells.T
    yield "upside down", lambda cells: cells[::-1]
    yield "mirrored", lambda cells: cells[:, ::-1]
    for rows, columns in product(range(-FAR, FAR + 1), repeat=2):
        if rows or columns:
            yield f"{rows:+d} rows and {columns:+d} columns away", partial(np.roll, shift=(rows, columns), axis=(0, 1))
