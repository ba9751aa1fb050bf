"""Released checkpoints of random weights: the golden ones with a tokenizer, in folders, as ``Released`` reads them."""

import json
import shutil
from pathlib import Path

from shared import shared
from tiny import WORDS, write_tokenizer

HEADS = {"clippy": {"heads": 3}, "segclip": {"heads": 2}, "ovsegmentor": {"heads": 3, "text_heads": 2}}


def released(kind: str, folder: Path) -> Path:
    """Write the golden checkpoint of a system to a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shared(f"golden/peers/{kind}/{kind}-a.safetensors"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(HEADS[kind]))
    write_tokenizer(folder, WORDS)
    return folder


def released_tcl(folder: Path) -> Path:
    """Write the golden CLIP of TCL to a folder, its masker below it, and return the folder."""
    (folder / "masker").mkdir(parents=True)
    shutil.copyfile(shared("golden/peers/tcl/clip-a/model.safetensors"), folder / "model.safetensors")
    shutil.copyfile(shared("golden/peers/tcl/masker-a.safetensors"), folder / "masker" / "model.safetensors")
    config = json.loads(shared("golden/peers/tcl/clip-a/config.json").read_text())
    config["text_config"]["eos_token_id"] = 3  # the end in this tokenizer
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, WORDS)
    return folder
