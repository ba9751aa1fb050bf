"""What a run with a network measures of published weights, and how it is held against what an earlier one stored.

``pytest -m weights --weights --data DIR`` compares; with ``--record`` it also stores what nothing is stored of yet.
A value that has to change is removed by hand, with a reason in the commit.
"""

import json
from pathlib import Path

import numpy as np

from pnp_ovss import Vocabulary, load_method
from pnp_ovss.cli import main
from pnp_ovss.mini import draw

STORED = Path(__file__).parent / "data/weights"
MODELS = {
    "blip-base-flickr": "pnp",
    "blip-large-flickr": "pnp",
    "bridgetower-base": "pnp",
    "vilt-flickr": "pnp",
    "clip-base": "sclip",
    "groupvit-yfcc": "groupvit",
}
"""Method by short name: one model of each family that a machine without a GPU has room for."""
SCENES, SERIES, SIDE = 3, 2, 336
PHOTOS = 20
MAPS, POINTS = 1e-3, 0.1
"""How far from the stored values is the same: a share of a map's largest value, for float32 adds up in another order on
another processor; and points of mIoU."""
ABOUT = "about"


def scene_maps(method: str, model: str | Path) -> dict[str, np.ndarray]:
    """Return the class maps of each drawn scene, its true names given, and which revision made them."""
    loaded = load_method(method, model, device="cpu", dtype="float32")
    found = {ABOUT: np.array(loaded.revision)}
    for number in range(SCENES):
        scene = draw(SERIES, number, SIDE)
        [maps] = loaded.class_maps([scene.image], [Vocabulary.of(scene.things)])
        found[str(number)] = maps.maps.float().cpu().numpy()
    return found


def miou(arguments: tuple[str, ...], out: Path) -> dict[str, np.ndarray]:
    """Return the mIoU in points that ``pnp-ovss evaluate`` reports, and which revision it is of."""
    code = main(["evaluate", *arguments, "--out", str(out), "--device", "cpu", "--dtype", "float32", "--quiet"])
    assert code == 0, "see the lines above"
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {ABOUT: np.array(report["settings"]["revision"]), "miou": np.array(100 * report["score"]["miou"])}


def held(path: Path, measured: dict[str, np.ndarray], within: float, relative: bool, record: bool) -> str:
    """Return what is wrong with the measured values, "" if nothing is.

    ``within``: how far from the stored ones they may be, as a share of the largest stored one if ``relative``. Where
    nothing is stored, that is wrong, unless it is to be recorded.
    """
    if not path.is_file():
        if not record:
            return f"nothing is stored in {path} yet: run with --record, look at it, and commit it"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **measured)
        return ""
    with np.load(path) as stored:
        revision, now = str(stored[ABOUT]), str(measured[ABOUT])
        of = f"of revision {now}, stored of {revision}" if now != revision else f"of revision {now}"
        for name in stored.files:
            if name == ABOUT:
                continue
            want, got = stored[name], measured[name]
            if want.shape != got.shape:
                return f"{path.stem}, {name}: expected the shape {want.shape}, got {got.shape} {of}"
            far = float(np.abs(got - want).max())
            if not far <= within * (float(np.abs(want).max()) if relative else 1.0):  # NaN is far as well
                return f"{path.stem}, {name}: {far:.3g} from what is stored, {of}"
    return ""
