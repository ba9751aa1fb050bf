"""What a run was made with, as far as every kind of run shares it; a run goes on only with the same."""

import json
from dataclasses import asdict
from typing import Any

import torch
import transformers

from pnp_ovss.config import Config
from pnp_ovss.errors import ConfigError


def about_model(name: str, revision: str, device: str, dtype: str, config: Config) -> dict[str, Any]:
    """Return who segments, and how."""
    return {
        "model": name,
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "config": asdict(config),
    }


def check_same(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which a run that is to go on differs from what is in ``folder``."""
    difference = _difference(before, json.loads(json.dumps(now)))
    if difference:
        name, old, new = difference
        raise ConfigError(
            f"{folder} holds a run with {name} {_brief(old)}, and {_brief(new)} is asked for; give another --out, or "
            "the settings of that run"
        )


def _difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    for name in (*now, *before):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found = _difference(old, new)
            if found:
                return found
        elif old != new:
            return name, old, new
    return None


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
