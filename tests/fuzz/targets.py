"""What damaged input is given to, and what has to come of it: a result, or a ``PnpError``.

A target takes a seeded generator and a ``Place``, makes an input, and hands it to the code that people use. It returns
if there is a result. To add one, write the function and its line in ``TARGETS``.
"""

import base64
import io
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import chat_server
import trees
from fuzz.harness import Place
from fuzz.mutate import (
    NUMBERS,
    WHOLE,
    as_json,
    damaged,
    damaged_value,
    odd_object,
    odd_text,
    odd_value,
)
from fuzz.seeds import (
    LAYOUTS,
    NAMES,
    copy_of,
    damaged_photo,
    files_of,
    photo_files,
    picture,
    pixels,
    segmenter,
    vlm,
    whole,
)
from pnp_ovss import Config, Segmenter
from pnp_ovss.apps.label_studio import Backend
from pnp_ovss.cli import main
from pnp_ovss.data import benchmark_vocabulary, load_dataset, rle
from pnp_ovss.data.vocabulary import load_vocabulary, parse_classes, read_classes
from pnp_ovss.errors import InputError, PnpError
from pnp_ovss.evaluation.record import about_data, write_manifest
from pnp_ovss.evaluation.report import write_report
from pnp_ovss.evaluation.result import load_results as load_scores
from pnp_ovss.evaluation.run import Run, Task, evaluate, load_choice, scenes
from pnp_ovss.export import FORMATS, export
from pnp_ovss.files import Folder, fetch, parse_json
from pnp_ovss.images import SUFFIXES, decode_image, read_image
from pnp_ovss.methods import resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.models.blip import Captioner
from pnp_ovss.models.clip import load_clip
from pnp_ovss.naming import photo_namer
from pnp_ovss.naming.cached import Cached, Question, Reply, load_reply, reply_file, save_reply
from pnp_ovss.naming.openai import OpenAI
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.batch import ClassSource, Job, find_photos, open_run, work_here
from pnp_ovss.runs.record import load_results
from pnp_ovss.tuning.objective import MapCache
from pnp_ovss.tuning.search import finished_trials, open_study
from pnp_ovss.types import Vocabulary

torch.set_num_threads(1)  # the models are so small that threads wait for each other longer than they compute

Target = Callable[[Random, Place], None]
ENDED_WITH_THE_PROCESS = ExitStack()
VOCABULARY = Vocabulary({"dog": ("dog", "puppy"), "traffic light": ("traffic light",), "cat": ("cat",)})


def photo_file(rng: Random, place: Place) -> None:
    name, content = damaged_photo(rng)
    path = place.folder / name
    path.write_bytes(content)
    photo = read_image(path if rng.random() < 0.5 else str(path)) if rng.random() < 0.8 else decode_image(content, name)
    assert photo.dtype == np.uint8
    assert photo.ndim == 3


def photo_path(rng: Random, place: Place) -> None:
    shutil.copy(next(iter(files_of(whole(place.shared, "folder")))), place.folder / "a.png")
    (place.folder / "folder.png").mkdir()
    (place.folder / "loop.png").symlink_to("loop.png")
    text = odd_text(rng) + rng.choice(("", "/", ".png", "/*.png", "/**/*"))
    kind = rng.choice(
        (text, f"{place.folder}/{text}", f"{place.folder}/folder.png", f"{place.folder}/loop.png", f"{place.folder}")
    )
    if rng.random() < 0.5:
        read_image(rng.choice((str, Path))(kind))
    else:
        find_photos([kind], Folder(place.folder / "out"))


