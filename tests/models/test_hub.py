"""Repositories of a hub on the loopback address: what is downloaded, what the cache gives, and every refusal."""

import json
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from PIL import Image
from safetensors.torch import load_file, save_file

from hub_server import Hub, Repository, serve
from pnp_ovss import PRESETS, ModelError, Segmenter, load_vlm
from pnp_ovss.segmenter import settle
from shared import shared
from tiny import tiny_bridgetower

NAME = "owner/tiny-blip"
BIN, SAFE = "pytorch_model.bin", "model.safetensors"
WANTED = {"config.json", "preprocessor_config.json", SAFE, "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def hub(tmp_path, tiny_blip_folder, monkeypatch) -> Iterator[Hub]:
    """A hub with one repository, an empty cache, and nothing said but by a test."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # else it also asks for a list of programs
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it asks again
    disable_progress_bars()
    with serve() as hub:
        point_at(monkeypatch, hub.url)
        hub.repositories[NAME] = Repository(Path(shutil.copytree(tiny_blip_folder, tmp_path / "repository")))
        yield hub
        close_session()
    enable_progress_bars()


@pytest.fixture(autouse=True)
def silence(capfd, caplog):
    """Neither the hub's client nor transformers may say anything of its own."""
    loggers = [logging.getLogger(library) for library in ("transformers", "huggingface_hub")]
    for logger in loggers:
        logger.addHandler(caplog.handler)  # they do not pass their records on
    yield
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.get_records("call")] == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def repository(hub) -> Repository:
    return hub.repositories[NAME]


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Do what ``HF_ENDPOINT`` does when the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def unplug(monkeypatch) -> Iterator[object]:
    """Return a function after which nothing answers where the hub was."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        yield lambda: point_at(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")


def load(name: str = NAME, **settings: str) -> object:
    return load_vlm(name, device="cpu", **settings)


def refusal(name: str = NAME, **settings: str) -> str:
    with pytest.raises(ModelError) as caught:
        load(name, **settings)
    text = str(caught.value)
    assert text.isprintable()  # and so one line
    assert text.startswith(f"{name}: ")
    return text.removeprefix(f"{name}: ")


def to_bin(folder: Path, stored: object = None) -> None:
    torch.save(load_file(folder / SAFE) if stored is None else stored, folder / BIN)
    (folder / SAFE).unlink()


# Downloads and the cache


def test_first_use_downloads_what_is_needed_and_the_second_nothing(hub, repository):
    (repository.folder / "README.md").write_text("not needed")
    first = load()
    assert first.name == NAME
    assert first.revision == repository.commit
    assert sorted(hub.fetched()) == sorted(WANTED)
    hub.forget()
    assert load().revision == repository.commit
    assert hub.count("GET") == 0
    assert hub.requests == [("HEAD", NAME, "main", "config.json")]  # has the branch moved on?
    assert hub.strays == []
    assert hub.tokens == {None}


@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_settings_are_the_family_s_once_it_is_known(hub, tmp_path, capfd, revision):
    name = "owner/tiny-bridgetower"
    hub.repositories[name] = Repository(tiny_bridgetower(tmp_path / "bridgetower", heads=8))
    capfd.readouterr()  # transformers shows a bar while it writes
    assert settle(name, revision=revision) == PRESETS["released"]
    assert hub.requests == []
    assert Segmenter.from_pretrained(name, device="cpu", revision=revision).config == PRESETS["bridgetower"]
    assert settle(name, revision=revision) == PRESETS["bridgetower"]


def test_the_model_is_the_repository_s(hub, tiny_blip_folder):
    got, wanted = load()._model.state_dict(), load(tiny_blip_folder)._model.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_all_files_come_from_the_commit_that_was_found_first(hub, repository):
    load()
    assert {revision for method, _, revision, _ in hub.requests if method == "GET"} == {repository.commit}


def test_weights_may_lie_on_another_host_which_gets_no_token(hub, repository, tiny_blip_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.linked = {SAFE}
    got, wanted = load()._model.state_dict(), load(tiny_blip_folder)._model.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.tokens_elsewhere == {None}


def test_offline_takes_the_cache_and_asks_nothing(hub, monkeypatch):
    first = load()
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == first.revision
    assert load(revision=first.revision).revision == first.revision
    assert hub.requests == []


OFFLINE = (
    "not in the cache, or not all of it, and HF_HUB_OFFLINE is set; fetch it once without it, or give a local folder"
)


def test_offline_without_the_cache(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == OFFLINE
    assert hub.requests == []


@pytest.mark.parametrize("lacking", ["config.json", SAFE])
def test_offline_with_half_the_cache(hub, repository, monkeypatch, lacking):
    load()
    [path] = Path(constants.HF_HUB_CACHE).glob(f"*/snapshots/*/{lacking}")
    path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == OFFLINE


def test_a_hub_that_is_down_leaves_the_cache(hub, unplug):
    first = load()
    unplug()
    assert load().revision == first.revision


def test_a_hub_that_is_down_leaves_a_cache_filled_by_another_program(hub, repository, unplug):
    """Other programs do not note in the cache which files a repository has not."""
    to_bin(repository.folder)
    load()
    [absent] = Path(constants.HF_HUB_CACHE).glob("*/.no_exist")
    shutil.rmtree(absent)
    unplug()
    load()


def test_a_hub_that_is_down_without_the_cache(hub, unplug):
    unplug()
    text = refusal()
    assert text.startswith(f"fetching config.json of {NAME} failed (")
    assert "refused" in text
    assert text.endswith("); check connection and disk, then try again")


def test_a_failing_hub_leaves_the_cache(hub, repository):
    first = load()
    repository.failing = True
    assert load().revision == first.revision


def test_a_failing_hub_without_the_cache(hub, repository):
    repository.failing = True
    assert refusal() == f"the hub answers 503 for config.json of {NAME}; try again later"
    assert len(hub.requests) == 1


def test_what_answers_is_no_hub(hub, repository):
    repository.commit = ""
    assert refusal() == "what answers in place of the hub is none; check HF_ENDPOINT and the proxy"


def test_a_new_commit_is_taken(hub, repository):
    load()
    config = json.loads((repository.folder / "config.json").read_text())
    (repository.folder / "config.json").write_text(json.dumps(config | {"known_classes": ["dog"]}))
    repository.commit = "b" * 40
    hub.forget()
    second = load()
    assert (second.revision, second.known) == ("b" * 40, ("dog",))
    assert hub.fetched() == ["config.json"]  # the other files are the same
    assert load(revision="a" * 40).known is None  # still in the cache


def test_a_stopped_update_leaves_the_older_commit(hub, repository, monkeypatch):
    load()
    weights = load_file(repository.folder / SAFE)
    save_file({key: tensor + 1 for key, tensor in weights.items()}, repository.folder / SAFE)
    repository.commit, repository.cut = "b" * 40, {SAFE}
    refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == "a" * 40
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    repository.failing = False
    assert load().revision == "b" * 40


@pytest.mark.parametrize("file", sorted(WANTED))
def test_a_broken_download_is_refused_and_the_next_try_succeeds(hub, repository, tiny_blip_folder, file):
    repository.cut = {file}
    assert refusal() == f"the hub answers 503 for {file} of {NAME}; try again later"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    repository.failing = False
    got, wanted = load()._model.state_dict(), load(tiny_blip_folder)._model.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("file", ["preprocessor_config.json", SAFE])
def test_a_file_that_cannot_be_asked_for_is_not_taken_for_absent(hub, repository, file):
    torch.save(load_file(repository.folder / SAFE), repository.folder / BIN)
    repository.broken = {file}
    assert refusal() == f"the hub answers 503 for {file} of {NAME}; try again later"
    assert BIN not in hub.fetched()


def test_a_connection_that_breaks_is_taken_up_again(hub, repository):
    repository.cut, repository.stays_up = {SAFE}, True
    load()
    assert hub.fetched().count(SAFE) == 2


def test_a_file_that_changes_its_size_on_the_way(hub, repository):
    repository.short = {SAFE}
    text = refusal()
    assert text.startswith(f"fetching {SAFE} of {NAME} failed (Consistency check failed")
    repository.short = set()
    load()


# Refusals


@pytest.mark.parametrize("name", ["owner/none", "nobody/tiny-blip"])
def test_an_unknown_repository(hub, name):
    assert refusal(name) == (
        f"neither a folder here nor a repository of the hub ({name}), or a private one; check the spelling, or set "
        "HF_TOKEN"
    )


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository(hub, repository, status):
    repository.refusal = status, "GatedRepo"
    assert refusal() == f"the repository {NAME} is gated; accept its terms on its page and set HF_TOKEN"


def test_a_gated_repository_in_the_cache(hub, repository):
    load()
    repository.refusal = 401, "GatedRepo"
    load()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token(hub, repository, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.refusal = status, "Forbidden" if status == 403 else "RepoNotFound"
    text = refusal()
    assert text.endswith("; check HF_TOKEN" if status == 403 else ", or set HF_TOKEN")
    assert "hf_secret" not in text
    assert hub.tokens == {"Bearer hf_secret"}


def test_an_unknown_revision(hub):
    text = f"the repository {NAME} has no revision 'v9'; give one of its branches, tags or commits, or none"
    assert refusal(revision="v9") == text
    load()
    assert refusal(revision="v9") == text  # the cache of another revision does not stand in


def test_a_commit_as_revision(hub, repository, unplug):
    assert load(revision=repository.commit).revision == repository.commit
    unplug()
    load(revision=repository.commit)


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ("config.json", f"the repository {NAME} has no config.json; a transformers checkpoint is wanted"),
        (SAFE, f"the repository {NAME} lacks its weights; model.safetensors or pytorch_model.bin is wanted"),
        ("tokenizer.json", "the checkpoint holds no tokenizer; tokenizer.json is wanted"),
    ],
)
def test_missing_files(hub, repository, lacking, text):
    (repository.folder / lacking).unlink()
    assert refusal() == text


def test_a_repository_without_the_matching_head(hub, repository):
    weights = load_file(repository.folder / SAFE)
    save_file({key: tensor for key, tensor in weights.items() if "itm" not in key}, repository.folder / SAFE)
    assert refusal() == (
        "the checkpoint lacks itm_head.bias, itm_head.weight; a whole checkpoint with an image-text-matching head is "
        "wanted, such as blip-large-flickr"
    )


# Kinds of weights


def test_a_repository_with_nothing_but_an_honest_bin(hub, repository, tiny_blip_folder, monkeypatch):
    to_bin(repository.folder)
    got, wanted = load()._model.state_dict(), load(tiny_blip_folder)._model.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    hub.forget()
    load()
    assert len(hub.requests) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load()
    assert len(hub.requests) == 1


def test_safetensors_is_preferred_and_bin_not_downloaded(hub, repository):
    torch.save({}, repository.folder / BIN)
    load()
    assert SAFE in hub.fetched()
    assert BIN not in hub.fetched()


def test_weights_in_the_cache_are_not_downloaded_in_the_other_form(hub, repository):
    whole = (repository.folder / SAFE).read_bytes()
    to_bin(repository.folder)
    load()
    [absent] = Path(constants.HF_HUB_CACHE).glob("*/.no_exist")
    shutil.rmtree(absent)
    (repository.folder / SAFE).write_bytes(whole)
    hub.forget()
    load()
    assert hub.fetched() == []


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


def test_a_bin_that_holds_code_is_refused_and_not_run(hub, repository, tmp_path):
    to_bin(repository.folder, load_file(repository.folder / SAFE) | {"code": Code(tmp_path / "marker")})
    assert refusal() == (
        f"{BIN} holds something other than weights (it asks for {os.name}.mkdir) and was not unpickled, for that can "
        "run code; fetch it again, or take a checkpoint with model.safetensors"
    )
    assert not (tmp_path / "marker").exists()
    pickle.loads(pickle.dumps(Code(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()  # so it would have been seen


def test_python_files_are_not_even_downloaded(hub, repository, tmp_path):
    (repository.folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    for file in ("config.json", "tokenizer_config.json"):
        stored = json.loads((repository.folder / file).read_text())
        auto = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (repository.folder / file).write_text(json.dumps(stored | {"auto_map": auto}))
    load()
    assert set(hub.fetched()) == WANTED
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("single", [SAFE, BIN])
def test_weights_in_parts(hub, repository, tiny_blip_folder, single, unplug):
    weights = load_file(repository.folder / SAFE)
    (repository.folder / SAFE).unlink()
    place = {key: single.replace(".", f"-0000{1 + index % 3}-of-00003.") for index, key in enumerate(weights)}
    for part in set(place.values()):
        own = {key: tensor for key, tensor in weights.items() if place[key] == part}
        save_file(own, repository.folder / part) if single == SAFE else torch.save(own, repository.folder / part)
    (repository.folder / f"{single}.index.json").write_text(json.dumps({"weight_map": place}))
    got, wanted = load()._model.state_dict(), load(tiny_blip_folder)._model.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)
    assert set(place.values()) < set(hub.fetched())
    unplug()
    load()


def test_a_missing_part(hub, repository):
    (repository.folder / SAFE).rename(repository.folder / "model-00001-of-00002.safetensors")
    place = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (repository.folder / f"{SAFE}.index.json").write_text(json.dumps({"weight_map": place}))
    assert refusal() == (f"the repository {NAME} lacks its weights; model.safetensors or pytorch_model.bin is wanted")


def test_an_index_does_not_reach_out_of_its_repository(hub, repository):
    (repository.folder / SAFE).unlink()
    (repository.folder / f"{SAFE}.index.json").write_text('{"weight_map": {"a": "../../../etc/x.safetensors"}}')
    assert refusal() == f"{SAFE}.index.json does not list the files of the weights; fetch the checkpoint again"
    assert not any(".." in file for file in hub.fetched())


def test_a_blip_in_the_authors_layout(hub, repository):
    repository.folder = shared("golden/blip-official")
    got, wanted = load()._model.state_dict(), load_file(repository.folder / SAFE)
    assert got.keys() <= wanted.keys()
    assert all(torch.equal(got[key], wanted[key]) for key in got)


# The client's own environment variables, which it reads when it is imported

LOAD = """
import json, sys, warnings
warnings.simplefilter("error")
import pnp_ovss
said = []
for name in sys.argv[1:]:
    try:
        said.append(pnp_ovss.load_vlm(name, device="cpu").revision)
    except pnp_ovss.ModelError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def start(hub: Hub, home: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=kept | own | {"DO_NOT_TRACK": "1"} | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    with process:
        try:
            return *process.communicate(timeout=300), process.returncode
        finally:
            process.kill()


def test_the_environment_is_obeyed(hub, repository, tmp_path):
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME, NAME, "owner/none"))
    assert errors == ""
    first, second, unknown = json.loads(said)
    assert first == second == repository.commit
    assert unknown.startswith("owner/none: neither a folder here nor a repository of the hub")
    assert sorted(hub.fetched()) == sorted(WANTED)  # once
    assert hub.strays == []


@pytest.mark.slow
def test_the_environment_is_obeyed_offline(hub, repository, tmp_path):
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME))
    assert (json.loads(said), errors) == ([repository.commit], "")
    hub.forget()
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME, "owner/none", HF_HUB_OFFLINE="1"))
    assert (json.loads(said), errors) == ([repository.commit, f"owner/none: {OFFLINE}"], "")
    assert hub.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("bars", ["0", "1"])
def test_settings_of_the_bars_make_no_noise(hub, repository, tmp_path, bars):
    out, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME, HF_HUB_DISABLE_PROGRESS_BARS=bars))
    assert (json.loads(out), errors) == ([repository.commit], "")


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(hub, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    photo = ("-m", "pnp_ovss", "segment", str(tmp_path / "photo.png"), "--classes", "dog")
    process = start(hub, tmp_path / "home", *photo, "--out", str(tmp_path / "out"), "--model", "owner/none")
    _, errors, code = finish(process)
    assert code == 2
    assert errors == (
        "pnp-ovss: owner/none: neither a folder here nor a repository of the hub (owner/none), or a private one; check "
        "the spelling, or set HF_TOKEN\n"
    )
