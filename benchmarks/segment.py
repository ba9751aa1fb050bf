"""The method timed: against its floor, bare forwards of the image tower, and against the authors' procedure.

    python -m benchmarks.segment [--model blip-large] [--passes 4] [--dtypes float32,bfloat16] [--batches 1]
    python -m benchmarks.segment --model tiny --repeats 1        # seconds: to see that it runs
    python -m benchmarks.segment --growth [--model mini-blip]    # how cost grows with photos, passes and classes
    python -m benchmarks.segment --agreement 40 --dtypes float32,bfloat16,int8       # labels and times beside float32

Markdown out. Published shapes have random weights: the arithmetic is the same, their maps mean nothing. Every figure of
a table comes from one run in which what is compared takes turns; the least time of each counts.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval, ViTConfig, ViTModel

import pnp_ovss
from benchmarks import authors, vlm_of
from benchmarks.clip_methods import random_clip, random_texts
from benchmarks.random_blip import random_blip
from pnp_ovss import Config, Segmenter, load_method, make_prompt
from pnp_ovss.images import read_image
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.mini import HELD_OUT_SEED, TUNE_SEED, draw
from pnp_ovss.models import MODELS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NAMES = ("person", "bicycle", "car", "dog", "cat", "bird", "boat", "tree", "house", "sky", "grass", "water", "road")
MORE = tuple(f"thing{number}" for number in range(25))
WORDS = {"blip-base": 30522, "blip-large": 30522, "bridgetower-large": 50265, "tiny": 200}
PHOTO = (480, 640)
ON_CLIP = ("clip", "maskclip", "sclip", "clearclip", "naclip", "resclip", "scclip", "proxyclip", "corrclip")


@dataclass(frozen=True)
class Case:
    """What is timed."""

    segmenter: Segmenter
    photos: list[np.ndarray]
    names: list[Sequence[str]]


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="blip-large", help=f"{', '.join(WORDS)}, or what load_vlm takes")
    parser.add_argument("--size", type=int, help="side of the input (default: 336; tiny and mini models: their own)")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1", help="photos at a time, with commas")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-authors", action="store_true", help="leave out the authors' procedure, the slowest part")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="--growth: draw it too")
    parser.add_argument("--agreement", type=int, metavar="SCENES")
    parser.add_argument("--methods", default=",".join(["pnp", *ON_CLIP]), help="--agreement: of these")
    parser.add_argument("--models", default="mini,random", help="--agreement: on these")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="--agreement: CLIP of random weights sees these")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.agreement:
        agreement(args.agreement, args.dtypes.split(","), args.methods.split(","), args.models, args.photos)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(args.model, Path(folder)) if args.model in WORDS else args.model
        print(growth(args, model) if args.growth else speed(args, model))


def speed(args: argparse.Namespace, model: str | Path) -> str:
    """Return the tables of times and ratios, of stages, and of memory."""
    rows = [
        "| dtype | photos | floor, s | salience, s | / floor | segmenter, s | authors, s "
        "| authors / salience | peak, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    stages = [
        "| dtype | photos | prepare | image tower | text, gradient, maps, DropOut | refine |",
        "|---|---|---|---|---|---|",
    ]
    theirs, theirs_peak, notes = float("nan"), 0.0, []
    for index, dtype in enumerate(args.dtypes.split(",")):
        segmenter = load(model, args, dtype)
        for photos in (int(number) for number in args.batches.split(",")):
            case = drawn_case(segmenter, photos, args.classes)
            pixels = prepare(case)
            peak, (best, last) = measured_peak(partial(timed, runs_of(case, pixels), args.repeats))
            if index == 0 and photos == 1 and not args.no_authors:  # float32, once: what both dtypes are held against
                run = {"authors": partial(run_authors, case, pixels)}
                theirs_peak, (found, maps) = measured_peak(partial(timed, run, max(1, args.repeats - 1)))
                theirs, expected = found["authors"], maps["authors"]
                error = np.abs(last["salience"][0].float().cpu().numpy() - expected).max() / np.abs(expected).max()
                notes.append(
                    f"Class maps, {dtype}: they differ from the authors' by at most {error:.1e} of the maximum."
                )
            prepared, tower, seen, whole = (best[name] / photos for name in ("prepare", "floor", "salience", "whole"))
            rows.append(
                f"| {dtype} | {photos} | {tower:.2f} | {seen:.2f} | {seen / tower:.3f} | {whole:.2f} | {theirs:.2f} "
                f"| {theirs / seen:.2f} | {peak / 1e9:.2f} |"
            )
            rest = whole - seen - prepared
            stages.append(f"| {dtype} | {photos} | {prepared:.3f} | {tower:.2f} | {seen - tower:.2f} | {rest:.2f} |")
        del segmenter, case
        gc.collect()
    if theirs_peak:
        notes.append(f"Peak of the process under the authors' procedure: {theirs_peak / 1e9:.2f} GB.")
    head = (
        f"{args.model}, {time.strftime('%Y-%m-%d')}, {args.passes} passes, {args.classes} classes, "
        f"{args.threads} threads, torch {torch.__version__}; seconds per photo, the least of {args.repeats}"
    )
    return "\n".join([head, "", *rows, "", "Seconds per photo by stage:", "", *stages, "", *notes])


def growth(args: argparse.Namespace, model: str | Path) -> str:
    """Return the table of how seconds grow with photos, passes and classes, each alone."""
    segmenter = load(model, args, args.dtypes.split(",")[0])
    known = len(vlm_of(segmenter).known or ()) or 25
    points: list[tuple[str, int, Case]] = []
    points += [("photos", count, drawn_case(segmenter, count, 3)) for count in (1, 2, 4, 8)]
    for passes in (1, 2, 4, 8):
        other = Segmenter(PnP(vlm_of(segmenter), replace(segmenter.config, passes=passes)))
        points.append(("passes", passes, drawn_case(other, 1, 3)))
    points += [
        ("classes", count, drawn_case(segmenter, 1, count)) for count in (1, 5, 10, 15, 20, 25) if count <= known
    ]

    runs = {f"{kind} {count}": partial(salience, case, prepare(case)) for kind, count, case in points}
    best, _ = timed(runs, args.repeats)
    rows = ["| what | how many | salience, s | / the first |", "|---|---|---|---|"]
    curves: dict[str, list[tuple[int, float]]] = {}
    for kind, count, _ in points:
        seconds = best[f"{kind} {count}"]
        curves.setdefault(kind, []).append((count, seconds))
        rows.append(f"| {kind} | {count} | {seconds:.3f} | {seconds / curves[kind][0][1]:.2f} |")
    if args.plot:
        args.plot.write_text(plot(curves), encoding="utf-8")
    return f"{args.model}, {args.threads} threads, the least of {args.repeats}\n\n" + "\n".join(rows)


def plot(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Return an SVG: a panel per curve, cost relative to its first point; the dashed line is proportional growth."""
    panels = []
    for place, (kind, points) in enumerate(curves.items()):
        most = points[-1][0] / points[0][0]
        dots = [(200 * count / points[-1][0], 160 - 150 * (s / points[0][1]) / most) for count, s in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#3577c8"/>' for x, y in dots)
        ticks = "".join(
            f'<text x="{x:.1f}" y="175" text-anchor="middle">{count}</text>'
            for (x, _), (count, _) in zip(dots, points, strict=True)
        )
        panels.append(
            f'<g transform="translate({40 + 250 * place} 20)"><path d="M0 0V160H210" stroke="#888" fill="none"/>'
            f'<path d="M{dots[0][0]:.1f} {160 - 150 / most:.1f}L200 10" stroke="#888" stroke-dasharray="4 4"/>'
            f'<polyline points="{line}" fill="none" stroke="#3577c8" stroke-width="2"/>{marks}{ticks}'
            f'<text x="105" y="195" text-anchor="middle">{kind}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {40 + 250 * len(curves)} 225" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(panels)}</svg>\n"
    )


def agreement(scenes: int, dtypes: Sequence[str], only: Sequence[str], kinds: str, folder: Path | None) -> None:
    """Print the table of pixels whose label in a dtype is that in the first, after refinement, per model and method.

    And processor seconds, medians over the scenes, of one image in the bare tower and of a photo in the segmenter; the
    dtypes take turns, and a first photo is not counted. A CLIP of random weights sees photos of ``folder``, if any.
    """
    print("| model | method | dtype | scenes | equal labels | least | tower, s | first / it | photo, s | first / it |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        blip, clip = random_model("blip-base", Path(place, "blip")), random_clip(Path(place, "clip"))
        ViTModel(ViTConfig(patch_size=16), add_pooling_layer=False).save_pretrained(clip / "dino")
        random: list[tuple[str | Path, str]] = [(blip, "pnp"), *((clip, method) for method in ON_CLIP)]
        minis = [("mini-blip", "pnp"), ("mini-bridgetower", "pnp"), *(("mini-clip", method) for method in ON_CLIP)]
        minis.remove(("mini-clip", "proxyclip"))  # there is no mini DINO
        cases = [*(minis if "mini" in kinds else []), *(random if "random" in kinds else [])]
        for model, name in [case for case in cases if case[1] in only]:
            able = [dtype for dtype in dtypes if dtype != "int8" or model != "mini-bridgetower"]
            own: dict[str, Any] = {"regions": "watershed"} if model == clip else {}
            own |= {"proxy": str(clip / "dino")} if model == clip and name in ("proxyclip", "corrclip") else {}
            methods: dict[str, Any] = {dtype: load_method(name, model, "cpu", dtype, **own) for dtype in able}
            pictures = [draw(TUNE_SEED, index, 224).image for index in range(scenes)]
            if model == clip and folder is not None:
                pictures = some(folder, scenes)
            if model == clip:  # its tokenizer knows no words
                texts = random_texts(methods[able[0]], draw(1, 0, PHOTO).image)
                for method in methods.values():
                    method.clip.encode_words, method.backbone = lambda words, _, known=texts: known[: len(words)], None
            known = model if isinstance(model, str) else f"{model.name}-base of random weights"
            found: dict[str, list[list[float]]] = {dtype: [] for dtype in able}
            for index in (0, *range(scenes)):
                things = NAMES[:10] if model == clip else NAMES[:3]
                names = things if isinstance(model, Path) else draw(TUNE_SEED, index, 224).things
                labels: dict[str, np.ndarray] = {}
                for dtype, method in methods.items():
                    start = time.process_time()
                    bare_tower(method, pictures[index])
                    between = time.process_time()
                    labels[dtype] = Segmenter(method)(pictures[index], names).labels
                    seconds = between - start, time.process_time() - between
                    found[dtype].append([float(np.mean(labels[dtype] == labels[able[0]])), *seconds])
            first = np.median(found[able[0]][1:], 0)
            for dtype in able:
                rows = np.array(found[dtype][1:])
                equal, (_, tower, photo) = rows[:, 0], np.median(rows, 0)
                cells = f"{100 * equal.mean():.2f} % | {100 * equal.min():.2f} % | {tower:.3f} | {first[1] / tower:.2f}"
                cells += f" | {photo:.3f} | {first[2] / photo:.2f}"
                print(f"| {known} | {name} | {dtype} | {scenes} | {cells} |", flush=True)


def some(folder: Path, count: int) -> list[np.ndarray]:
    """Return so many photos of a folder, from all over it."""
    files = sorted(folder.glob("*.jpg"))
    return [read_image(files[index * len(files) // count]) for index in range(count)]


@torch.no_grad()
def bare_tower(method: Any, photo: np.ndarray) -> None:
    """Run the image tower of a method's model on the photo as a square of the model's own size."""
    if isinstance(method, PnP):
        vlm: Any = method.vlm
        vlm._encode_images(vlm.prepare(photo)[None])
    else:
        pixels = method.clip.prepare(photo)[None]
        method.clip.run(method.clip.embed(pixels), 0, method.clip.blocks)


def load(model: str | Path, args: argparse.Namespace, dtype: str) -> Segmenter:
    """Return the segmenter on the model; random and published ones with the authors' settings."""
    vlm = pnp_ovss.load_vlm(model, device=args.device, dtype=dtype)
    preset = "bridgetower" if args.model.startswith("bridgetower") else "released"
    config = Config.from_preset(MODELS[str(model)].preset if str(model) in MODELS else preset, passes=args.passes)
    size = args.size or (336 if vlm.size > 200 else None)
    # Above the last layer only the token that the matching head reads has a gradient: the maps would be 0.
    layer, head = min(config.layer, vlm.layers - 2), min(config.head, vlm.heads - 1)
    return Segmenter(PnP(vlm, replace(config, size=size, layer=layer, head=head)))


def drawn_case(segmenter: Segmenter, photos: int, classes: int) -> Case:
    """Return drawn photos, each with so many names that the model reads as a token or two."""
    known = vlm_of(segmenter).known or (*NAMES, *MORE)
    names = [known[:classes]] * photos
    return Case(segmenter, [draw(HELD_OUT_SEED, index, PHOTO).image for index in range(photos)], list(names))


def runs_of(case: Case, pixels: Tensor) -> dict[str, Callable[[], Any]]:
    """Return what is timed of ours."""
    return {
        "prepare": partial(prepare, case),
        "floor": partial(floor, case, pixels),
        "salience": partial(salience, case, pixels),
        "whole": partial(case.segmenter, case.photos, case.names),
    }


def prepare(case: Case) -> Tensor:
    """Return the photos as the model takes them."""
    vlm, config = vlm_of(case.segmenter), case.segmenter.config
    return torch.stack([vlm.prepare(photo, config.size or vlm.size) for photo in case.photos]).to(vlm.device)


@torch.no_grad()
def floor(case: Case, pixels: Tensor) -> None:
    """Run the bare image tower as often as there are passes."""
    vlm: Any = vlm_of(case.segmenter)
    for _ in range(case.segmenter.config.passes):
        vlm._encode_images(pixels)


def salience(case: Case, pixels: Tensor) -> list[Tensor]:
    """Return our class maps, steps 3 to 6."""
    prompts = [make_prompt(names) for names in case.names]
    return pnp_ovss.salience(vlm_of(case.segmenter), pixels, prompts, case.segmenter.config)


def run_authors(case: Case, pixels: Tensor) -> np.ndarray:
    """Return the class maps of the first photo by the authors' procedure, on the weights of our own model."""
    vlm: Any = vlm_of(case.segmenter)
    prompt = make_prompt(case.names[0])
    ids, mask, _ = vlm._tokens([prompt])
    membership = vlm.attend(pixels[:1], [prompt], layers=(vlm.layers - 1,)).membership[0].cpu().numpy()
    model = vlm._model.requires_grad_(True)
    forward = authors.bridgetower if hasattr(model, "bridgetower") else authors.blip
    try:
        return authors.salience(forward, model, pixels[:1], (ids, mask), membership, case.segmenter.config, vlm.patch)
    finally:  # ours is timed again, in larger batches
        model.requires_grad_(False).zero_grad()


def timed(runs: Mapping[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the least seconds and the last result of each; they take turns, so that all meet the same machine."""
    best: dict[str, float] = {}
    last: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            last[name] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
    return best, last


def measured_peak(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the peak of the process, or of the GPU's memory, in bytes with the model, and the result."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        result = run()
        return float(torch.cuda.max_memory_allocated()), result
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan"), run()
    reset.write_text("5")  # Linux: the peak starts anew
    result = run()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024, result


def random_model(shape: str, folder: Path) -> Path:
    """Write a checkpoint of published shape with random weights, and a tokenizer of whole words; return the folder."""
    words = WORDS[shape]
    if shape.startswith("blip"):
        random_blip(shape.removeprefix("blip-"), 384, words - 2).save_pretrained(folder)
    else:
        torch.manual_seed(0)
        BridgeTowerForImageAndTextRetrieval(_bridgetower(shape, words)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "BlipImageProcessor"}))
    ids = {word: index for index, word in enumerate((*SPECIAL, "a", "picture", "of", *NAMES, *MORE))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)
    settings = {f"{name}_token": token for name, token in names} | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _bridgetower(shape: str, words: int) -> BridgeTowerConfig:
    """Return the configuration of BridgeTower-large, or, as "tiny", of one that runs in a blink."""
    large = shape == "bridgetower-large"
    width, depth, heads = (1024, 24, 16) if large else (64, 3, 2)
    vision = {"hidden_size": width, "num_hidden_layers": depth, "patch_size": 14, "image_size": 294 if large else 56}
    text = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "vocab_size": words,
        "max_position_embeddings": 514,
        "pad_token_id": 1,
    }
    return BridgeTowerConfig(
        vision_config=vision,
        text_config=text,
        hidden_size=width,
        num_hidden_layers=6 if large else 2,
        num_attention_heads=heads,
        architectures=["BridgeTowerForImageAndTextRetrieval"],
    )


if __name__ == "__main__":
    main()
