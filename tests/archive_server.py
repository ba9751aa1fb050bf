"""Small archives in the layouts of the benchmarks' own, and a server on the loopback address that has them."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trees
from local_server import running
from pnp_ovss.data.archives import SOURCES, Source


@dataclass
class Server:
    """Files by name, and what was asked for: name, header ``Range`` and the bytes that were sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    tag: str = '"1"'
    """The ETag of all files."""
    ranges: bool = True
    status: int = 0
    """Answer so to everything."""
    length: bool = True
    """Whether answers say how long they are."""


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def bundle(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return stream.getvalue()


def contents(folder: Path, *below: str) -> dict[str, bytes]:
    """Return the files of a folder, in some of its folders, by their paths."""
    roots = [folder / name for name in below] or [folder]
    paths = [path for root in roots for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def archives(folder: Path) -> dict[str, bytes]:
    """Return archives with a photo or two of each benchmark, laid out like the official ones, with more in them."""
    other = {
        "VOCdevkit/VOC2012/Annotations/2007_1.xml": b"<annotation/>",
        "VOCdevkit/VOC2012/ImageSets/Main/a.txt": b"",
    }
    trees.voc(folder / "voc")
    trees.photo(folder / "context/VOCdevkit/VOC2010/JPEGImages/2008_7.jpg")
    regions = [{"image_id": 7, "category_id": 2, "segmentation": {"size": [2, 3], "counts": [0, 2, 4]}}]
    images = [{"image_id": 7, "file_name": "2008_7.jpg", "height": 2, "width": 3, "phase": "val"}]
    trees.coco(folder / "coco")
    for number in "12":
        trees.save(folder / f"stuff/val2017/00000000000{number}.png", [[0, 12, 89, 91, 181, 255]] * 5)
        trees.save(folder / f"stuff/train2017/00000000000{number}.png", [[0]])
        trees.save(folder / f"png/panoptic_val2017/00000000000{number}.png", [[(7, 1, 0)] * 6] * 5)
    listed = [{"file_name": f"00000000000{n}.png", "segments_info": [{"id": 263, "category_id": 200}]} for n in (1, 2)]
    panoptic = {
        "annotations/panoptic_train2017.json": b"{}",
        "annotations/panoptic_val2017.json": json.dumps({"annotations": listed}).encode(),
        "annotations/panoptic_val2017.zip": bundle(contents(folder / "png") | {"__MACOSX/._panoptic_val2017": b"?"}),
        "annotations/panoptic_train2017.zip": b"large",
    }
    ade = folder / "ade/ADEChallengeData2016"
    for split in ("validation", "training"):
        trees.photo(ade / f"images/{split}/ADE_{split}_1.jpg", 3, 1)
        trees.save(ade / f"annotations/{split}/ADE_{split}_1.png", [[0, 1, 150]])
    return {
        "VOCtrainval_11-May-2012.tar": tar(contents(folder / "voc") | other),
        "VOCtrainval_03-May-2010.tar": tar(contents(folder / "context")),
        "trainval_merged.json": json.dumps({"images": images, "annos_segmentation": regions}).encode(),
        "val2017.zip": bundle(contents(folder / "coco", "val2017")),
        "annotations_trainval2017.zip": bundle(
            contents(folder / "coco", "annotations") | {"annotations/instances_train2017.json": b"{}"}
        ),
        "stuffthingmaps_trainval2017.zip": bundle(contents(folder / "stuff")),
        "panoptic_annotations_trainval2017.zip": bundle(panoptic),
        "ADEChallengeData2016.zip": bundle(contents(folder / "ade")),
    }


def sources(server: Server) -> dict[str, Source]:
    """Return the table of archives as if the server's own were the official ones: size and checksum where known."""
    found = {}
    for name, source in SOURCES.items():
        changed = []
        for one in source.archives:
            content, algorithm = server.files[one.name], one.digest.partition(":")[0]
            digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}" if algorithm else ""
            size = one.size and len(content)
            changed.append(replace(one, places=(f"{server.url}/{one.name}",), size=size, digest=digest))
        found[name] = replace(source, archives=tuple(changed))
    return found


@contextmanager
def serve() -> Iterator[Server]:
    """Serve nothing yet, until the block ends."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/moved/"):  # to another host
                self.send_response(301)
                self.send_header("Location", server.url.replace("127.0.0.1", "localhost") + self.path[len("/moved") :])
                return self.end_headers()
            name, asked = self.path.strip("/"), self.headers["Range"]
            content = server.files.get(name)
            if server.status or content is None:
                server.asked.append((name, asked, 0))
                return self.send_error(server.status or 404)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
            if self.headers["If-Range"] not in (None, server.tag):
                start = 0
            if start and start >= len(content):
                server.asked.append((name, asked, 0))
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if server.length:
                self.send_header("Content-Length", str(len(content) - start))
            if server.tag:
                self.send_header("ETag", server.tag)
            self.end_headers()
            end = min(start + server.cut.pop(0), len(content)) if server.cut else len(content)
            server.asked.append((name, asked, end - start))
            self.wfile.write(content[start:end])
            return None

        def log_message(self, format: str, *args: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server.url:
        yield server
