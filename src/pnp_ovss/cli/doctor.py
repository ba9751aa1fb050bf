"""``pnp-ovss doctor``: what is here and whether a model is sound, for a person with a problem and for a bug report."""

import platform
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from json import dumps
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from huggingface_hub import constants

from pnp_ovss._version import VERSION
from pnp_ovss.cli import PARTLY, align
from pnp_ovss.cores import usable_cores
from pnp_ovss.models.hub import SHORT_NAMES, find_folder, weight_files
from pnp_ovss.redaction import bare

EXAMPLE = "doctor"
LIGHT = True
CORE = ("torch", "transformers", "huggingface_hub", "numpy", "scipy", "pillow", "typer")
PATIENCE = 3.0
"""Seconds that the hub has to answer."""


def command(
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="check this one: short name, hub id or folder")
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="by which method (default: its family's)")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> int:
    """Say what is installed, which devices there are, where models are kept, and whether the hub answers.

    Nothing is fetched and no photo leaves the machine; a bug report is easier to answer with these lines.

    With --model: whether that model, fetched if it is not here, does what it should on ten drawn scenes, beside a mini
    model, and if not, what may be wrong with it. Exit code 1: something looks wrong.
    """
    if model:
        return _check(model, method, device, json)
    facts = dict(_facts())
    if json:
        print(dumps(facts))
        return 0
    for line in align(list(facts.items())):
        print(line)
    return 0


def _check(model: str, method: str | None, device: str, json: bool) -> int:
    """Check a model beside a mini model, print what is found, and return the exit code."""
    from pnp_ovss.evaluation.sanity import check_sanity, plan
    from pnp_ovss.methods import load_method

    method, *mini = plan(model, method)
    found = []
    for name, by in dict.fromkeys([(model, method), (mini[0], mini[1])]):
        settings: dict[str, Any] = {"passes": 1} if by == "pnp" else {}
        found.append((name, by, check_sanity(load_method(by, name, device, **settings))))
    sanity = found[0][-1]
    if json:
        own, *other = ({"model": name, "method": by, **asdict(one)} for name, by, one in found)
        print(dumps(own | {"mini": other[0] if other else own}))
        return PARTLY if sanity.suspects else 0
    rows = [
        ("on ten drawn scenes", *(f"{Path(name).name} by {by}" for name, by, _ in found), "chance"),
        ("names are compared by", *(one.score for *_, one in found), ""),
        ("right names above wrong ones", *(f"{100 * one.names:.0f} %" for *_, one in found), "50 %"),
        (
            "salience highest on the object",
            *(f"{100 * one.salience:.0f} %" for *_, one in found),
            f"{100 * sanity.chance:.0f} %",
        ),
        ("a part of a photo comes out", *(one.grid for *_, one in found), ""),
        ("pixels, mean and deviation", *(f"{one.mean:.2f}, {one.deviation:.2f}" for *_, one in found), ""),
    ]
    for line in align(rows):
        print(line)
    print()
    for line in sanity.suspects or ("nothing looks wrong",):
        print(line)
    return PARTLY if sanity.suspects else 0


def _facts() -> Iterator[tuple[str, str]]:
    yield "pnp-ovss", f"{VERSION}, in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()}, {platform.platform()}"
    yield "packages", ", ".join(f"{name} {_version(name) or 'missing'}" for name in CORE)
    yield from _extras()
    yield "devices", ", ".join(_devices())
    cache = Path(constants.HF_HUB_CACHE)
    nearest = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    yield "cache", f"{cache}, {free:.1f} GB free" + ("" if cache.exists() else ", not there yet")
    yield "models here", ", ".join(filter(_is_here, SHORT_NAMES)) or "none"
    yield "hub", _hub()


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""


def _extras() -> Iterator[tuple[str, str]]:
    """Yield for each extra which of its packages are missing."""
    listed = dict[str, list[str]]()
    for line in requires("pnp-ovss") or ():
        found = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
        if found and found[1] != "pnp-ovss":
            listed.setdefault(found[2], []).append(found[1])
    for extra, packages in sorted(listed.items()):
        if extra not in ("all", "bench", "dev"):
            missing = [package for package in packages if not _version(package)]
            advice = f"without {', '.join(missing)}: pip install 'pnp-ovss[{extra}]'"
            yield f"[{extra}]", advice if missing else "installed"


def _devices() -> Iterator[str]:
    import torch

    yield f"cpu ({usable_cores()} cores, {torch.get_num_threads()} threads)"
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield f"cuda:{number} ({about.name}, {about.total_memory / 1e9:.0f} GB)"
    if torch.backends.mps.is_available():
        yield "mps"


def _is_here(name: str) -> bool:
    folder = find_folder(SHORT_NAMES[name].source)
    with suppress(Exception):  # without its weights
        return bool(folder and weight_files(folder, name))
    return False


def _hub() -> str:
    """Return whether the hub, or the mirror of HF_ENDPOINT, takes a connection."""
    address = bare(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return f"{address} is not asked: HF_HUB_OFFLINE is set"
    parts = urlsplit(constants.ENDPOINT)
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection((parts.hostname or "", port), PATIENCE):
            return f"{address} answers"
    except (OSError, ValueError) as error:
        advice = "set HF_ENDPOINT to a mirror, or give --model a local folder; mini-blip is bundled"
        return f"{address} does not answer ({getattr(error, 'strerror', None) or error}); {advice}"