class Broken(Image.Image):
    """A picture whose pixels cannot be had, for one reason or another."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._mode, self._size, self._error = "RGB", (3, 2), error

    def load(self) -> Any:
        raise self._error


def picture_object(rng: Random, place: Place) -> None:
    kind = rng.random()
    if kind < 0.4:
        _, content = damaged_photo(rng)
        try:
            image = Image.open(io.BytesIO(content))
        except Exception:
            image = picture("RGBA")
    elif kind < 0.6:
        errors = (
            OSError,
            MemoryError,
            RecursionError,
            KeyError,
            SyntaxError,
            AssertionError,
            NotImplementedError,
            IndexError,
        )
        image = Broken(rng.choice(errors)("no"))
    else:
        image = picture(
            rng.choice(("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"))
        )
        image.info |= {rng.choice(("transparency", "exif", "icc_profile", "gamma")): odd_object(rng)}
        image = image.crop((0, 0, rng.choice((0, 1, 5)), rng.choice((0, 1, 5)))) if rng.random() < 0.3 else image
    read_image(image, upright=rng.random() < 0.8)


def array(rng: Random, place: Place) -> None:
    shape = tuple(rng.choice((0, 1, 2, 3, 4, 9, 40)) for _ in range(rng.randrange(5)))
    kind = rng.choice(("u1", "u1", "u1", "u1", "i4", "f4", "f8", "?", "c8", "O", "U3", "M8[s]"))
    values: Any = np.zeros(shape if rng.random() < 0.4 else (*shape[:2], 3), kind)
    if rng.random() < 0.2:
        sides = rng.choice((1, 400, 100_000)), rng.choice((1, 400, 100_000))
        read_image(np.broadcast_to(np.uint8(7), (*sides, 3)))
        return
    if rng.random() < 0.2:
        values = rng.choice((odd_object(rng), torch.zeros(3, 3, 3), values.T, memoryview(b"abc")))
    segmenter(place.shared)(values, NAMES)


def classes(rng: Random, place: Place) -> None:
    kind = rng.random()
    if kind < 0.4:
        segmenter(place.shared)(pixels(), [odd_text(rng) for _ in range(rng.choice((1, 2, 3, 70)))])
    elif kind < 0.6:
        segmenter(place.shared)(
            pixels(), parse_classes(rng.choice((",", "=", "|", "\n")).join(odd_text(rng) for _ in range(3)))
        )
    elif kind < 0.8:
        segmenter(place.shared)(pixels(), damaged_value(rng, {"dog": ["dog", "puppy"], "cat": ["cat"]}, odd_object))
    else:
        segmenter(place.shared)(
            [pixels()] * rng.randrange(3), damaged_value(rng, [["dog"], ["cat", "sky"]], odd_object)
        )


SETTINGS = tuple(vars(Config()))


def settings(rng: Random, place: Place) -> None:
    def value() -> Any:
        low = (
            0,
            1,
            2,
            3,
            0.5,
            1e-6,
            5.0,
            50,
            True,
            None,
            "never",
            "few",
            ("crf",),
            ("pamr", "guided"),
            ("blur", "blur"),
        )
        return rng.choice(low) if rng.random() < 0.7 else rng.choice(NUMBERS) if rng.random() < 0.5 else odd_object(rng)

    overrides = {rng.choice((*SETTINGS, "no_such")): value() for _ in range(rng.choice((1, 1, 2, 3)))}
    start = Config(layer=0, head=1, drop=2, passes=2)
    preset = start.override(overrides)
    assert Config.from_json(preset.to_json()) == preset
    Segmenter(PnP(vlm(place.shared), preset))(pixels(9, 11), ["dog", "cat"])


def preset_file(rng: Random, place: Place) -> None:
    path = place.folder / rng.choice(("preset.json", "preset.json", "x.txt"))
    path.write_bytes(as_json(rng, damaged_value(rng, json.loads(Config(layer=0).to_json()))))
    chosen = path if rng.random() < 0.8 else odd_text(rng) + rng.choice(("", ".json"))
    resolve_config(whole(place.shared, "blip"), chosen)


REPLIES = (
    "[15: person, 5: 'bottle'], [95%, 60]",
    "[dog, cat]\n[dog: 95%, cat: 60%]",
    '{"found": [{"name": "dog", "confidence": 95}, {"name": "cat", "confidence": 40}]}',
    '{"dog": 0.9, "cat": "95% sure"} and [1: dog (brown); 2: cat]',
    "names: [dog, cat, traffic light], [90, 80], [70]",
)


def reply(rng: Random, place: Place) -> None:
    text = rng.choice(REPLIES)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        put = rng.choice(
            (odd_text(rng), str(rng.choice(NUMBERS)), "[" * 3000, '{"a":' * 3000, "(" * 30_000, "9" * 5000, "%" * 99)
        )
        text = text[:at] + put + text[at + rng.choice((0, 0, 1, 10)) :]
    naming = Reply(text, rng.choice(("answered", "cut", "refused", "filtered"))).read(rng.choice((None, VOCABULARY)))
    assert all(0 <= one.confidence <= 1 for one in naming.classes)
    if kept := naming.kept(0.0):
        Vocabulary.of(kept)


@cache
def chat_and_namer(shared: Path) -> tuple[Any, OpenAI]:
    server = ENDED_WITH_THE_PROCESS.enter_context(chat_server.serve())
    return server, OpenAI(shared, "gpt-4o", server.url, chat_server.KEY, timeout=0.4, retries=0)


def endpoint(rng: Random, place: Place) -> None:
    server, namer = chat_and_namer(place.shared)
    namer.cache, namer._as_json = place.folder, rng.random() < 0.7
    body = chat_server.completion(rng.choice(REPLIES)) if rng.random() < 0.7 else chat_server.error("no", "odd")
    content = as_json(rng, damaged_value(rng, body)) if rng.random() < 0.8 else damaged(rng, zlib.compress(b"a" * 9000))
    status = rng.choice((200, 200, 200, 200, 400, 401, 404, 429, 500, 302, 304, 204, 100, 999, 0, "x" * 99))
    lines = [f"HTTP/1.1 {status} {odd_text(rng)[:50]}", "Content-Type: application/json"]
    lines += rng.choice(
        ([], ["Content-Encoding: gzip"], ["Location: /v1/x"], ["Retry-After: 1e99"], ["Transfer-Encoding: chunked"])
    )
    lines += (
        [] if rng.random() < 0.2 else [f"Content-Length: {rng.choice((len(content), len(content), 0, 7, 10**12, -1))}"]
    )
    lines += ["Connection: close", "", ""]
    head = "\r\n".join(lines).encode("utf-8", "replace")
    head = damaged(rng, head) if rng.random() < 0.1 else head
    half = len(content) // 2
    server.script[:] = [(head, content[:half], content[half:])] * 2
    naming = namer(pixels(), rng.choice((None, VOCABULARY)), "a")
    assert all(0 <= one.confidence <= 1 for one in naming.classes)


def names_file(rng: Random, place: Place) -> None:
    entry = {"photo": "a.png", "kept": ["dog"], "names": {"dog": 0.9, "cat": 0.2}, "notes": ["odd"]}
    photos = {"a": entry, "b": ["dog", "traffic light"], "c": "[1: dog], [95%]"}
    content = photos if rng.random() < 0.5 else {"namer": "itm", "photos": photos}
    path = place.folder / "names.json"
    path.write_bytes(as_json(rng, damaged_value(rng, content)))
    namer = photo_namer(Cached(path), rng.choice((None, VOCABULARY)), keep=0.5)
    items = [pipeline.Item(key, lambda: (pixels(), None)) for key in ("a", "b", "c")]
    outcomes = [*pipeline.run(lambda: segmenter(place.shared), items, namer, batch=rng.choice((1, 2)))]
    assert [one.key for one in outcomes] == ["a", "b", "c"]
    raise_first(one.fault for one in outcomes)


def reply_cache(rng: Random, place: Place) -> None:
    question: Question = {"photo": "a", "vocabulary": "b", "model": "c", "prompt": "d"}
    path = reply_file(place.folder, question)
    save_reply(path, question, Reply("[dog], [90]"))
    spoil(rng, path)
    found = load_reply(path)
    if found:
        found[1].read(VOCABULARY)
    Cached(place.folder)


def vocabulary_file(rng: Random, place: Place) -> None:
    path = place.folder / rng.choice(("names.txt", "names.txt", "names.json"))
    lines = ["person: man, woman", "dog=puppy|hound", "# a comment", "traffic light", "cat", "background"]
    lines[rng.randrange(len(lines))] += odd_text(rng)
    lines.insert(rng.randrange(len(lines)), odd_text(rng))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(damaged(rng, content) if rng.random() < 0.5 else content)
    source: Any = (
        path if rng.random() < 0.85 else rng.choice((odd_text(rng), place.folder, f"{place.folder}/{odd_text(rng)}"))
    )
    match rng.randrange(4):
        case 0:
            load_vocabulary(source)
        case 1:
            segmenter(place.shared)(pixels(), read_classes(Path(source)))
        case 2:
            benchmark_vocabulary(source, ("person", "dog", "traffic light", "cat"), "voc")
        case 3:
            data = scenes(1, 2, 32)
            _, choose = load_choice(str(source), data, benchmark_vocabulary("plain", data.classes, "scenes"))
            choose("a", np.zeros((2, 2), np.uint8))


def data_set(rng: Random, place: Place) -> None:
    layout = rng.choice(sorted(LAYOUTS))
    root, name = copy_of(place, layout), rng.choice(LAYOUTS[layout][1])
    spoil_folder(rng, root)
    dataset = load_dataset(name, root, rng.choice((None, None, None, None, odd_text(rng))))
    faults = []
    for sample in dataset.samples:
        for read in (sample.photo, lambda one=sample: dataset.truth(one)):
            try:
                read()
            except InputError as error:
                faults.append(error)
    raise_first(faults)


def evaluate_command(rng: Random, place: Place) -> None:
    layout = rng.choice(sorted(LAYOUTS))
    root, name = copy_of(place, layout), rng.choice(LAYOUTS[layout][1])
    keys = [sample.key for sample in load_dataset(name, root).samples]
    predictions = place.folder / "predictions"
    predictions.mkdir()
    for key in keys:
        masks = [path for path in files_of(root) if path.suffix == ".png"]
        shutil.copy(rng.choice(masks), predictions / f"{key}.png") if masks else trees.save(
            predictions / f"{key}.png", [[1, 1]]
        )
    spoil_folder(rng, rng.choice((root, predictions)))
    out = place.folder / "out"
    asked = ["evaluate", name, "--root", str(root), "--predictions", str(predictions), "--out", str(out)]
    command(asked)
    if rng.random() < 0.5:
        spoil_folder(rng, out)
        command(asked)
        command(["evaluate", "merge", str(out)])


def checkpoint(rng: Random, place: Place) -> None:
    family = rng.choice(("blip", "blip", "bridgetower", "vilt", "blip2", "clip"))
    folder = copy_of(place, family)
    weights = folder / "model.safetensors"
    kind = rng.randrange(8)
    if kind < 3:
        spoil_json(rng, rng.choice([path for path in files_of(folder) if path.name.endswith("config.json")]))
    elif kind == 3:
        content = weights.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = as_json(rng, damaged_value(rng, json.loads(content[8 : 8 + length])))
        size = len(header) if rng.random() < 0.9 else rng.choice(WHOLE[:-4]) & ((1 << 64) - 1)
        weights.write_bytes(size.to_bytes(8, "little") + header + content[8 + length :])
    elif kind == 4:
        tensors = safetensors.torch.load_file(weights)
        for name in rng.sample(sorted(tensors), 2):
            shapes = (
                tensors[name][:0],
                tensors[name].flatten(),
                tensors[name].half(),
                tensors[name][None],
                tensors[name].int(),
            )
            tensors[name] = rng.choice(shapes).contiguous()
        del tensors[rng.choice(sorted(tensors))]
        write = rng.random() < 0.7
        safetensors.torch.save_file(tensors, weights) if write else torch.save(
            tensors, weights.with_name("pytorch_model.bin")
        )
        weights if write else weights.unlink()
    elif kind == 5:
        weights.unlink()
        index = {"weight_map": {"a": "model-00001.safetensors", "b": "x"}}
        (folder / "model.safetensors.index.json").write_bytes(as_json(rng, damaged_value(rng, index)))
    elif kind == 6:
        values = {"a": torch.zeros(2), "b": odd_object(rng) if rng.random() < 0.5 else print}
        try:
            torch.save(rng.choice((values, values["b"])), folder / "pytorch_model.bin")
        except Exception:
            (folder / "pytorch_model.bin").write_bytes(rng.randbytes(99))
        spoil(rng, folder / "pytorch_model.bin") if rng.random() < 0.5 else None
        weights.unlink()
    else:
        spoil(rng, rng.choice(files_of(folder)))
    use(rng, folder, family)


def use(rng: Random, folder: Path, family: str) -> None:
    """Load a checkpoint and let it do what it is for."""
    if family == "clip":
        model = load_clip(folder, "cpu")
        model.encode_texts(["a dog", "hot air balloon"])
        model.encode_images(model.prepare(pixels())[None])
    elif family == "blip" and rng.random() < 0.1:
        Captioner(folder, "cpu").captions(pixels())
    else:
        Segmenter.from_pretrained(folder, device="cpu", layer=0, head=0, refiners=(), passes=1)(pixels(), NAMES)


def tokenizer(rng: Random, place: Place) -> None:
    family = rng.choice(("blip", "blip", "vilt", "clip"))
    folder = copy_of(place, family)
    path = folder / rng.choice(("tokenizer.json", "tokenizer_config.json", "tokenizer_config.json"))
    kind = rng.random()
    if kind < 0.5:
        spoil_json(rng, path)
    elif kind < 0.7:
        content = json.loads(path.read_text())
        content.pop(rng.choice(sorted(content)))
        path.write_text(json.dumps(content))
    elif kind < 0.85:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        kinds = (
            "BertTokenizer",
            "CLIPTokenizer",
            "GPT2Tokenizer",
            "RobertaTokenizer",
            "T5Tokenizer",
            "LlamaTokenizer",
            "ByT5Tokenizer",
        )
        config |= {
            "tokenizer_class": rng.choice(kinds),
            rng.choice(("pad_token", "unk_token", "model_input_names")): odd_value(rng),
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        (folder / "tokenizer.json").unlink()
        lines = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "dog",
            "traffic",
            "light",
            *(odd_text(rng) for _ in range(9)),
        ]
        (folder / "vocab.txt").write_bytes(damaged(rng, "\n".join(lines).encode("utf-8", "replace")))
    use(rng, folder, family)


def run_lengths(rng: Random, place: Place) -> None:
    height, width = rng.choice(((5, 6), (1, 1), (0, 3), (40, 30)))
    mask = np.random.default_rng(rng.randrange(99)).random((height, width)) < 0.5
    seeds = ([[1, 1, 4, 1, 4, 3, 1, 3]], {"size": [5, 6], "counts": [11, 3, 16]}, rle.encode(mask))
    region = damaged_value(rng, rng.choice(seeds)) if rng.random() < 0.8 else odd_object(rng)
    if isinstance(region, dict) and isinstance(region.get("counts"), str) and rng.random() < 0.5:
        region["counts"] = damaged(rng, region["counts"].encode(errors="replace")).decode("latin-1")
    found = rle.decode(region, height, width)
    assert found.shape == (height, width)
    assert found.max(initial=0) <= 1


def results_folder(rng: Random, place: Place) -> None:
    kind = rng.choice(("segmented", "batch-loose", "batch-packed"))
    folder = copy_of(place, kind)
    if kind == "batch-packed" and rng.random() < 0.5:
        spoil_parquet(rng, folder / "shards/00000.parquet")
    else:
        spoil_folder(rng, folder)
    found = load_results(folder)
    export(
        found,
        rng.choice(sorted(FORMATS)),
        place.folder / "export",
        NAMES if rng.random() < 0.2 else (),
        rng.choice((None, None, fetch)),
    )


def spoil_parquet(rng: Random, path: Path) -> None:
    """Write whole Parquet with damaged rows."""
    import pyarrow
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    row = rng.choice(rows)
    name = rng.choice(sorted(row))
    row[name] = rng.choice((None, [], "", "../x", -1, 10**9, b"\x89PNG\r\n", row[rng.choice(sorted(row))]))
    try:
        table = pyarrow.Table.from_pylist(rows)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        table = pyarrow.Table.from_pylist([{key: value for key, value in row.items() if key != name} for row in rows])
    parquet.write_table(table, path)


def batch_again(rng: Random, place: Place) -> None:
    """A run goes on in a folder whose files were damaged: afterwards every photo has a result, or a fault."""
    photos, out = place.folder / "photos", place.folder / "out"
    for key in ("a", "deep/b", "c"):
        path = photos / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture("RGB", 9, 11).save(path)
    format = rng.choice(("files", "files", "parquet"))
    job = Job(
        str(out),
        ClassSource(Vocabulary.of(NAMES)),
        str(whole(place.shared, "blip")),
        settings={"layer": 0, "head": 1, "drop": 2, "refiners": ()},
    )
    for round in range(2):
        places = find_photos([str(photos)], Folder(out))
        faults = [one.fault for one in open_run(job, format, 2, places)(work_here)]
        if not round:
            assert faults == [""] * 3
            spoil_folder(rng, out)
            name, content = damaged_photo(rng)
            (photos / "damaged").with_suffix(Path(name).suffix).write_bytes(content)
    load_results(out)
    raise_first(InputError(fault) for fault in faults if fault)


def scores_again(rng: Random, place: Place) -> None:
    """An evaluation goes on over damaged records, is merged and reported."""
    out, data = place.folder, scenes(3, 2, 24)

    def predict(tasks: Any) -> Iterator[Task]:
        for task in tasks:
            task.labels = np.zeros((24, 24), np.uint8)
            yield task

    settings = about_data(data, "scenes", None) | {"predictions": "x", "values": "own", "names": "unknown"}
    run = Run(data, lambda key, truth: ("rocket",), predict, out / "images")
    for round in range(2):
        write_manifest(out, settings, root=None, keys=[sample.key for sample in data.samples], faults=())
        assert len([*evaluate(run, data.samples, lambda count: None)]) == 3
        if not round:
            spoil_folder(rng, out)
    if rng.random() < 0.5:
        spoil_folder(rng, out)
    write_report(out, load_scores([out], "standard", False), [out], data)


def tuning_again(rng: Random, place: Place) -> None:
    """The maps of photos, and the study, are there, but damaged."""
    if rng.random() < 0.6:
        maps = MapCache(vlm(place.shared), Config(layer=0, head=1), place.folder)
        expected = maps(pixels(), NAMES)
        path = files_of(place.folder)[0]
        if rng.random() < 0.5:
            stored = safetensors.torch.load(zlib.decompress(path.read_bytes()))
            name = rng.choice(sorted(stored))
            choices = (
                {"x": torch.zeros(1)},
                {name: stored[name][:1]},
                {name: stored[name].double()},
                {name: stored[name][..., :1]},
            )
            path.write_bytes(
                zlib.compress(
                    safetensors.torch.save(
                        {key: one.contiguous() for key, one in (stored | rng.choice(choices)).items()}
                    )
                )
            )
        else:
            spoil(rng, path)
        again = maps(pixels(), NAMES)
        assert torch.equal(expected.shares.float(), again.shares.float())
        assert torch.equal(expected.largest, again.largest.float())
    else:
        path = place.folder / "study.db"
        shutil.copy(study_file(place.shared), path)
        spoil(rng, path) if rng.random() < 0.9 else path.unlink()
        study = open_study(f"sqlite:///{path}", {"model": "a"}, {"layer": [0, 1], "head": [0]})
        finished_trials(study)


@cache
def study_file(shared: Path) -> Path:
    from pnp_ovss.tuning.search import run_trials

    path = shared / "study.db"
    if not path.exists():
        study = open_study(f"sqlite:///{path}", {"model": "a"}, {"layer": [0, 1], "head": [0]})
        [*run_trials(study, lambda candidate: iter([np.array([0.5], np.float32)]), 2)]
        study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return path


INTERFACE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">'
    '<Label value="dog"/><Label value="cat" alias="c"/></BrushLabels></View>'
)


def label_studio(rng: Random, place: Place) -> None:
    _, content = damaged_photo(rng) if rng.random() < 0.3 else rng.choice(sorted(photo_files().items()))
    (place.folder / "a.png").write_bytes(content)
    inlined = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    addresses = (
        inlined,
        inlined,
        "/data/local-files/?d=a.png",
        "/data/a.png",
        f"/data/{odd_text(rng)}",
        f"/data/local-files/?d={odd_text(rng)}",
        odd_text(rng),
    )
    body: Any = {
        "tasks": [{"data": {"image": rng.choice(addresses)}}, {"data": {"image": inlined}}],
        "label_config": INTERFACE,
    }
    if rng.random() < 0.3:
        at = rng.randrange(len(INTERFACE))
        body["label_config"] = INTERFACE[:at] + odd_text(rng) + INTERFACE[at + rng.randrange(9) :]
    content = as_json(rng, damaged_value(rng, body) if rng.random() < 0.6 else body)
    json.dumps(Backend(segmenter(place.shared), place.folder).predict(parse_json(content, "the request")))


def cvat(rng: Random, place: Place) -> None:
    from pnp_ovss.apps.cvat import Function

    image = (
        Broken(OSError("no"))
        if rng.random() < 0.1
        else picture(rng.choice(("1", "L", "P", "RGB", "RGBA", "I;16", "F", "CMYK")))
    )
    image.info |= {"transparency": odd_object(rng)}
    context = SimpleNamespace(
        frame_name="a.png", conf_threshold=rng.choice((None, 0.0, 0.5)), conv_mask_to_poly=rng.random() < 0.5
    )
    names: Any = NAMES if rng.random() < 0.7 else [odd_text(rng), "dog"]
    Function(segmenter(place.shared), names).detect(context, image)


def is_large(content: bytes) -> bool:
    """Return whether a photo has sides of thousands of pixels: it would be segmented, and that takes its time."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.width * image.height > 1_000_000
    except Exception:
        return False


