"""Small benchmarks, names and random weights for whole tables, and what makes them pass for the published ones."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from pnp_ovss.data import DATASETS
from pnp_ovss.data.benchmarks import ABOUT
from pnp_ovss.data.whole import digest_of_ids, find_dataset
from pnp_ovss.evaluation.reproduction import plan
from pnp_ovss.mini import draw
from pnp_ovss.models.hub import SHORT_NAMES, weight_files
from pnp_ovss.models.releases import RELEASES
from released import write_released
from tiny import tiny_blip, tiny_bridgetower, tiny_clip, tiny_groupvit
from trees import every_benchmark

NAMED = {
    "voc": ["cat", "dog"],
    "context": ["cat", "dog"],
    "object": ["dog"],
    "stuff": ["person"],
    "ade": ["wall", "sky"],
}
"""What the replies name, by column: not all that the masks hold."""
SIDE = 32
"""Of the input of the tiny models."""


def columns() -> dict[str, dict]:
    """Return the columns of Table 3 by name, as ``tables.json`` has them."""
    return {one["name"]: one for one in plan._tables()["columns"] if "table3" in one["tables"]}


def make_data(root: Path, **sizes: int) -> Path:
    """Write every benchmark, and a file of replies for each column beside them."""
    every_benchmark(root, **sizes)
    for name, about in columns().items():
        dataset, _ = find_dataset(about["data"][0], root)
        listed = {sample.key: NAMED[name] for sample in dataset.samples}
        (root / about["replies"]).write_text(json.dumps(listed))
    return root


def make_blip(folder: Path) -> Path:
    """Write a BLIP that has the layer and the head of the published settings."""
    return tiny_blip(folder, image_size=SIDE, patch=16, layers=8, heads=10)


def make_weights(root: Path) -> Path:
    """Write random weights of every row of Table 3 under the names of their checkpoints."""
    make_blip(root / "blip-large-flickr")
    tiny_bridgetower(root / "bridgetower-large", layers=2, heads=8)
    tiny_groupvit(root / "groupvit-yfcc")
    tiny_clip(root / "clip-base")
    tiny_clip(root / "clip-large-336")
    write_released(root)
    for part, name in (("masker", "tcl"), ("dense", "reco-dense"), ("encoder", "reco-encoder")):
        (root / part).rename(root / name)
    (root / "archive").mkdir()
    for index in range(2):
        Image.fromarray(draw(0, index, 64).image).save(root / "archive" / f"{index}.png")
    return root


def pass_for_published(patch: pytest.MonkeyPatch, data: Path, weights: Path) -> None:
    """Let these small things be what is expected, so that every check passes."""
    for words, about in ABOUT.items():
        if "whole" in about and words != "coco-panoptic":
            dataset, _ = find_dataset(next(name for name, (own, _) in DATASETS.items() if own == words), data)
            patch.setitem(about, "whole", {"images": [len(dataset.samples)], "ids": digest_of_ids(dataset)})
    for name, about in columns().items():
        patch.setitem(about, "named", float(len(NAMED[name])))
        patch.setitem(about, "sha256", sha256((data / about["replies"]).read_bytes()).hexdigest())
    for kind, release in RELEASES.items():
        patch.setitem(RELEASES, kind, replace(release, pixels=release.pixels and str(SIDE)))
    for folder in weights.iterdir():
        if folder.name in SHORT_NAMES:
            size = sum(path.stat().st_size for path in weight_files(folder, ""))
            settings = json.loads((folder / "config.json").read_text())
            side = settings.get("vision_config", settings)["image_size"]
            patch.setitem(SHORT_NAMES, folder.name, replace(SHORT_NAMES[folder.name], millions=size / 4e6, pixels=side))
