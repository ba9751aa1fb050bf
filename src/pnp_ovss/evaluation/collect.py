"""From the folders of a run, or of its shards, to its result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnp_ovss.config import Config
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.manifest import read_manifest
from pnp_ovss.evaluation.protocol import PROTOCOLS
from pnp_ovss.evaluation.record import Record, place
from pnp_ovss.evaluation.result import Result, Table, add_up
from pnp_ovss.evaluation.run import records_of
from pnp_ovss.evaluation.scenes import steps_table


def collect(folders: Sequence[Path], protocol: str, oracle: bool) -> Result:
    """Return the result of a run from its folders, whose first one holds the manifest.

    Results with the true names are left out where they lack an image or had another truth, unless ``oracle`` asks for
    them.

    Raises: InputError if an image has no result.
    """
    manifest = read_manifest(folders[0])
    keys, faults = manifest["keys"], [(key, fault) for key, fault in manifest["faults"]]
    records = records_of([folder / "images" for folder in folders], keys)
    best = _oracle([path for folder in folders if (path := folder / "oracle").is_dir()], records, oracle)
    tables = _tables(manifest["settings"], [folder / "steps" for folder in folders], len(keys))
    return add_up(manifest["settings"], records, faults, PROTOCOLS[protocol], best, tables)


def _oracle(folders: Sequence[Path], records: Sequence[Record], asked: bool) -> list[Record]:
    keys = [record.key for record in records]
    there = all(any(place(folder, key).is_file() for folder in folders) for key in keys)
    if not folders or not (asked or there):
        return []
    try:
        best = records_of(folders, keys)
    except InputError:
        if asked:
            raise
        return []
    pairs = zip(records, best, strict=True)
    same = all(one.truth == other.truth for one, other in pairs if not (one.fault or other.fault))
    return best if asked or same else []


def _tables(settings: dict[str, Any], folders: Sequence[Path], count: int) -> list[Table]:
    if not any(folder.is_dir() for folder in folders):
        return []
    config = Config(**(settings["config"] | {"refiners": tuple(settings["config"]["refiners"])}))
    return steps_table(config, count, folders)
