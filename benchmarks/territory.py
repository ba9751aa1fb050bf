"""Which pictures look like drawn scenes: the numbers of ``mini/territory.json``, and what they say of photos.

    python -m benchmarks.territory [--fit] [--photos DIR ...]

With ``--fit`` the numbers are chosen anew, on scenes of the tuning series in several sizes, and written; no photo has a
part in it. Then the share of pictures that are flagged is printed: of held-out scenes, and of the photos in folders.
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pnp_ovss.images import find_images, read_image
from pnp_ovss.mini import HELD_OUT_SEED, TUNE_SEED, draw, territory
from pnp_ovss.types import RGB

SIZES = (80, 112, 224, (200, 320))
EXCEED = 0.001
"""Share of tuning scenes beyond the bound."""


def fit(scenes: int) -> dict[str, object]:
    """Return mean, inverse covariance and bound of what drawn scenes look like."""
    looks = np.array([territory.looks(draw(TUNE_SEED, index, size).image) for index in range(scenes) for size in SIZES])
    mean, spread = looks.mean(0), np.maximum(looks.std(0), territory.FLOOR)
    apart = (looks - mean) / spread
    # A little is added so that no direction, however narrow, decides alone.
    precision = np.linalg.inv(np.cov(apart.T) + 0.05 * np.eye(len(mean))) / np.outer(spread, spread)
    away = looks - mean
    distances = np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away))
    bound = float(np.quantile(distances, 1 - EXCEED))
    return {"mean": mean.round(4).tolist(), "precision": precision.round(3).tolist(), "bound": round(bound, 3)}


def compressed(picture: RGB) -> RGB:
    """Return the picture as a JPEG of quality 75 shows it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def groups(args: argparse.Namespace) -> Iterator[tuple[str, list[RGB]]]:
    """Yield the pictures of each row of the table."""
    for size in (112, 224, 448, (240, 160)):
        yield f"held-out scenes, {size} px", [draw(HELD_OUT_SEED, index, size).image for index in range(args.scenes)]
    yield "held-out scenes, JPEG", [compressed(draw(HELD_OUT_SEED, index, 224).image) for index in range(args.scenes)]
    for folder in args.photos:
        yield f"photos, {folder.parent.name or folder.name}", [read_image(path) for path in find_images([str(folder)])]


def main() -> None:
    """Write the numbers if asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    if args.fit:
        path = Path(territory.__file__).with_name("territory.json")
        path.write_text(json.dumps(fit(args.scenes)) + "\n", encoding="ascii")
        territory._SCENES.update(json.loads(path.read_text(encoding="ascii")))
    print(f"bound {territory._SCENES['bound']}\n\n| pictures | how many | flagged | least and largest distance |")
    print("|---|---|---|---|")
    for name, pictures in groups(args):
        found = np.array([territory.distance(picture) for picture in pictures])
        flagged = np.mean([not territory.is_drawn(picture) for picture in pictures])
        print(f"| {name} | {len(found)} | {100 * flagged:.1f} % | {found.min():.1f} to {found.max():.1f} |")


if __name__ == "__main__":
    main()
