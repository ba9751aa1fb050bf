"""Whole inputs, to be damaged: a photo in every format, a data set in every layout, checkpoints, results."""

import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import tiny
import trees
from fuzz.harness import Place
from fuzz.mutate import damaged
from pnp_ovss import Segmenter
from pnp_ovss.files import Folder, Source
from pnp_ovss.methods.pnp import Config, PnP
from pnp_ovss.models import VLM, load_vlm
from pnp_ovss.models.clip import load_clip
from pnp_ovss.runs.record import Results, write_result

SMALL = {"layer": 0, "head": 1, "drop": 2, "passes": 2, "refiners": ("blur",)}
FAMILIES = {
    "blip": tiny.tiny_blip,
    "bridgetower": tiny.tiny_bridgetower,
    "vilt": tiny.tiny_vilt,
    "blip2": tiny.tiny_blip2,
    "clip": tiny.tiny_clip,
}
NAMES = ("dog", "traffic light")


def copy_of(place: Place, kind: str) -> Path:
    """Return a whole input of its own, to be damaged."""
    return Path(shutil.copytree(whole(place.shared, kind), place.folder / kind))


@cache
def whole(shared: Path, kind: str) -> Path:
    """Return an input that is made once: a checkpoint or a folder of results, by name."""
    folder = shared / kind
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=shared) as beside:
            made = Path(beside) / kind
            if kind in MAKERS:
                MAKERS[kind](shared, made)
            else:
                (FAMILIES[kind] if kind in FAMILIES else LAYOUTS[kind][0])(made)
            if not folder.exists():
                made.rename(folder)
    return folder


@cache
def vlm(shared: Path) -> VLM:
    return load_vlm(whole(shared, "blip"), "cpu")


@cache
def clip(shared: Path) -> Any:
    return load_clip(whole(shared, "clip"), "cpu")


@cache
def segmenter(shared: Path) -> Segmenter:
    return Segmenter(PnP(vlm(shared), Config(**SMALL)))


@cache
def pixels(height: int = 13, width: int = 17) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(mode: str = "RGB", height: int = 13, width: int = 17) -> Image.Image:
    """Return a picture of a mode; those that RGB cannot become are filled from bytes."""
    rgb = Image.fromarray(pixels(height, width))
    if mode in ("I;16", "I;16B", "I", "F"):
        grey = np.asarray(rgb.convert("L")).astype({"I": np.int32, "F": np.float32}.get(mode, np.uint16))
        return Image.fromarray(grey * (1 if mode in "IF" else 257))
    return rgb.convert(mode)


