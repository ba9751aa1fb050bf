"""From the folders of a run, or of its shards, to its result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnp_ovss.config import Config
from pnp_ovss.evaluation.manifest import read_manifest
from pnp_ovss.evaluation.protocol import PROTOCOLS
from pnp_ovss.evaluation.result import Result, Table, add_up
from pnp_ovss.evaluation.run import records_of
from pnp_ovss.evaluation.scenes import steps_table


def collect(folders: Sequence[Path], protocol: str) -> Result:
    """Return the result of a run from its folders, whose first one holds the manifest.

    Raises: InputError if an image has no result.
    """
    manifest = read_manifest(folders[0])
    keys, faults = manifest["keys"], [(key, fault) for key, fault in manifest["faults"]]
    records = records_of([folder / "images" for folder in folders], keys)
    oracles = [path for folder in folders if (path := folder / "oracle").is_dir()]
    oracle = records_of(oracles, keys) if oracles else []
    tables = _tables(manifest["settings"], [folder / "steps" for folder in folders], len(keys))
    return add_up(manifest["settings"], records, faults, PROTOCOLS[protocol], oracle, tables)


def _tables(settings: dict[str, Any], folders: Sequence[Path], count: int) -> list[Table]:
    if not any(folder.is_dir() for folder in folders):
        return []
    config = Config(**(settings["config"] | {"refiners": tuple(settings["config"]["refiners"])}))
    return steps_table(config, count, folders)
