"""Methods on CLIP beside the procedure of their official code: window by window, photo by photo, in a few plain lines.

    python -m benchmarks.peers [--methods sclip,naclip] [--photos 1,8] [--rounds 3] [--threads 1] [--dtype auto]

Markdown out. ViT-B/16 of random weights, in float32; ``--dtype`` is that of ours alone, and both processes then hold a
further CLIP. Settings are those published for VOC21, but for the two thresholds, with which random scores give no
class; ten classes, photos of 480 x 640. Each side is a process of its own; both take turns. Seconds are those of the
processor, medians; memory is the most that the process held. Ours is the whole segmenter but for the one forward that
says how likely each class is there. The plain lines are written from the papers, with transformers' own blocks and its
fused attention below the last one. ResCLIP's feedback, SC-CLIP's healing, and CorrCLIP's regions (a watershed, timed
with both) and their merging are our own functions in both.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad
from transformers import CLIPModel, ViTConfig, ViTModel

from benchmarks.clip_methods import H, W, random_clip, random_texts
from pnp_ovss import Segmenter, Vocabulary, load_method
from pnp_ovss.methods import scclip
from pnp_ovss.methods.corrclip import merge
from pnp_ovss.methods.dense_clip import neighbourhood
from pnp_ovss.methods.resclip import feedback_map, first_labels
from pnp_ovss.models.clip import positions
from pnp_ovss.regions import find_regions

NAMES = [f"class {number}" for number in range(10)]
IMAGENET = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[:, :, None, None]
Window = Float[Tensor, "1 3 h w"]
Features = Float[Tensor, "1 gh gw vector"]


class Plain:
    """CLIP's image tower with the last block of a method; one window at a time."""

    def __init__(self, folder: Path, name: str, method: Any) -> None:
        model: Any = CLIPModel.from_pretrained(folder, attn_implementation="sdpa")  # in evaluation mode
        self.vision, self.projection = model.vision_model, model.visual_projection
        self.blocks, self.config, self.method = self.vision.encoder.layers, method.config, method
        self.encode: Callable[[Window, Any], Features] = getattr(self, name)
        if hasattr(method, "proxy"):
            self.dino: Any = method.proxy._model  # transformers', with DINO's own positions and epsilon

    def embed(self, pixels: Window) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens that enter the first block, and the grid."""
        embeddings = self.vision.embeddings
        patches = embeddings.patch_embedding(pixels)
        grid = patches.shape[2], patches.shape[3]
        tokens = torch.cat([embeddings.class_embedding.expand(1, 1, -1), patches.flatten(2).transpose(1, 2)], 1)
        table = positions(embeddings.position_embedding.weight, *grid, getattr(self.method, "by_size", False))
        return self.vision.pre_layrnorm(tokens + table), grid

    def run(self, tokens: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return the tokens that enter each block; ``mask`` is added to what is between them."""
        found = [tokens]
        for block in self.blocks[:-1]:
            found.append(block(found[-1], mask))
        return found

    def states(self, pixels: Window) -> tuple[list[Tensor], tuple[int, int]]:
        """Return the tokens that enter each block, and the grid."""
        tokens, grid = self.embed(pixels)
        return self.run(tokens), grid

    def qkv(self, block: Any, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values of each head."""
        y, attention = block.layer_norm1(tokens), block.self_attn
        parts = attention.q_proj(y), attention.k_proj(y), attention.v_proj(y)
        return tuple(part.view(1, -1, attention.num_heads, attention.head_dim).transpose(1, 2) for part in parts)

    def mixed(self, weights: Tensor, values: Tensor) -> Tensor:
        """Return what attention of these weights gives, after the output layer."""
        mixed: Tensor = self.blocks[-1].self_attn.out_proj((weights @ values).transpose(1, 2).flatten(2))
        return mixed

    def project(self, tokens: Tensor) -> Tensor:
        """Return vectors that can be compared with those of texts."""
        projected: Tensor = self.projection(self.vision.post_layernorm(tokens))
        return projected

    def vectors(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Return vectors of length 1 of the patches."""
        return normalize(self.project(tokens), dim=-1).view(1, *grid, -1)

    def kept(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return the rest of the last block: residual connection and feed-forward layers."""
        tokens = tokens + attended
        fed: Tensor = tokens + self.blocks[-1].mlp(self.blocks[-1].layer_norm2(tokens))
        return fed

    def maskclip(self, pixels: Window, queries: Tensor) -> Features:
        """v alone; the photo is filled up to whole patches."""
        h, w = pixels.shape[2:]
        states, grid = self.states(pad(pixels, (0, -w % 16, 0, -h % 16)))
        *_, v = self.qkv(self.blocks[-1], states[-1])
        attended = self.blocks[-1].self_attn.out_proj(v.transpose(1, 2).flatten(2))
        return self.vectors(self.kept(states[-1], attended)[:, 1:], grid)

    def sclip(self, pixels: Window, queries: Tensor) -> Features:
        """(softmax(q q^T s) + softmax(k k^T s)) v."""
        states, grid = self.states(pixels)
        q, k, v = self.qkv(self.blocks[-1], states[-1])
        attended = self.mixed(softmax(q, q) + softmax(k, k), v)
        return self.vectors(self.kept(states[-1], attended)[:, 1:], grid)

    def clearclip(self, pixels: Window, queries: Tensor) -> Features:
        """softmax(q q^T s) v."""
        states, grid = self.states(pixels)
        q, _, v = self.qkv(self.blocks[-1], states[-1])
        return self.vectors(self.mixed(softmax(q, q), v)[:, 1:], grid)

    def naclip(self, pixels: Window, queries: Tensor) -> Features:
        """softmax(k k^T s + neighbourhood) v."""
        states, grid = self.states(pixels)
        _, k, v = self.qkv(self.blocks[-1], states[-1])
        return self.vectors(self.mixed(softmax(k, k, neighbourhood(grid, self.config.sigma)), v)[:, 1:], grid)

    def see(self, pixels: Window) -> Any:
        """Return what DINO gives for the window."""
        mean, std = (255 * torch.tensor(one)[:, None, None] for one in (self.method.clip.mean, self.method.clip.std))
        colours = (pixels * std + mean - IMAGENET[0]) / IMAGENET[1]
        return self.dino(colours, interpolate_pos_encoding=True, output_hidden_states=True)

    def by_dino(self, tokens: Tensor, weights: Tensor, coarse: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Return what the last block gives where its values, enlarged to DINO's grid, are attended to."""
        *_, v = self.qkv(self.blocks[-1], tokens[:, 1:])
        wide = interpolate(v.transpose(2, 3).reshape(1, -1, *coarse), size=grid, mode="bilinear")
        return self.mixed(weights[:, None], wide.view(1, v.shape[1], v.shape[3], -1).transpose(2, 3))

    def dino_grid(self, pixels: Window) -> tuple[int, int]:
        """Return the rows and columns of DINO's patches."""
        patch = self.dino.config.patch_size
        return pixels.shape[2] // patch, pixels.shape[3] // patch

    def proxyclip(self, pixels: Window, queries: Tensor) -> Features:
        """Attention by the likeness of DINO's patches."""
        (states, coarse), grid = self.states(pixels), self.dino_grid(pixels)
        unit = normalize(self.see(pixels).last_hidden_state[:, 1:], dim=-1)
        likeness = unit @ unit.transpose(1, 2)
        scores = (likeness - self.config.beta * likeness.mean()) * self.config.gamma
        weights = scores.masked_fill(scores < 0, -torch.inf).softmax(-1)
        return self.vectors(self.by_dino(states[-1], weights, coarse, grid), grid)

    def corrclip(self, pixels: Window, queries: Tensor) -> Features:
        """Attention inside regions, merged where DINO sees them alike, and a [CLS] for each; they are channel 3."""
        pixels, numbers = pixels[:, :3], pixels[:, 3:]
        (tokens, coarse), grid, config = self.embed(pixels), self.dino_grid(pixels), self.config
        y = self.dino.layers[-1].layernorm_before(self.see(pixels).hidden_states[-2])
        attention = self.dino.layers[-1].attention
        unit = normalize((attention.q_proj(y) + attention.k_proj(y))[:, 1:], dim=-1)
        merged = merge(unit[0], interpolate(numbers, size=grid).long().flatten(), config.eps)
        likeness, bare = unit @ unit.transpose(1, 2), merged == 0
        counts = torch.where(bare[:, None] | bare, likeness > likeness.mean(), merged[:, None] == merged)
        weights = (config.tau * likeness).masked_fill(~counts, -torch.inf).softmax(-1)
        small = interpolate(merged.float().view(1, 1, *grid), size=coarse)
        # A [CLS] for each region goes behind the tokens, which do not see it; it sees the first one and its patches.
        n, regions = tokens.shape[1], int(small.max()) + 1
        sees = torch.zeros(n + regions, n + regions, dtype=torch.bool)
        sees[:n, :n] = sees[:, 0] = True
        sees[n:, 1:n] = small.flatten() == torch.arange(regions)[:, None]
        mask = torch.zeros(sees.shape).masked_fill(~sees, -torch.inf)[None, None]
        states = self.run(torch.cat([tokens, tokens[:, :1].expand(1, regions, -1)], 1), mask)
        q, k, v = self.qkv(self.blocks[-1], states[-1])
        of_region = self.kept(states[-1][:, n:], self.mixed(softmax(q[:, :, n:], k, mask[:, :, n:]), v))
        middle = torch.stack(states[-1 - config.num_spatial : -1]).mean(0)
        last, before = (self.project(self.by_dino(one[:, :n], weights, coarse, grid)) for one in (states[-1], middle))
        own = self.project(of_region)[:, interpolate(small, size=grid).long().flatten()]
        return normalize(last + config.alpha * before + config.beta * own, dim=-1).view(1, *grid, -1)

    def resclip(self, pixels: Window, queries: Tensor) -> Features:
        """NACLIP with attention of earlier blocks, and again inside what it has labelled alike."""
        (states, grid), config = self.states(pixels), self.config
        earlier = [
            softmax(*self.qkv(self.blocks[i], states[i])[:2]) for i in range(config.rcs_start_idx, config.rcs_end_idx)
        ]
        mean, (_, k, v) = torch.stack(earlier).mean(0), self.qkv(self.blocks[-1], states[-1])

        def attended(weights: Tensor) -> Features:
            mixed = config.rcs_scale * ((1 - config.rcs_share) * weights + config.rcs_share * mean)
            return self.vectors(self.mixed(mixed, v)[:, 1:], grid)

        near = neighbourhood(grid, config.sigma)
        logits = torch.einsum("byxc,qc->bqyx", attended(softmax(k, k, near)), queries)
        labels = first_labels(logits, pixels, 16, config.logit_scale, config.feedback_threshold)
        alike = pad(feedback_map(labels), (1, 0, 1, 0))[:, None]
        scores = (1 - config.sfr_share) * (k @ k.transpose(2, 3)) * k.shape[-1] ** -0.5 + config.sfr_share * alike
        return attended((config.sfr_scale * scores + near).softmax(-1))

    def scclip(self, pixels: Window, queries: Tensor) -> Features:
        """Outliers healed, and what middle blocks hold alike brought together."""
        (states, grid), config = self.states(pixels), self.config
        tokens, after = states[-1], states[1:]
        outliers = scclip.find_outliers(tokens[:, 1:], config.n_neighbors, config.contamination)
        middle = scclip.alike(scclip.heal(after[config.pre_adjust_idx][:, 1:], outliers, grid))
        late = scclip.alike(after[config.post_adjust_idx][:, 1:])
        added = torch.stack(after[config.multi_start_idx : config.multi_end_idx]).sum(0)
        centred = 3 * (middle - middle.mean())
        by_middle = centred.masked_fill(centred < 0, -torch.inf).softmax(-1)[:, None]
        parts = []
        healed = scclip.together(scclip.heal(tokens[:, 1:], outliers, grid), middle, config.beta)
        for patches, cls in ((healed, tokens[:, :1]), (added[:, 1:], added[:, :1])):
            _, k, v = self.qkv(self.blocks[-1], patches)
            attended = self.mixed((by_middle + softmax(k, k)) / 2, v) + config.res_cls * cls
            parts.append(scclip.together(attended, late, config.beta))
        return self.vectors(parts[0] + parts[1], grid)

    @torch.no_grad()
    def segment(self, photo: np.ndarray, queries: Tensor) -> Int[Tensor, "h w"]:
        """Return the labels of a photo: windows one by one, their logits added up at full size."""
        picture, config, multiple = self.method.prepare(photo)[None], self.config, self.method.multiple or 16
        if config.uses_regions:
            regions = find_regions(photo, config)
            picture = self.method.with_regions(picture[0], regions)[None]
        h, w = picture.shape[2:]
        crops = [min(config.crop or side, side) for side in (h, w)]
        total, counts = torch.zeros(1, len(queries), h, w), torch.zeros(1, 1, h, w)
        for top in starts(h, crops[0], config.stride):
            for left in starts(w, crops[1], config.stride):
                part = (slice(None), slice(None), slice(top, top + crops[0]), slice(left, left + crops[1]))
                window, (before, above) = picture[part], (0, 0)
                if self.method.fills:
                    missing = [-side % multiple for side in crops]
                    above, before = (one // 2 for one in missing)
                    window = pad(window, (before, missing[1] - before, above, missing[0] - above))
                logits = torch.einsum("byxc,qc->bqyx", self.encode(window, queries), queries)
                wide = interpolate(logits, size=window.shape[2:], mode="bilinear")
                total[part] += wide[:, :, above : above + crops[0], before : before + crops[1]]
                counts[part] += 1
        logits = interpolate(total / counts, size=photo.shape[:2], mode="bilinear")
        if "pamr" in config.refiners:
            logits = pamr(logits, interpolate(picture, size=photo.shape[:2], mode="bilinear"))
        shares = (config.logit_scale * logits[0]).softmax(0)
        own = len(queries) - len(NAMES)
        labels: Tensor = torch.cat([shares[:own].amax(0, keepdim=True), shares[own:]]).argmax(0)
        if config.uses_regions:
            for number in range(regions.max() + 1):
                inside = torch.from_numpy(regions == number)
                labels[inside] = labels[inside].bincount().argmax()  # of several the lowest
        return labels


def softmax(q: Tensor, k: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Return attention weights, all of them."""
    weights: Tensor = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + bias).softmax(-1)
    return weights


def starts(length: int, crop: int, stride: int) -> list[int]:
    """Return the first pixel of each window along a side."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(number * stride + crop, length) - crop, 0) for number in range(count)]


def pamr(logits: Float[Tensor, "1 query h w"], picture: Window, steps: int = 10) -> Float[Tensor, "1 query h w"]:
    """Return the logits after PAMR, dilations 8 and 16: each step gathers all neighbours of all pixels."""

    def around(values: Tensor, centre: bool) -> Tensor:
        h, w = values.shape[2:]
        found = []
        for dilation in (8, 16):
            wide = pad(values, (dilation,) * 4, mode="replicate")
            places = [(row, column) for row in range(3) for column in range(3) if centre or (row, column) != (1, 1)]
            found += [wide[:, :, dilation * y : dilation * y + h, dilation * x : dilation * x + w] for y, x in places]
        return torch.stack(found, 2)

    spread = around(picture, True).std(2, keepdim=True)
    apart = (around(picture, False) - picture[:, :, None]).abs()
    weights = (-apart / (1e-8 + 0.1 * spread)).mean(1, keepdim=True).softmax(2)
    for _ in range(steps):
        logits = (around(logits, False) * weights).sum(2)
    return logits


def prepare(folder: Path, name: str, dtype: str = "float32") -> tuple[Callable[[Sequence[np.ndarray]], list[Any]], ...]:
    """Return what segments photos: the plain procedure, and ours."""
    settings: dict[str, Any] = {"prob_threshold": 0.0, "area_threshold": 0.0, "regions": "watershed"}
    settings |= {"proxy": str(folder / "dino")} if name in ("proxyclip", "corrclip") else {}
    method: Any = load_method(name, folder, device="cpu", dtype="float32", **settings)
    own: Any = method if dtype == "float32" else load_method(name, folder, device="cpu", dtype=dtype, **settings)
    known = random_texts(method, pictures(1)[0])
    own.clip.encode_words = lambda words, templates: known[: len(words)]
    own.backbone = None  # no forward more that says how likely each class is there
    vocabulary = Vocabulary.of(NAMES)
    plain, ours, queries = Plain(folder, name, method), Segmenter(own), own._queries(vocabulary)
    return (
        lambda photos: [plain.segment(photo, queries) for photo in photos],
        lambda photos: [one.labels for one in ours(list(photos), [vocabulary] * len(photos))],
    )


def answer(folder: Path, name: str, side: int, count: int, threads: int, dtype: str) -> None:
    """Segment the photos for each line of stdin; write the labels to a file, seconds of processor and GB to stdout."""
    torch.set_num_threads(threads)
    segment, photos = prepare(folder, name, dtype)[side], pictures(count)
    segment(photos[:1])  # the first call loads what later ones have
    for _ in sys.stdin:
        begin = process_time()
        labels = segment(photos)
        seconds = process_time() - begin
        np.save(folder / f"{side}.npy", np.stack(labels))
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, flush=True)


def row(folder: Path, name: str, count: int, rounds: int, threads: int, dtype: str) -> str:
    """Return a row of the table."""
    command = [sys.executable, "-m", "benchmarks.peers", "--answer", str(folder), name]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    found: tuple[list[str], list[str]] = [], []
    with ExitStack() as stack:
        sides: list[Any] = [
            stack.enter_context(subprocess.Popen([*command, side, str(count), str(threads), dtype], **pipes))
            for side in "01"
        ]
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                print(file=sides[which].stdin, flush=True)
                found[which].append(sides[which].stdout.readline())
    equal = (np.load(folder / "0.npy") == np.load(folder / "1.npy")).mean()
    plain, ours = (median(float(line.split()[0]) for line in some) for some in found)
    memory = " | ".join(f"{float(some[-1].split()[1]):.2f}" for some in found)
    return f"| {name} | {count} | {plain:.2f} | {ours:.2f} | {ours / plain:.2f} | {100 * equal:.2f} % | {memory} |"


def pictures(count: int) -> list[np.ndarray]:
    from pnp_ovss.mini import draw

    return [draw(1, index, (H, W)).image for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="maskclip,sclip,clearclip,naclip,proxyclip,resclip,scclip,corrclip")
    parser.add_argument("--photos", default="1,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", help="of our side alone; auto: what a user gets by default")
    parser.add_argument("--answer", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        place, name, side, count, threads, dtype = args.answer
        answer(Path(place), name, int(side), int(count), int(threads), dtype)
        return
    with TemporaryDirectory() as place:
        folder = random_clip(Path(place))
        ViTModel(ViTConfig(patch_size=16), add_pooling_layer=False).save_pretrained(folder / "dino")
        print("| method | photos | plain, s | ours, s | ours / plain | equal labels | plain, GB | ours, GB |")
        print("|---|---|---|---|---|---|---|---|")
        for name in args.methods.split(","):
            for count in map(int, args.photos.split(",")):
                print(row(folder, name, count, args.rounds, args.threads, args.dtype), flush=True)


if __name__ == "__main__":
    main()