@cache
def photo_files() -> dict[str, bytes]:
    """Return a photo as a file of every format that is read, in its variants."""
    exif = Image.Exif()
    exif[274], exif[270], exif[34665] = 6, "a photo", {36867: "2026:01:01 00:00:00"}
    frames = [picture(), picture().rotate(90, expand=False)]
    rows: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "plain.jpg": (picture(), "JPEG", {}),
        "turned.jpg": (picture(), "JPEG", {"exif": exif.tobytes(), "icc_profile": b"no profile" * 9}),
        "progressive.jpg": (picture("CMYK"), "JPEG", {"progressive": True}),
        "grey.jpg": (picture("L"), "JPEG", {"restart_marker_rows": 1}),
        "plain.png": (picture(), "PNG", {"exif": exif.tobytes()}),
        "alpha.png": (picture("RGBA"), "PNG", {}),
        "palette.png": (picture("P"), "PNG", {"transparency": bytes(range(200))}),
        "bits.png": (picture("1"), "PNG", {}),
        "grey.png": (picture("LA"), "PNG", {}),
        "deep.png": (picture("I;16"), "PNG", {"transparency": 9}),
        "moving.png": (picture(), "PNG", {"save_all": True, "append_images": frames}),
        "plain.webp": (picture(), "WEBP", {"exif": exif.tobytes()}),
        "lossless.webp": (picture("RGBA"), "WEBP", {"lossless": True}),
        "moving.webp": (picture(), "WEBP", {"save_all": True, "append_images": frames}),
        "plain.bmp": (picture(), "BMP", {}),
        "palette.bmp": (picture("P"), "BMP", {}),
        "moving.gif": (picture("P"), "GIF", {"save_all": True, "append_images": frames, "transparency": 3}),
        "plain.tif": (picture(), "TIFF", {"exif": exif.tobytes()}),
        "lzw.tif": (picture("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (picture("P"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (picture(), "TIFF", {"compression": "jpeg"}),
        "float.tif": (picture("F"), "TIFF", {}),
        "deep.tif": (picture("I;16"), "TIFF", {"save_all": True, "append_images": [picture("I")]}),
        "plain.ppm": (picture(), "PPM", {}),
        "grey.pgm": (picture("L"), "PPM", {}),
        "plain.jp2": (picture(), "JPEG2000", {}),
        "plain.avif": (picture(), "AVIF", {"exif": exif.tobytes()}),
    }
    Image.init()
    files = {}
    for name, (image, format, how) in rows.items():
        if format in Image.SAVE:
            buffer = io.BytesIO()
            image.save(buffer, format, **how)
            files[name] = buffer.getvalue()
    return files


def damaged_photo(rng: Random) -> tuple[str, bytes]:
    """Return the name and the content of a damaged photo; of a PNG now and then with sums that are right."""
    name = rng.choice(sorted(photo_files()))
    content = photo_files()[name]
    if name.endswith(".png") and rng.random() < 0.5:
        return name, damaged_chunk(rng, content)
    if rng.random() < 0.03:
        return name, rng.choice((b"", b"\0", b"GIF89a", rng.randbytes(50), b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run"))
    return name, damaged(rng, content)


def damaged_chunk(rng: Random, content: bytes) -> bytes:
    """Return a PNG with a damaged part whose checksum is right, so that its decoder believes it."""
    parts, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        parts.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index = rng.choice((0, rng.randrange(len(parts))))
    kind, data = parts[index]
    if kind == b"IHDR" and rng.random() < 0.5:
        sides = [rng.choice((0, 1, 7, 65_500, 12_000, 150_000_000, 1 << 31)) for _ in range(2)]
        data = b"".join(side.to_bytes(4) for side in sides) + data[8:]
    else:
        data = damaged(rng, data)
    parts[index] = kind, data
    if rng.random() < 0.2:
        parts.insert(rng.randrange(len(parts)), rng.choice(parts))
    joined = (len(d).to_bytes(4) + k + d + zlib.crc32(k + d).to_bytes(4) for k, d in parts)
    return content[:8] + b"".join(joined)


def context_png(root: Path) -> None:
    base = root / "VOCdevkit/VOC2010"
    trees.write(base / "ImageSets/SegmentationContext/val.txt", "2008_1\n2008_2\n")
    for key in ("2008_1", "2008_2"):
        trees.photo(base / f"JPEGImages/{key}.jpg")
        trees.save(base / f"SegmentationClassContext/{key}.png", [[0, 59, 1], [1, 2, 3]])


def context_json(root: Path) -> None:
    regions = [
        {"image_id": 7, "category_id": 2, "segmentation": {"size": [2, 3], "counts": [0, 2, 4]}},
        {"image_id": 8, "category_id": 458, "segmentation": {"size": [2, 3], "counts": [1, 3, 2]}},
    ]
    images = [
        {"image_id": number, "file_name": f"2008_{number}.jpg", "height": 2, "width": 3, "phase": "val"}
        for number in (7, 8)
    ]
    for number in (7, 8):
        trees.photo(root / f"VOC2010/JPEGImages/2008_{number}.jpg")
    content = {"images": images, "annos_segmentation": regions}
    trees.write(root / "VOC2010/trainval_merged.json", json.dumps(content))


def objects_masks(root: Path) -> None:
    trees.photo(root / "images/val2017/1.jpg")
    trees.save(root / "annotations/val2017/1_instanceTrainIds.png", [[0, 1, 80], [0, 0, 0]])


def stuff(root: Path) -> None:
    trees.photo(root / "val2017/1.jpg")
    trees.save(root / "stuffthingmaps/val2017/1.png", [[0, 12, 89], [91, 181, 255]])


def panoptic(root: Path) -> None:
    trees.photo(root / "val2017/1.jpg")
    trees.save(root / "annotations/panoptic_val2017/1.png", [[(7, 1, 0), (0, 0, 0), (9, 0, 2)]] * 2)
    segments = [{"id": 7 + 256, "category_id": 1}, {"id": 9 + 2 * 65536, "category_id": 200}]
    annotations = {"annotations": [{"file_name": "1.png", "segments_info": segments}]}
    trees.write(root / "annotations/panoptic_val2017.json", json.dumps(annotations))


def ade(root: Path) -> None:
    for key in ("ADE_val_1", "ADE_val_2"):
        trees.photo(root / f"ADEChallengeData2016/images/validation/{key}.jpg")
        trees.save(root / f"ADEChallengeData2016/annotations/validation/{key}.png", [[0, 1, 150], [2, 2, 2]])


def own_folder(root: Path) -> None:
    for key in ("a", "b"):
        trees.photo(root / f"images/{key}.jpg")
        trees.save(root / f"masks/{key}.png", [[0, 2, 255], [1, 1, 1]])
    trees.write(root / "classes.txt", "background\ncat\n2: dog # comment\n")


LAYOUTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "voc": (lambda root: trees.voc(root, listed="2007_1\n2007_2\n"), ("voc20", "voc21")),
    "context-png": (context_png, ("context59", "context60")),
    "context-json": (context_json, ("context59", "context60")),
    "objects": (trees.coco, ("object80", "object81")),
    "objects-masks": (objects_masks, ("object80", "object81")),
    "stuff": (stuff, ("stuff171", "object80", "object81")),
    "panoptic": (panoptic, ("panoptic133",)),
    "ade": (ade, ("ade150",)),
    "folder": (own_folder, ("folder",)),
}
"""What writes a data set in each layout, and the data sets that are read from it."""


def segmented(shared: Path, folder: Path) -> None:
    """Write what ``segment`` does of two photos."""
    for key in ("a", "b"):
        photo = folder / "photos" / f"{key}.png"
        trees.photo(photo, 17, 13)
        write_result(folder, photo, pixels(), segmenter(shared)(pixels(), NAMES), 0.1)


def batch_loose(shared: Path, folder: Path) -> None:
    """Write what ``batch`` does, as files."""
    results = Results(Folder(folder))
    for key in ("a", "deep/b"):
        results.write(key, Source(f"photos/{key}.png"), pixels(), segmenter(shared)(pixels(), NAMES), 0.1)
    results.write("deep/nothing", Source("photos/deep/nothing.png"), pixels(), None, 0.1)


def batch_packed(shared: Path, folder: Path) -> None:
    """Write what ``batch`` does, as a Parquet file."""
    batch_loose(shared, folder)
    Results(Folder(folder)).pack("shards/00000.parquet", ["a", "deep/b", "deep/nothing"])


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "segmented": segmented,
    "batch-loose": batch_loose,
    "batch-packed": batch_packed,
}
"""What writes a folder of results."""


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
