"""The night run: its workflow says what exists, and what it compares is compared rightly, shown by a mini model."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

import nightly
from pnp_ovss.cli import _parser
from pnp_ovss.methods import METHODS
from pnp_ovss.models.hub import SHORT_NAMES

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nightly, "SIDE", 112)
        return nightly.scene_maps("pnp", "mini-blip")


def held(path: Path, measured: dict[str, np.ndarray], record: bool = False) -> str:
    return nightly.held(path, measured, nightly.MAPS, True, record)


def test_the_first_run_stores_what_it_finds_and_the_next_one_finds_the_same(measured, tmp_path):
    path = tmp_path / "weights/mini-blip.npz"
    assert held(path, measured) == f"nothing is stored in {path} yet: run with --record, look at it, and commit it"
    assert held(path, measured, record=True) == ""
    written = path.read_bytes()
    assert held(path, measured) == ""
    changed = {name: value for name, value in measured.items() if name == "about"} | {
        name: 2 * value for name, value in measured.items() if name != "about"
    }
    assert held(path, changed, record=True).startswith("mini-blip, 0: ")  # what is stored is never overwritten
    assert path.read_bytes() == written


def test_scenes_have_a_map_for_each_of_their_things(measured):
    assert measured.keys() == {"about", "0", "1", "2"}
    assert all(measured[name].ndim == 3 and measured[name].max() > 0 for name in "012")


@pytest.mark.parametrize(("change", "message"), [
    (lambda map_: map_ + 0.5e-3 * map_.max(), ""),
    (lambda map_: map_ + 2e-3 * map_.max(), "mini-blip, 2: .* from what is stored, of revision local-"),
    (lambda map_: map_ * np.nan, "mini-blip, 2: nan from what is stored"),
    (lambda map_: map_.transpose(0, 2, 1)[:, ::-1], "mini-blip, 2: .* from what is stored"),
    (lambda map_: map_[:, 1:], "mini-blip, 2: expected the shape .*, got"),
])  # fmt: skip
def test_maps_that_differ_are_found(measured, tmp_path, change, message):
    path, large = tmp_path / "mini-blip.npz", 100 * measured["2"]
    held(path, measured | {"2": large}, record=True)
    said = held(path, measured | {"2": change(large)})
    assert said == "" if not message else re.match(message, said)


def test_another_revision_is_named(measured, tmp_path):
    path = tmp_path / "mini-blip.npz"
    held(path, measured, record=True)
    other = measured | {"about": np.array("b" * 40)}
    assert held(path, other) == ""
    assert f"of revision {'b' * 40}, stored of local-" in held(path, other | {"1": measured["1"] + 1})


def test_a_score_is_held_to_a_tenth_of_a_point(tmp_path):
    score = nightly.miou(
        ("scenes", "--scenes", "2", "--scene-size", "112", "--model", "mini-blip", "--refine", "blur"), tmp_path / "out"
    )
    assert 20 < score["miou"] < 100
    path = tmp_path / "scenes.npz"
    assert nightly.held(path, score, nightly.POINTS, False, record=True) == ""
    for far, fine in ((0.09, True), (-0.09, True), (0.11, False), (-0.11, False)):
        said = nightly.held(path, score | {"miou": score["miou"] + far}, nightly.POINTS, False, record=False)
        assert (said == "") == fine


def test_its_models_have_a_short_name_and_a_method():
    assert nightly.MODELS.keys() <= SHORT_NAMES.keys()
    assert set(nightly.MODELS.values()) <= METHODS.keys()


def test_actions_are_pinned_and_may_only_read():
    assert WORKFLOWS.keys() == {"ci", "nightly"}
    for workflow in WORKFLOWS.values():
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        actions = [step["uses"] for step in steps if "uses" in step]
        assert actions
        for action in actions:
            assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", action)
        assert workflow["permissions"] == {"contents": "read"}


def test_each_change_is_tested_by_the_script_that_exists():
    assert WORKFLOWS["ci"]["jobs"]["test"]["steps"][-1]["run"] == "bash .ci/run"
    assert (ROOT / ".ci/run").is_file()


def test_its_steps_are_targets_of_make():
    steps = WORKFLOWS["nightly"]["jobs"]["weights"]["steps"]
    made = [step["run"] for step in steps if step.get("run", "").startswith("make ")]
    assert made == ["make install", "make nightly DATA=data"]
    assert all(re.search(rf"^{line.split()[1]}:", MAKEFILE, re.MULTILINE) for line in made)


def test_what_make_runs_at_night_exists(pytestconfig):
    recipe = re.search(r"^nightly:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1].replace("$(DATA)", "data")
    commands = [shlex.split(line) for line in recipe.splitlines()]
    get, test = commands
    assert get[0] == "-$(BIN)/pnp-ovss"  # without VOC the models are tested all the same
    _parser("data").commands["data"].make_context("data", get[2:])  # raises for what is no flag
    assert test[:3] == ["$(BIN)/python", "-m", "pytest"]
    for flag in ("--weights", "--record", "--data"):
        assert flag in test
        pytestconfig.getoption(flag)


def test_by_day_no_weights_are_fetched(pytestconfig):
    assert pytestconfig.getoption("--weights") or not pytestconfig.getoption("--record")
    assert any(line.startswith("weights:") for line in pytestconfig.getini("markers"))
