"""A trained model as an ordinary Hugging Face folder, with a card that says where it comes from."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

from training.batches import MEAN, STD
from training.captions import NAMES
from training.config import TUNE_SEED, TrainConfig
from training.model import Trainee

WEIGHTS = "model.safetensors"


def export(model: Trainee, tokenizer: BertTokenizer, config: TrainConfig, folder: Path) -> None:
    """Writes the folder beside its place and moves it there, so that nobody sees half of it."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    inner = model.model
    inner.config.architectures = [type(inner).__name__]
    inner.config.dtype = "float16"
    inner.config.known_classes = list(NAMES)  # any other name is refused instead of guessed at
    inner.config.save_pretrained(partial)
    weights = {name: value.to("cpu", torch.float16).contiguous() for name, value in inner.state_dict().items()}
    save_file(weights, partial / WEIGHTS, {"format": "pt"})
    (partial / WEIGHTS).chmod(0o644)  # safetensors leaves it readable by its owner alone
    tokenizer.save_pretrained(partial)
    (partial / "preprocessor_config.json").write_text(json.dumps(preprocessor(config), indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def preprocessor(config: TrainConfig) -> dict[str, Any]:
    """What `AutoImageProcessor` reads."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": config.image_size, "width": config.image_size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def write_card(folder: Path, config: TrainConfig, about: str, log: Path) -> None:
    """card.json with every watched number of the run, and README.md with the last, which ``about`` has fields for."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    watched = [{"step": line["step"], **line["watched"]} for line in lines if "watched" in line]
    losses = [line for line in lines if not line.keys() & {"watched", "started"}]
    machines = [line["started"] for line in lines if "started" in line]
    minutes = lines[-1]["seconds"] / 60
    parameters = sum(value.numel() for value in _weights(folder).values())
    card = {
        "name": config.name,
        "parameters": parameters,
        "minutes": round(minutes, 1),
        "trained_on": list({json.dumps(machine): machine for machine in machines}.values()),
        "images": watched[-1]["step"] * config.batch,
        "data": {"scenes": config.scenes, "seed": config.seed, "watched_seed": TUNE_SEED},
        "supervision": "words of captions; no mask, box or point",
        "config": config.to_dict(),
        "watched": watched,
        "losses": losses[:: max(1, len(losses) // 60)],
    }
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    (folder / "README.md").write_text(
        README.format(
            name=config.name,
            architecture=architecture,
            millions=parameters / 1e6,
            pixels=config.image_size,
            patch=config.patch,
            layers=config.layers,
            width=config.width,
            scenes=config.scenes,
            images=card["images"],
            minutes=minutes,
            device=" and ".join(dict.fromkeys(machine["device"] for machine in machines)),
            about=about.format(**watched[-1]),
        )
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / WEIGHTS))


README = """---
license: apache-2.0
library_name: transformers
tags: [synthetic]
---

# {name}

A demonstration and a test bench, never a stand-in for a real vision-language model: {millions:.1f} M parameters of a
`{architecture}` ({pixels} px, patch {patch}; image and text towers of {layers} layers, width {width}), trained on drawn
scenes. It knows the 20 things and 6 kinds of ground of `pnp_ovss.mini.scenes` and nothing else.

- **Data**: {scenes} scenes drawn by the package with seed 0, mirrored and tinted; {images} images seen.
  Seed 1 is for watching and tuning, seed 2 is held out.
- **Supervision**: the words of captions. No mask, box or point.
- **Training**: {minutes:.1f} minutes on {device}; `training/README.md` has the recipe, `card.json` the settings and the
  curve.
{about}

Made by `make mini`. Licence: Apache-2.0.
"""
