"""``pnp-ovss models``: what can be loaded by a short name, and what to take for which need."""

import csv
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pnp_ovss.cli import align
from pnp_ovss.errors import ModelError
from pnp_ovss.models.hub import SHORT_NAMES, Model, find_folder, weight_files
from pnp_ovss.models.releases import RELEASES

EXAMPLE = "models"
LIGHT = True
HEADINGS = ("name", "family", "parameters", "input", "weights", "licence", "preset", "checked")


def command(
    recommend: Annotated[bool, typer.Option("--recommend", help="what to take for which need, instead")] = False,
    json: Annotated[bool, typer.Option("--json", help="a line of JSON for each row")] = False,
) -> None:
    """List the models with a short name: what they are, how large, under which licence, and where they are.

    Those without a preset are for a method of their family's name.
    """
    tables = [_choices()] if recommend else [_models(), _releases()]
    if json:
        for heading, *rows in tables:
            for row in rows:
                print(dumps(dict(zip(heading, row, strict=True))))
        return
    print("\n\n".join("\n".join(align(rows)) for rows in tables))
    note = Path(__file__).with_name("models.txt").read_text(encoding="utf-8").rstrip()
    print(f"\n{'docs/choosing.md says how each was measured.' if recommend else note}")


def _choices() -> list[list[str]]:
    return list(csv.reader(Path(__file__).with_name("choices.csv").read_text(encoding="utf-8").splitlines()))


def _models() -> list[list[str]]:
    rows = [[*HEADINGS]]
    for name, model in SHORT_NAMES.items():
        if model.checked:
            numbers = f"{model.millions:.0f} M", f"{model.pixels} px"
            rows.append([name, model.family, *numbers, _weights(model), model.licence, model.preset, model.checked])
    return rows


def _releases() -> list[list[str]]:
    rows = ([name, one.file, one.terms, one.where.removeprefix("https://")] for name, one in RELEASES.items())
    return [["release", "file", "licence", "from"], *rows]


def _weights(model: Model) -> str:
    """Return size and place of the weights; on the hub they are float32."""
    folder = find_folder(model.source)
    with suppress(ModelError):
        size = sum(path.stat().st_size for path in weight_files(folder, "")) if folder else 0
        if size:
            return f"{_amount(size)} {'shipped' if isinstance(model.source, Path) else 'cached'}"
    return f"{_amount(round(4e6 * model.millions))} to fetch"


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
