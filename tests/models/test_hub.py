"""Repositories of a hub on the loopback address: what is downloaded, what the cache gives, and every refusal."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from hub_server import LIST, Hub, Repository, point_at
from pnp_ovss import PRESETS, ModelError, Segmenter, load_method, load_vlm
from pnp_ovss.methods import resolve_config
from pnp_ovss.models.hub import fetch_tokenizer
from pnp_ovss.models.loading import load_tokenizer
from pnp_ovss.models.releases import RELEASES
from published import TOKENIZERS
from shared import shared
from tiny import WORDS, tiny_bridgetower, write_tokenizer

pytestmark = pytest.mark.usefixtures("silence")

NAME = "owner/tiny-blip"
BIN, SAFE = "pytorch_model.bin", "model.safetensors"
FILES = {"config.json", "preprocessor_config.json", SAFE, "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def hub(hub, tmp_path, tiny_blip_folder) -> Hub:
    """A hub with one repository."""
    hub.repositories[NAME] = Repository(Path(shutil.copytree(tiny_blip_folder, tmp_path / "repository")))
    return hub


@pytest.fixture
def repository(hub) -> Repository:
    return hub.repositories[NAME]


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


def to_bin(folder: Path) -> None:
    torch.save(load_file(folder / SAFE), folder / BIN)
    (folder / SAFE).unlink()


def weights_are_those_of(folder: Path, name: str = NAME) -> bool:
    got, expected = load(name)._model.state_dict(), load(folder)._model.state_dict()
    return all(torch.equal(got[key], expected[key]) for key in expected)


# Downloads and the cache


def test_first_use_downloads_what_is_needed_and_the_second_nothing(hub, repository, tiny_blip_folder):
    (repository.folder / "README.md").write_text("not needed")
    torch.save({}, repository.folder / BIN)  # nor is this, beside safetensors
    (repository.folder / "evil.py").write_text("raise SystemExit")
    first = load()
    assert (first.name, first.revision) == (NAME, repository.commit)
    assert sorted(hub.fetched()) == sorted(FILES)
    assert {revision for method, _, revision, file in hub.requests if file in FILES} <= {"main", repository.commit}
    hub.forget()
    assert weights_are_those_of(tiny_blip_folder)
    assert hub.requests == [("GET", NAME, "main", LIST)]  # has the branch moved on?
    assert hub.strays == []
    assert hub.tokens == {None}


@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_settings_are_the_family_s_once_it_is_known(hub, tmp_path, capfd, revision):
    name = "owner/tiny-bridgetower"
    hub.repositories[name] = Repository(tiny_bridgetower(tmp_path / "bridgetower", heads=8))
    capfd.readouterr()  # transformers shows a bar while it writes
    assert resolve_config(name, revision=revision) == PRESETS["released"]
    assert hub.requests == []
    assert Segmenter.from_pretrained(name, device="cpu", revision=revision).config == PRESETS["bridgetower"]
    assert resolve_config(name, revision=revision) == PRESETS["bridgetower"]


def test_weights_may_lie_on_another_host_which_gets_no_token(hub, repository, tiny_blip_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.linked = {SAFE}
    assert weights_are_those_of(tiny_blip_folder)
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.tokens_elsewhere == {None}


def test_no_token_goes_to_another_host_with_the_list_of_files(hub, repository, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.moved = True
    assert refusal().startswith("fetching it failed (")
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.tokens_elsewhere <= {None}


TOKEN = "hf_0123456789abcdef"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_hub_that_repeats_the_token(hub, repository, monkeypatch, tmp_path, status, place):
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (tmp_path / "no-token").write_text(TOKEN)
    repository.refusal = (status, "Odd")
    text = refusal()
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN[:8] not in text


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_token_with_odd_letters_is_one_line(hub, monkeypatch, tmp_path, place):
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_\u00e4\u00f6\u00fc-0123456789")
    else:
        (tmp_path / "no-token").write_text("hf_\u00e4\u00f6\u00fc-0123456789", encoding="utf-8")
    assert refusal() == "the hub's token holds characters that no token has; copy the token alone into HF_TOKEN"
    (tmp_path / "no-token").write_bytes(b"hf_\xff")
    refusal()


def test_offline_takes_the_cache_and_asks_nothing(hub, monkeypatch):
    first = load()
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == first.revision
    assert load(revision=first.revision).revision == first.revision
    assert hub.requests == []


OFFLINE = "not all of it is in the cache, and HF_HUB_OFFLINE is set; fetch it once without it"


def ending() -> str:
    """Return what works without the hub, which ends the message."""
    other = "set HF_ENDPOINT to a mirror, give --model a local folder, or take mini-blip, which is in the box"
    return f", {other}; the cache is {constants.HF_HUB_CACHE}"


def test_offline_without_the_cache(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == OFFLINE + ending()
    assert hub.requests == []


@pytest.mark.parametrize("lacking", ["config.json", SAFE])
def test_half_a_cache_is_refused_offline_and_completed_online(hub, monkeypatch, lacking):
    load()
    [path] = Path(constants.HF_HUB_CACHE).glob(f"*/snapshots/*/{lacking}")
    path.resolve().unlink()
    path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == OFFLINE + ending()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.forget()
    load()
    assert hub.fetched() == [lacking]


@pytest.mark.parametrize("trouble", ["down", "failing", "gated", "no hub"])
def test_a_hub_that_does_not_answer_leaves_the_cache(hub, repository, unplug, trouble):
    to_bin(repository.folder)
    first = load()
    repository.failing = trouble == "failing"
    repository.refusal = (401, "GatedRepo") if trouble == "gated" else None
    repository.commit = "" if trouble == "no hub" else repository.commit
    if trouble == "down":
        unplug()
    assert load().revision == load(revision=first.revision).revision == first.revision


def test_a_hub_that_is_down_without_the_cache(hub, unplug):
    unplug()
    text = refusal()
    assert text.startswith("fetching it failed (")
    assert "refused" in text
    assert text.endswith("); check connection, disk and HF_TOKEN" + ending())


def test_a_failing_hub_without_the_cache(hub, repository):
    repository.failing = True
    assert "503" in refusal()
    assert len(hub.requests) == 1


def test_what_answers_is_no_hub(hub, repository):
    repository.commit = ""
    assert refusal().startswith("fetching it failed (")


def test_a_new_commit_is_taken(hub, repository, monkeypatch):
    load()
    config = json.loads((repository.folder / "config.json").read_text())
    (repository.folder / "config.json").write_text(json.dumps(config | {"known_classes": ["dog"]}))
    repository.commit = "b" * 40
    hub.forget()
    second = load()
    assert (second.revision, second.known) == ("b" * 40, ("dog",))
    assert hub.fetched() == ["config.json"]  # the other files are the same
    assert load(revision="a" * 40).known is None  # still in the cache
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == "b" * 40


def test_an_update_that_stops_leaves_the_older_commit(hub, repository, monkeypatch):
    load()
    weights = load_file(repository.folder / SAFE)
    save_file({key: tensor + 1 for key, tensor in weights.items()}, repository.folder / SAFE)
    repository.commit, repository.cut = "b" * 40, {SAFE}
    assert load().revision == "a" * 40
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().revision == "a" * 40
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    repository.failing = False
    assert load().revision == "b" * 40
    assert weights_are_those_of(repository.folder)


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_broken_download_is_refused_and_the_next_try_succeeds(hub, repository, tiny_blip_folder, file, monkeypatch):
    repository.cut = {file}
    assert refusal().startswith("fetching it failed (")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal() == OFFLINE + ending()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    repository.failing = False
    assert weights_are_those_of(tiny_blip_folder)


@pytest.mark.parametrize("file", ["preprocessor_config.json", SAFE])
def test_a_file_that_cannot_be_asked_for_is_not_taken_for_absent(hub, repository, file):
    torch.save(load_file(repository.folder / SAFE), repository.folder / BIN)
    repository.broken = {file}
    assert "503" in refusal()
    assert BIN not in hub.fetched()


def test_a_connection_that_breaks_is_taken_up_again(hub, repository):
    repository.cut, repository.stays_up = {SAFE}, True
    load()
    assert hub.fetched().count(SAFE) == 2


def test_a_file_that_changes_its_size_on_the_way(hub, repository):
    repository.short = {SAFE}
    assert refusal().startswith("fetching it failed (Consistency check failed")
    repository.short = set()
    load()


def test_a_full_disk_is_reported_in_one_line(hub, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pnp_ovss.models.hub.snapshot_download", full)
    assert refusal() == ("fetching it failed (no space left on device); check connection, disk and HF_TOKEN" + ending())


def test_a_mirror_without_xet_is_named_and_the_advice_helps(hub, repository, monkeypatch, tiny_blip_folder):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    repository.xet = {SAFE}
    text = refusal()
    assert text.startswith("fetching it by Xet failed (")
    assert "404" in text
    assert text.endswith("); check connection, disk and HF_TOKEN, set HF_HUB_DISABLE_XET=1" + ending())
    assert hub.strays == [f"GET /api/models/{NAME}/xet-read-token/{repository.commit}"]
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert weights_are_those_of(tiny_blip_folder)


class PanicException(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize("stopping", [False, True])
def test_a_panic_of_the_client_leaves_the_cache_and_a_wish_to_stop_stops(hub, monkeypatch, stopping):
    def panic(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt if stopping else PanicException("index out of bounds")

    first = load()
    for place in ("snapshot_download", "HfApi"):
        monkeypatch.setattr(f"pnp_ovss.models.hub.{place}", panic)
    if stopping:
        with pytest.raises(KeyboardInterrupt):
            load()
        with pytest.raises(KeyboardInterrupt):
            fetch_tokenizer(NAME)
        return
    assert load().revision == first.revision
    with pytest.raises(ModelError, match=r"tokenizer of owner/tiny-blip cannot be fetched \(index out of bounds\)"):
        fetch_tokenizer(NAME)
    shutil.rmtree(constants.HF_HUB_CACHE)
    assert refusal() == "fetching it failed (index out of bounds); check connection, disk and HF_TOKEN" + ending()


# Tokenizers of files from release pages


@pytest.mark.parametrize(("repository", "spelled"), [
    ("openai/clip-vit-base-patch16", ["<|startoftext|>", "a</w>", "dog</w>", "ca", "r", "t</w>", "<|endoftext|>"]),
    ("timm/resnet50x16_clip.openai", ["<|startoftext|>", "a</w>", "dog</w>", "ca", "r", "t</w>", "<|endoftext|>"]),
    ("sentence-transformers/sentence-t5-base", ["▁a", "▁dog", "▁ca", "r", "t", "</s>"]),
    ("distilbert/distilbert-base-uncased", ["[CLS]", "a", "dog", "car", "##t", "[SEP]"]),
])  # fmt: skip
def test_a_released_model_gets_its_tokenizer_from_a_repository(
    hub, monkeypatch, tmp_path, capfd, caplog, repository, spelled
):
    assert {release.tokenizer for release in RELEASES.values() if release.tokenizer} == {*TOKENIZERS}
    TOKENIZERS[repository](tmp_path / "published")
    capfd.readouterr()  # what transformers says while it writes
    caplog.clear()
    hub.repositories[repository] = Repository(tmp_path / "published")
    folder = fetch_tokenizer(repository)
    tokenizer = load_tokenizer(folder, repository)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a dog cart")["input_ids"]) == spelled
    assert tokenizer(["a", "a dog"], padding=True)["attention_mask"][0][-1] == 0
    assert {Path(file).suffix for file in hub.fetched()} <= {".json", ".txt"}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_tokenizer(repository) == folder


# Refusals


@pytest.mark.parametrize("name", ["owner/none", "nobody/tiny-blip"])
def test_an_unknown_repository(hub, name):
    assert refusal(name) == "no folder here, no public repository on the hub; check the name, or set HF_TOKEN"


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository(hub, repository, status):
    repository.refusal = status, "GatedRepo"
    assert refusal() == "its repository is gated; accept its terms on its page and set HF_TOKEN"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token(hub, repository, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.refusal = status, "Forbidden" if status == 403 else "RepoNotFound"
    text = refusal()
    assert "HF_TOKEN" in text
    assert "hf_secret" not in text
    assert hub.tokens == {"Bearer hf_secret"}


def test_an_unknown_revision(hub):
    text = "the hub has no such revision of it; give a branch, a tag or a commit, or none"
    assert refusal(revision="v9") == text
    load()
    assert refusal(revision="v9") == text  # the cache of another revision does not stand in


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ("config.json", "config.json cannot be read (no such file or directory)"),
        (SAFE, "expected model.safetensors or pytorch_model.bin, got neither"),
        ("tokenizer.json", "expected a tokenizer.json, got none"),
    ],
)
def test_missing_files(hub, repository, lacking, text):
    (repository.folder / lacking).unlink()
    assert text in refusal()


# Kinds of weights


def test_a_repository_with_nothing_but_an_honest_bin(hub, repository, tiny_blip_folder, monkeypatch):
    to_bin(repository.folder)
    assert weights_are_those_of(tiny_blip_folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load()
    assert hub.fetched().count(BIN) == 1


@pytest.mark.parametrize("single", [SAFE, BIN])
def test_weights_in_parts(hub, repository, tiny_blip_folder, single, unplug):
    weights = load_file(repository.folder / SAFE)
    (repository.folder / SAFE).unlink()
    place = {key: single.replace(".", f"-0000{1 + index % 3}-of-00003.") for index, key in enumerate(weights)}
    for part in set(place.values()):
        own = {key: tensor for key, tensor in weights.items() if place[key] == part}
        save_file(own, repository.folder / part) if single == SAFE else torch.save(own, repository.folder / part)
    (repository.folder / f"{single}.index.json").write_text(json.dumps({"weight_map": place}))
    assert weights_are_those_of(tiny_blip_folder)
    assert set(place.values()) < set(hub.fetched())
    unplug()
    load()


def test_a_missing_part(hub, repository):
    (repository.folder / SAFE).rename(repository.folder / "model-00001-of-00002.safetensors")
    place = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (repository.folder / f"{SAFE}.index.json").write_text(json.dumps({"weight_map": place}))
    assert refusal().startswith(f"{SAFE}.index.json lists model-00002-of-00002.safetensors, which is not there")


def test_a_blip_in_the_authors_layout(hub, repository):
    repository.folder = shared("golden/blip-official")
    got, stored = load()._model.state_dict(), load_file(repository.folder / SAFE)
    assert got.keys() <= stored.keys()
    assert all(torch.equal(got[key], stored[key]) for key in got)


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
        env=kept | own | {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | variables,
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


@pytest.mark.slow
def test_the_environment_is_obeyed(hub, repository, tmp_path):
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME, NAME, "owner/none"))
    assert errors == ""
    first, second, unknown = json.loads(said)
    assert first == second == repository.commit
    assert unknown.startswith("owner/none: no folder here, no public repository on the hub")
    assert sorted(hub.fetched()) == sorted(FILES)  # once
    assert hub.strays == []


@pytest.mark.slow
def test_the_environment_is_obeyed_offline(hub, repository, tmp_path):
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME))
    assert (json.loads(said), errors) == ([repository.commit], "")
    hub.forget()
    at_home = ending().rpartition(" ")[0] + f" {tmp_path / 'home/hub'}"
    said, errors, _ = finish(start(hub, tmp_path / "home", "-c", LOAD, NAME, "owner/none", HF_HUB_OFFLINE="1"))
    assert (json.loads(said), errors) == ([repository.commit, f"owner/none: {OFFLINE}{at_home}"], "")
    assert hub.requests == []


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(hub, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    photo = ("-m", "pnp_ovss", "segment", str(tmp_path / "photo.png"), "--classes", "dog")
    process = start(hub, tmp_path / "home", *photo, "--out", str(tmp_path / "out"), "--model", "owner/none")
    _, errors, code = finish(process)
    assert code == 2
    assert errors == (
        "pnp-ovss: owner/none: no folder here, no public repository on the hub; check the name, or set HF_TOKEN\n"
    )


def test_groupvit_is_the_same_from_a_folder_its_bin_and_the_hub(hub, tmp_path):
    safe = Path(shutil.copytree(shared("golden/peers/groupvit/weights-a"), tmp_path / "safe"))
    write_tokenizer(safe, WORDS)
    config = json.loads((safe / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 3  # the end in this tokenizer
    (safe / "config.json").write_text(json.dumps(config))
    binary = Path(shutil.copytree(safe, tmp_path / "bin"))
    torch.save(load_file(binary / SAFE), binary / BIN)
    (binary / SAFE).unlink()
    hub.repositories["nvidia/groupvit-tiny"] = Repository(binary)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    size = {"short_side": 64, "crop": 64, "stride": 32}
    first, *others = (
        Segmenter(load_method("groupvit", model, "cpu", **size))(photo, ["dog", "cat", "bird", "tree"])
        for model in (safe, binary, "nvidia/groupvit-tiny")
    )
    assert len(np.unique(first.labels)) > 1
    for other in others:
        np.testing.assert_array_equal(other.labels, first.labels)
    assert hub.fetched().count(BIN) == 1