def segment_command(rng: Random, place: Place) -> None:
    """Some photos are damaged: the others are segmented."""
    photos, out = place.folder / "photos", place.folder / "out"
    photos.mkdir()
    picture().save(photos / "whole.png")
    for number in range(2):
        name, content = damaged_photo(rng)
        while is_large(content):
            name, content = damaged_photo(rng)
        (photos / f"{number}{Path(name).suffix}").write_bytes(content)
    which = rng.choice(("segment", "batch", "name"))
    asked = [which, str(photos), "--model", str(whole(place.shared, "blip")), "--device", "cpu"]
    given = ["--namer", "given", "--names", "dog, cat", "--out", str(out / "names.json")]
    small = ["--layer", "0", "--head", "1", "--refine", "none", "--classes", "dog, cat", "--out", str(out)]
    fault: PnpError | None = None
    try:
        command([*asked, *(given if which == "name" else small)])
    except PnpError as error:
        fault = error
    wanted = {"segment": out / "whole.json", "batch": out / "images/whole.json", "name": out / "names.json"}[which]
    assert wanted.is_file(), f"{wanted} is missing: {fault}"
    if fault:
        raise fault


def flags(rng: Random, place: Place) -> None:
    """Any command with odd values."""
    commands: dict[str, list[str]] = {
        "segment": ["PHOTO", "--classes", "dog", "--out", "OUT", "--batch-size", "1", "--preset", "auto"],
        "batch": ["PHOTO", "--classes-file", "FILE", "--out", "OUT", "--format", "files", "--rows", "3"],
        "name": ["PHOTO", "--namer", "given", "--names", "dog", "--vocabulary", "FILE", "--out", "OUT.json"],
        "evaluate": [
            "scenes",
            "--scenes",
            "1",
            "--scene-size",
            "24",
            "--out",
            "OUT",
            "--names",
            "given",
            "--shard",
            "1/1",
        ],
        "export": ["RESULTS", "--to", "coco", "--out", "OUT", "--order", "FILE"],
        "models": [],
    }
    name = rng.choice(sorted(commands))
    photo, file = place.folder / "a.png", place.folder / "names.txt"
    picture().save(photo)
    file.write_text("dog\ncat\n")
    known = {
        "PHOTO": str(photo),
        "FILE": str(file),
        "OUT": str(place.folder / "out"),
        "OUT.json": str(place.folder / "o.json"),
    }
    known["RESULTS"] = str(whole(place.shared, "segmented"))
    asked = [known.get(word, word) for word in commands[name]]
    if name not in ("export", "models", "name"):
        model = [
            "--model",
            str(whole(place.shared, "blip")),
            "--device",
            "cpu",
            "--layer",
            "0",
            "--head",
            "0",
            "--refine",
            "none",
        ]
        asked += model
    for _ in range(rng.choice((1, 2))):
        if asked:
            asked[rng.randrange(len(asked))] = rng.choice(
                (odd_text(rng), str(rng.choice(NUMBERS)), f"{place.folder}/{odd_text(rng)}")
            )
    command([name, *asked])


