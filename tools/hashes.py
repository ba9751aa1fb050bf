"""Hash what the segmenter gives, to see that a change leaves every bit as it was.

    python -m tools.hashes OUT.json [--photos DIR --blip FOLDER]     # before the change
    python -m tools.hashes --compare OUT.json [...]                  # after it; exit code 1 where a hash differs

Hashed are labels, scores, salience and the match of 24 drawn scenes with the mini models, under several presets and
batch sizes, the vectors of mini-clip, and, with ``--photos`` and ``--blip`` (a folder that
``benchmarks.random_blip`` wrote), of 20 photos. Compare on one machine with one build of torch only: rounding differs
between processors.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pnp_ovss import Segmenter
from pnp_ovss.mini import HELD_OUT_SEED, draw

SCENES = 24
PHOTOS = 20
WORDS = (
    ("dog", "traffic light"),
    ("person",),
    ("car", "tree", "dining table", "sky"),
    ("cat", "hot air balloon", "grass"),
)
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mini-blip", {}),
    ("mini-blip", {"preset": "released", "size": None, "layer": 1, "head": 1}),
    ("mini-blip", {"preset": "paper", "size": None, "layer": 0, "head": 2, "background": "few"}),
    ("mini-blip", {"refiners": ("blur", "pamr", "guided"), "max_pixels": 5000, "background": "never"}),
    ("mini-blip", {"refiners": ("crf",), "max_pixels": 6000, "crf_tolerance": 0.01}),
    ("mini-blip", {"refiners": (), "gradient": False}),
    ("mini-bridgetower", {}),
    ("mini-bridgetower", {"gradient": True, "passes": 4, "drop": 0.5}),
)


def digest(*arrays: Any) -> str:
    """Return a hash of the arrays' types, shapes and bytes."""
    found = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:20]


def hashes(photos: Path | None, blip: Path | None) -> Iterator[tuple[str, str]]:
    """Yield a name and a hash per segmentation."""
    scenes = [draw(HELD_OUT_SEED, index) for index in range(SCENES)]
    for index, scene in enumerate(scenes):
        yield f"scene/{index}", digest(scene.image, scene.mask)
    for number, (model, settings) in enumerate(SETTINGS):
        segmenter = Segmenter.from_pretrained(model, device="cpu", **settings)
        for batch in (1, 5):
            for start in range(0, SCENES, batch):
                some = scenes[start : start + batch]
                results = segmenter([scene.image for scene in some], [list(scene.things) for scene in some])
                for offset, result in enumerate(results):
                    name = f"{model}/{number}/{batch}/{start + offset}"
                    yield name, digest(result.labels, result.scores, result.salience, np.float64(result.match))
    for name, vectors in clip_vectors([scene.image for scene in scenes]):
        yield name, digest(vectors)
    if photos and blip:
        segmenter = Segmenter.from_pretrained(blip, device="cpu", preset="released")
        for index, path in enumerate(sorted(photos.glob("*.jpg"))[:PHOTOS]):
            result = segmenter(path, WORDS[index % len(WORDS)])
            yield f"blip/{path.stem}", digest(result.labels, result.scores, result.salience, np.float64(result.match))


def clip_vectors(images: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the vectors that mini-clip gives images and texts."""
    import torch

    try:
        from pnp_ovss.models.clip import load_clip
    except ImportError:
        from pnp_ovss.models.clip import load_clip
    clip = load_clip("mini-clip", device="cpu")
    yield "mini-clip/images", clip.encode_images(torch.stack([clip.prepare(image) for image in images])).numpy()
    yield "mini-clip/texts", clip.encode_texts(["a picture of cactus", "A picture of rocket"]).numpy()


def main() -> int:
    """Write or compare the hashes; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--blip", type=Path)
    args = parser.parse_args()
    found = dict(hashes(args.photos, args.blip))
    if not args.compare:
        args.file.write_text(json.dumps(found, indent=0))
        print(f"{len(found)} hashes in {args.file}")
        return 0
    before = json.loads(args.file.read_text())
    other = [name for name, value in found.items() if before.get(name) != value]
    print(
        f"{len(found) - len(other)} of {len(found)} hashes are equal"
        + (f"; not: {', '.join(other[:8])}" if other else "")
    )
    return int(bool(other))


if __name__ == "__main__":
    sys.exit(main())
