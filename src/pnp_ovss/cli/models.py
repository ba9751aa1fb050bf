"""``pnp-ovss models``: what can be loaded by a short name."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pnp_ovss.cli.command import PROG, Command

WIDTH, SPACE = 120, 2
HEADINGS = ("name", "family", "parameters", "input", "weights", "licence", "preset", "checked")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``models`` has no flags."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table of models; return the exit code."""
    from pnp_ovss.models import MODELS, UNSEEN
    from pnp_ovss.models.clip import CLIPS

    rows = []
    for name, model in MODELS.items():
        where, size = _place(model.source)
        rows.append(
            (
                name,
                model.family.split("For")[0],
                f"{model.millions:.0f} M",
                f"{model.pixels} px",
                f"{_bytes(size or round(4e6 * model.millions))} {where}",  # on the hub: float32
                model.licence,
                model.preset,
                model.checked,
            )
        )
    print("\n".join(table(HEADINGS, rows)))
    print("\ndrawn scenes: everything, on those.")
    print(f"{UNSEEN}: loading, and every layer and head against a plain computation, on random weights.")
    print("A hub id (owner/name) or a local folder in the Hugging Face layout of one of these families works as well.")
    print(f"Dual encoders, for naming and for tuning: {', '.join(CLIPS)}, or any CLIP by hub id or folder.")
    return 0


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of ``WIDTH`` characters at most; a last cell that is too long goes on below."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings) - 1)]
    left = sum(widths) + SPACE * len(widths)
    lines = []
    for row in (headings, *rows):
        start = "".join(cell.ljust(width + SPACE) for cell, width in zip(row, widths, strict=False))
        for index, part in enumerate(textwrap.wrap(row[-1], WIDTH - left) or [""]):
            lines.append(((start if index == 0 else " " * left) + part).rstrip())
    return lines


def _place(source: str | Path) -> tuple[str, int]:
    """Return where a model's weights are, and their bytes where they are on this machine, else 0."""
    from huggingface_hub import try_to_load_from_cache

    from pnp_ovss.models.hub import WEIGHTS

    if isinstance(source, Path):
        found = [source / file for file in WEIGHTS if (source / file).is_file()]
        return ("shipped", found[0].stat().st_size) if found else ("missing", 0)
    cached = [path for file in WEIGHTS if isinstance(path := try_to_load_from_cache(source, file), str)]
    return ("cached", Path(cached[0]).stat().st_size) if cached else ("to fetch", 0)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


COMMAND = Command(
    usage="[-h]",
    summary="list the models with a short name",
    description="List the models with a short name: what they are, how large, under which licence, and where they lie.",
    example=f"{PROG} models",
    add_arguments=add_arguments,
    run=run,
)