def command(asked: list[str]) -> None:
    """Run a command; its last line on stderr is the error where it fails."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = main(asked)
    assert code in (0, 1, 2), f"exit code {code}: {said.getvalue()}"
    assert "Traceback" not in said.getvalue(), said.getvalue()
    if code:
        raise InputError(said.getvalue().strip().rpartition("\n")[2].rpartition("\r")[2] or "nothing was said")


def raise_first(faults: Any) -> None:
    """Raise the first of some errors, if any: one photo's fault is a clear error."""
    for fault in faults:
        if fault is not None:
            assert isinstance(fault, PnpError)
            raise fault


def spoil(rng: Random, path: Path) -> None:
    path.write_bytes(damaged(rng, path.read_bytes()))


def spoil_json(rng: Random, path: Path) -> None:
    path.write_bytes(as_json(rng, damaged_value(rng, json.loads(path.read_bytes()))))


def spoil_text(rng: Random, path: Path) -> None:
    lines = path.read_text().splitlines()
    lines.insert(rng.randrange(len(lines) + 1), odd_text(rng))
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


def spoil_folder(rng: Random, folder: Path) -> None:
    """Damage one file below a folder, or lose it, or put something else in its place."""
    path = rng.choice(files_of(folder))
    kind = rng.random()
    if kind < 0.1:
        path.unlink()
    elif kind < 0.15:
        path.unlink()
        path.mkdir()
    elif kind < 0.2:
        path.unlink()
        path.symlink_to(path.name)
    elif kind < 0.25:
        path.write_bytes(b"")
    elif kind < 0.3:
        shutil.copy(rng.choice(files_of(folder)), path.with_name("other" + path.suffix))
    elif path.suffix == ".json" and kind < 0.8:
        try:
            spoil_json(rng, path)
        except ValueError:
            spoil(rng, path)
    elif path.suffix == ".txt" and kind < 0.8:
        spoil_text(rng, path)
    elif path.suffix in SUFFIXES and kind < 0.6:
        path.write_bytes(damaged_photo(rng)[1])
    elif path.suffix in SUFFIXES and kind < 0.7:
        size = rng.choice(((1, 1), (2, 3), (3, 2), (300, 200)))
        Image.fromarray(np.full(size, rng.randrange(256), np.uint8)).save(path)
    else:
        spoil(rng, path)


TARGETS: dict[str, tuple[Target, int]] = {
    "photo files": (photo_file, 20),
    "photo paths": (photo_path, 4),
    "PIL images": (picture_object, 8),
    "arrays": (array, 4),
    "class names": (classes, 6),
    "settings": (settings, 5),
    "preset files": (preset_file, 4),
    "chat replies": (reply, 8),
    "chat endpoint": (endpoint, 5),
    "reply cache": (reply_cache, 2),
    "names files": (names_file, 4),
    "vocabulary files": (vocabulary_file, 6),
    "data sets": (data_set, 12),
    "evaluate": (evaluate_command, 1),
    "checkpoints": (checkpoint, 3),
    "tokenizers": (tokenizer, 2),
    "run lengths": (run_lengths, 12),
    "results folders": (results_folder, 6),
    "batch, resumed": (batch_again, 1),
    "evaluation, resumed": (scores_again, 2),
    "tuning, resumed": (tuning_again, 2),
    "Label Studio": (label_studio, 4),
    "CVAT": (cvat, 1),
    "commands": (segment_command, 1),
    "flags": (flags, 2),
}
"""By what is damaged: the function, and how many of every hundred-odd inputs it gets."""
