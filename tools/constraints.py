"""Write constraints.txt: what `make install` installs, each package at one version, known by its hashes.

python -m tools.constraints                              keeps the versions, and finds what is new
python -m tools.constraints --upgrade                    takes the newest ones
python -m tools.constraints torch-2.13.0+cpu-....whl     knows this file as well: the CPU build is in another index

Needs uv (pip install uv) and the package index.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"
OLDEST = "3.11.5"
"""Python, because of mkdocs-material."""
MORE = ("hatchling", "editables", "requests", "defusedxml", "pydeprecate", "supervision", "label-studio-sdk")
"""What builds the package, and what reads exports in tests beside the extra [dev]."""
ALONE = ("supervision", "label-studio-sdk")
"""Installed without most of what they name: OpenCV, FFmpeg and more."""
TORCH = ("filelock", "typing-extensions", "setuptools>=77.0.3", "sympy", "networkx", "jinja2", "fsspec")
"""What torch needs on a CPU."""
PINS = re.compile(r"^(\S+==\S+) \\\n((?:    --hash=\S+ \\\n)+)", re.MULTILINE)
"""A version and its hashes, less the last."""
HEAD = """\
# What the tests ran with, for Python 3.11.5 and newer; `make install` takes nothing else. It is installed by
#     pip install --require-hashes --no-deps --requirement constraints.txt
#     pip install --no-deps --no-build-isolation --editable .
# and written by tools/constraints.py.
"""


def main(arguments: list[str]) -> None:
    """Write the file."""
    wheels = [Path(argument) for argument in arguments if argument.endswith(".whl")]
    known = re.sub(r"\\\n|--hash=\S+", "", LOCK.read_text()) if "--upgrade" not in arguments else ""
    names = [f'[[dependency-metadata]]\nname = "{name}"\nrequires-dist = []\n' for name in ALONE]
    names.append(f'[[dependency-metadata]]\nname = "torch"\nrequires-dist = {list(TORCH)}\n')
    with tempfile.TemporaryDirectory() as folder:
        config, extra, before = (Path(folder, name) for name in ("uv.toml", "more.in", "before.txt"))
        config.write_text("".join(names))
        extra.write_text("\n".join(MORE))
        before.write_text(known)
        run = f"uv pip compile pyproject.toml {extra} --config-file {config} --constraint {before} --extra dev "
        run += f"--universal --python-version {OLDEST} --generate-hashes --no-header --no-annotate --quiet"
        locked = subprocess.run(run.split(), cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for wheel in wheels:
        name, version = wheel.name.replace("_", "-").split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        line = f"{name}=={version.partition('+')[0]} \\\n"
        locked = locked.replace(line, f"{line}    --hash=sha256:{digest} \\\n")
    if known:  # what else was known of a version stays known
        for pin, hashes in PINS.findall(LOCK.read_text()):
            new = [line for line in hashes.splitlines(keepends=True) if line.split()[0] not in locked]
            locked = locked.replace(f"{pin} \\\n", f"{pin} \\\n{''.join(new)}")
    LOCK.write_text(HEAD + locked)


if __name__ == "__main__":
    main(sys.argv[1:])
