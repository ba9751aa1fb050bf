"""Files from release pages: what is read, what is refused, and that nothing in them runs."""

import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from pnp_ovss import ModelError, load_method
from pnp_ovss.methods import METHODS
from pnp_ovss.models.released import find_file, read_released
from pnp_ovss.models.releases import RELEASES, licence_of, not_for_commerce


class DictConfig:
    """Stands for OmegaConf's."""

    def __init__(self, content):
        self.__dict__["_content"] = content


class Shell:
    def __reduce__(self):
        return subprocess.call, (["touch", "ran"],)


@pytest.fixture
def omegaconf(monkeypatch) -> type:
    """A module as OmegaConf's is, while a file is written."""
    module = ModuleType("omegaconf.dictconfig")
    monkeypatch.setattr(DictConfig, "__module__", "omegaconf.dictconfig")
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    return DictConfig


def test_a_file_with_settings_inside_is_read_and_kept_as_safetensors(tmp_path, omegaconf, monkeypatch):
    path, config = tmp_path / "tcl.pth", omegaconf({"model": {"depth": 2}, "names": ["a"]})
    torch.save({"model": {"module.a": torch.ones(2, 3).T, "b": torch.zeros(1)}, "config": config, "epoch": 3}, path)
    monkeypatch.delitem(sys.modules, "omegaconf")
    monkeypatch.delitem(sys.modules, "omegaconf.dictconfig")
    read = read_released(path, "tcl")
    assert {key: tuple(one.shape) for key, one in read.items()} == {"a": (3, 2), "b": (1,)}
    assert load_file(tmp_path / "tcl.safetensors").keys() == read.keys()
    monkeypatch.setattr(torch, "load", None)  # the second time nothing is unpickled
    assert read_released(path, "tcl").keys() == read.keys()


@pytest.mark.parametrize("modern", [True, False])
def test_a_file_with_code_inside_is_refused(tmp_path, monkeypatch, modern):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "x": Shell()}, "bad.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(ModelError) as caught:
        read_released(Path("bad.pth"), "bad")
    assert ".call, which could run code" in str(caught.value) or "more than weights" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not Path("ran").exists()
    assert not Path("bad.safetensors").exists()


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no file of torch")
    with pytest.raises(ModelError, match="^x: x.pt holds more than weights and settings"):
        read_released(tmp_path / "x.pt", "x")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="expected tensors by name in list.pt"):
        read_released(tmp_path / "list.pt", "x")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "RN50x16.pt")
    with pytest.raises(
        ModelError, match="^x: RN50x16.pt cannot be read: it is a program in TorchScript, which is not run"
    ):
        read_released(tmp_path / "RN50x16.pt", "x")


def test_without_the_file_a_line_says_where_it_is():
    with pytest.raises(ModelError, match=r"^clippy: expected clippy_5k.pt, .*kahnchana/clippy.*--model"):
        load_method("clippy", device="cpu")


def test_another_model_s_file_is_one_line(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"lacks visual.trunk.pos_embed"):
        load_method("clippy", tmp_path / "other.pt", device="cpu")


def test_a_licence_that_excludes_commerce_is_said_once(caplog, tmp_path):
    not_for_commerce.cache_clear()
    with caplog.at_level(logging.WARNING):
        for kind in RELEASES:
            (tmp_path / "file.bin").touch()
            find_file(kind, tmp_path / "file.bin")
            find_file(kind, tmp_path / "file.bin")
    said = [record.getMessage().split()[0] for record in caplog.records]
    assert said == [kind for kind, release in RELEASES.items() if release.commercial == "no"] != []


def test_the_weights_that_a_method_takes_by_itself_have_a_licence():
    assert all(licence_of(info.checkpoint) for info in METHODS.values())
    assert licence_of("some/segclip.bin") == "none (non-commercial)"
    assert licence_of("groupvit-yfcc") == licence_of(Path("ovsegmentor.pth")) == "non-commercial"
    assert licence_of("somebody/clip") == ""


def test_a_folder_may_have_the_released_file_by_its_own_name(tmp_path):
    with pytest.raises(ModelError, match="expected clippy_5k.pt, or a folder with it or with model.safetensors, got"):
        find_file("clippy", tmp_path)
    for name in ("model.safetensors", "clippy_5k.pt"):
        (tmp_path / name).touch()
        assert find_file("clippy", tmp_path) == tmp_path / name
