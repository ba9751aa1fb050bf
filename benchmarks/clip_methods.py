"""Time and memory of a method on CLIP against the bare image tower: ViT-B/16 of random weights.

python -m benchmarks.clip_methods --method sclip
python -m benchmarks.clip_methods --method corrclip --published

With ``--published`` windows and refinement are those of the preset voc21. A DINO has the size of ViT-B/8, and regions
come from a watershed.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from pnp_ovss import METHODS, Segmenter, Vocabulary, load_method

H, W = 480, 640
WIDTH = 512


def random_clip(folder: Path) -> Path:
    """Write a CLIP with the image tower of ViT-B/16 and a small text tower, which no photo waits for."""
    torch.manual_seed(0)
    vision = {"image_size": 224, "patch_size": 16, "hidden_size": 768, "num_hidden_layers": 12}
    vision |= {"num_attention_heads": 12, "intermediate_size": 3072}
    text = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    config = CLIPConfig(vision_config=vision, text_config=text | {"vocab_size": 100}, projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    return folder


def random_dino(folder: Path) -> Path:
    """Write a DINO of the size of ViT-B/8."""
    ViTModel(ViTConfig(patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    return folder


def random_texts(method: Any, photo: np.ndarray) -> Float[Tensor, "100 vector"]:
    """Return vectors of texts, of length 1, that a CLIP of random weights tells apart.

    What all patches have in common is no part of them: else the model would see one class everywhere.
    """
    common = method.features(method.prepare(photo)[None, :, :112, :112]).mean((0, 1, 2))
    texts = torch.randn(100, len(common), generator=torch.Generator().manual_seed(0))
    return normalize(texts - torch.outer(texts @ common, common) / common.square().sum(), dim=1)


def fastest(works: Sequence[Callable[[], Any]], times: int) -> list[tuple[float, float]]:
    """Return for each work its least seconds, and processor seconds over all threads, which others lengthen less.

    They take turns, so that a machine that becomes slower does so for all.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in works]
    for _ in range(times):
        for work, seconds in zip(works, found, strict=True):
            begin = perf_counter(), process_time()
            work()
            seconds.append((perf_counter() - begin[0], process_time() - begin[1]))
    return [(min(wall), min(processor)) for wall, processor in (zip(*seconds, strict=True) for seconds in found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="sclip", choices=[name for name in METHODS if name != "pnp"])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 150])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2, help="1 on a busy machine, where threads wait for each other")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as place:
        how: dict[str, Any] = {"device": "cpu", "dtype": arguments.dtype, "background": "never", "regions": "watershed"}
        how |= {} if arguments.published else {"short_side": H, "crop": 224, "stride": 112}
        if any(entry.name == "proxy" for entry in fields(METHODS[arguments.method].config)):
            how["proxy"] = random_dino(Path(place, "dino"))
        method: Any = load_method(arguments.method, random_clip(Path(place)), **how)
    # Text vectors are at hand: those of the words are computed once, not per photo.
    method.clip.encode_words = lambda words, templates: normalize(torch.randn(len(words), WIDTH), dim=1)
    photo = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    rows, columns = method._axes(*method.prepare(photo).shape[1:])
    windows = torch.randn(
        len(rows.starts) * len(columns.starts), 3, rows.window, columns.window, dtype=method.clip.dtype
    )
    tower = method.clip._model.vision_model
    tower.set_attn_implementation("sdpa")

    @torch.no_grad()
    def bare() -> None:
        tower(pixel_values=windows, interpolate_pos_encoding=True)

    segmenter = Segmenter(method)
    vocabularies = [Vocabulary.of([f"class {number}" for number in range(count)]) for count in arguments.classes]
    works = [partial(segmenter, photo, vocabulary) for vocabulary in vocabularies]
    floor, *found = fastest([bare, *works], arguments.times)
    size = f"{rows.window} x {columns.window}"
    print(f"{len(windows)} windows of {size}, bare image tower: {floor[0]:.2f} s, {floor[1]:.2f} s of processor")
    for count, seconds in zip(arguments.classes, found, strict=True):
        print(
            f"{arguments.method}, {count} classes: {seconds[0]:.2f} s, {seconds[0] / floor[0]:.2f} of it, "
            f"{seconds[0] / found[0][0]:.2f} of that of {arguments.classes[0]}; "
            f"processor {seconds[1]:.2f} s, {seconds[1] / floor[1]:.2f}"
        )
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
