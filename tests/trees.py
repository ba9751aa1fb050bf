"""Small data sets in the official layouts, written for a test."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, values: object, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array(values, dtype=np.uint8))
    if mode == "P":
        picture.putpalette([value for grey in range(256) for value in (255 - grey, grey, 7)])
    picture.save(path)


def photo(path: Path, width: int = 3, height: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 200)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def voc(root: Path, mask: object = ((0, 15, 255), (20, 1, 0)), listed: str = "2007_1\n") -> Path:
    base = root / "VOCdevkit/VOC2012"
    write(base / "ImageSets/Segmentation/val.txt", listed)
    photo(base / "JPEGImages/2007_1.jpg")
    save(base / "SegmentationClass/2007_1.png", mask, "P")
    return root


def coco(root: Path) -> Path:
    photo(root / "val2017/000000000001.jpg", 6, 5)
    photo(root / "val2017/000000000002.jpg", 6, 5)
    write(root / "annotations/instances_val2017.json", json.dumps({
        "images": [{"id": 2, "file_name": "000000000002.jpg", "height": 5, "width": 6},
                   {"id": 1, "file_name": "000000000001.jpg", "height": 5, "width": 6}],
        "annotations": [
            {"image_id": 1, "category_id": 90, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
            # a crowd, drawn later: the second column of the polygon, and the pixel below
            {"image_id": 1, "category_id": 13, "iscrowd": 1, "segmentation": {"size": [5, 6], "counts": [11, 3, 16]}},
        ],
    }))  # fmt: skip
    return root


def every_benchmark(root: Path, count: int = 2, others: int = 2, height: int = 16, width: int = 24) -> Path:
    """Write every benchmark in its official layout, with two classes and a void in each photo; COCO in coco/.

    VOC has ``count`` photos.
    """
    rng, voc, context = np.random.default_rng(0), root / "VOCdevkit/VOC2012", root / "VOCdevkit/VOC2010"
    ade, coco = root / "ADEChallengeData2016", root / "coco"
    keys = {
        voc: [f"2007_{n:06}" for n in range(count)],
        context: [f"2008_{n:06}" for n in range(others)],
        ade: [f"ADE_val_{n:08}" for n in range(1, others + 1)],
        coco: [f"{n:012}" for n in range(1, others + 1)],
    }
    photos = {voc: "JPEGImages", context: "JPEGImages", ade: "images/validation", coco: "val2017"}
    masks = {
        voc: ("SegmentationClass", 8, 12),
        context: ("SegmentationClassContext", 15, 23),
        ade: ("annotations/validation", 1, 3),
        coco: ("stuffthingmaps/val2017", 0, 149),
    }
    for base, (folder, one, other) in masks.items():
        for key in keys[base]:
            path = base / photos[base] / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[2:-2, 2 : width // 2], mask[2:-2, width // 2 + 1 : -2], mask[:, width // 2] = one, other, 255
            mask[mask == 255] = 255 if base in (voc, coco) else 0
            save(base / folder / f"{key}.png", mask)
    write(voc / "ImageSets/Segmentation/val.txt", "\n".join(keys[voc]) + "\n")
    write(context / "ImageSets/SegmentationContext/val.txt", "\n".join(keys[context]) + "\n")
    polygon = [2, 2, width - 3, 2, width - 3, height - 3, 2, height - 3]
    write(coco / "annotations/instances_val2017.json", json.dumps({
        "images": [{"id": int(key), "file_name": f"{key}.jpg", "height": height, "width": width} for key in keys[coco]],
        "annotations": [
            {"image_id": int(key), "category_id": 18, "iscrowd": 0, "segmentation": [polygon]} for key in keys[coco]
        ],
    }))  # fmt: skip
    return root
