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
            # a crowd, drawn later, lies on top: the two lower pixels of the second column of the polygon
            {"image_id": 1, "category_id": 13, "iscrowd": 1, "segmentation": {"size": [5, 6], "counts": [11, 3, 16]}},
        ],
    }))  # fmt: skip
    return root
