"""What a checkpoint folder may hold, and the one line that says what is wrong with it."""

import hashlib
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.utils import logging as transformers_logging

from pnp_ovss import InputError, ModelError, load_vlm, make_prompt
from pnp_ovss.models import FAMILIES, find
from pnp_ovss.models.clip import load_clip
from pnp_ovss.models.hub import SHORT_NAMES
from shared import shared
from tiny import WORDS, tiny_blip, tiny_blip2, tiny_bridgetower, tiny_clip, tiny_vilt, write_tokenizer

pytestmark = pytest.mark.usefixtures("silence")

BIN, SAFE = "pytorch_model.bin", "model.safetensors"
AGAIN = "; fetch the checkpoint again"


@pytest.fixture
def folder(tiny_blip_folder, tmp_path) -> Path:
    """A copy of the tiny BLIP, to be damaged."""
    return Path(shutil.copytree(tiny_blip_folder, tmp_path / "blip"))


def refusal(source: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_vlm(source, device="cpu")
    text = str(caught.value)
    assert text.isprintable()  # and so one line
    assert text.startswith(f"{source}: ")
    return text.removeprefix(f"{source}: ")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / SAFE)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def parameters(source: str | Path, **settings: str) -> dict[str, torch.Tensor]:
    return dict(load_vlm(source, **({"device": "cpu"} | settings))._model.named_parameters())


def to_bin(folder: Path, stored: object, **how: object) -> Path:
    (folder / SAFE).unlink()
    torch.save(stored, folder / BIN, **how)
    return folder


def in_parts(folder: Path, kind: str = "safetensors") -> Path:
    """Split the weights into two files and an index."""
    stored = weights(folder)
    (folder / SAFE).unlink()
    single = SAFE if kind == "safetensors" else BIN
    place = {key: single.replace(".", f"-0000{1 + index % 2}-of-00002.") for index, key in enumerate(stored)}
    for part in set(place.values()):
        own = {key: tensor for key, tensor in stored.items() if place[key] == part}
        save_file(own, folder / part) if kind == "safetensors" else torch.save(own, folder / part)
    (folder / f"{single}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


# What loads


def test_an_honest_bin_gives_the_same_weights(folder, tiny_blip_folder):
    wanted = parameters(tiny_blip_folder)
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        copy = Path(shutil.copytree(tiny_blip_folder, folder.parent / f"bin{len(str(how))}"))
        got = parameters(to_bin(copy, weights(copy), **how))
        assert all(torch.equal(got[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_parts_give_the_same_weights(folder, tiny_blip_folder, kind):
    got, wanted = parameters(in_parts(folder, kind)), parameters(tiny_blip_folder)
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_safetensors_is_preferred(folder):
    torch.save({"nonsense": torch.zeros(1)}, folder / BIN)
    load_vlm(folder, device="cpu")


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_weights_have_the_asked_precision_whatever_is_stored(folder, stored, wanted):
    save_file({key: tensor.to(stored) for key, tensor in weights(folder).items()}, folder / SAFE)
    edit(folder / "config.json", dtype="float16")
    loaded = parameters(folder, dtype=wanted)
    assert {tensor.dtype for tensor in loaded.values()} == {getattr(torch, wanted)}
    for key, tensor in weights(folder).items():
        assert torch.equal(loaded[key], tensor.to(getattr(torch, wanted)))


def test_no_weight_takes_a_gradient_and_dropout_is_off(tiny_blip_folder):
    model = load_vlm(tiny_blip_folder, device="cpu")._model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_superfluous_weights_are_left_out(folder):
    save_file(weights(folder) | {"text_decoder.bias": torch.zeros(3)}, folder / SAFE)
    assert "text_decoder.bias" not in parameters(folder)


def test_a_vocabulary_alone_is_a_tokenizer(folder):
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)))
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    prompts = [make_prompt(["dog", "traffic light"])]
    pixels = torch.zeros(1, 3, 32, 32)
    wanted = load_vlm(folder, device="cpu").attend(pixels, prompts)
    (folder / "tokenizer.json").unlink()
    got = load_vlm(folder, device="cpu").attend(pixels, prompts)
    assert torch.equal(got.membership, wanted.membership)
    assert torch.equal(got.match, wanted.match)


@pytest.mark.parametrize("name", ["\N{DOG FACE}", "\N{DOG FACE}\N{CAT FACE}"])
def test_an_emoji_is_nothing_to_bert_s_vocabulary(tmp_path, capfd, name):
    words = shared("vocab/bert-base-uncased-vocab.txt").read_text(encoding="utf-8").splitlines()
    path = tiny_blip(tmp_path / "bert", words=[f"word{index}" for index in range(len(words) - 5)])
    capfd.readouterr()  # transformers shows a bar while it writes
    (path / "tokenizer.json").unlink()
    (path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    edit(path / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    vlm = load_vlm(path, device="cpu")
    pixels = torch.zeros(1, 3, 32, 32)
    vlm.attend(pixels, [make_prompt(["tvmonitor", f"dog {name}", "[sep]"])])
    with pytest.raises(InputError) as caught:
        vlm.attend(pixels, [make_prompt(["dog", name])])
    assert str(caught.value) == f"class '{name}' has no character this model can read; use another name"


def test_home_and_relative_paths(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    revisions = {load_vlm(path, device="cpu").revision for path in (folder, str(folder), "~/blip", "blip", "./blip")}
    assert len(revisions) == 1


def test_the_revision_of_a_folder_says_checkpoints_apart(folder):
    before = load_vlm(folder, device="cpu").revision
    edit(folder / "config.json", note="another")
    after = load_vlm(folder, device="cpu").revision
    in_parts(folder)
    parted = load_vlm(folder, device="cpu").revision
    part = max(folder.glob("*.safetensors"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1  # of the same size, as after another training
    part.write_bytes(content)
    assert before.startswith("local-")
    assert len({before, after, parted, load_vlm(folder, device="cpu").revision}) == 4


def test_the_content_of_a_folder_is_read_again_only_where_it_changed(folder, monkeypatch):
    read, digests = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: digests.append(file.name) or read(file, kind))
    first, second = find(folder), find(folder)
    assert first == second
    assert digests == [str(folder / SAFE)]
    edit(folder / "config.json", note="another")
    assert find(folder).revision != first.revision
    assert len(digests) == 2


def test_bars_and_verbosity_are_left_as_they_were(tiny_blip_folder):
    before = transformers_logging.get_verbosity()
    load_vlm(tiny_blip_folder, device="cpu")
    assert transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.get_verbosity() == before


# What holds code


class Code:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


def test_the_marker_is_made_where_a_pickle_is_trusted(tmp_path):
    pickle.loads(pickle.dumps(Code(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 4", "bare", "in parts"])
def test_a_bin_that_holds_code_is_refused_and_not_run(folder, tmp_path, form):
    stored = weights(folder) | {"code": Code(tmp_path / "marker")}
    if form == "in parts":
        in_parts(folder, "bin")
        torch.save(stored, folder / "pytorch_model-00002-of-00002.bin")
    elif form == "bare":
        to_bin(folder, {})
        (folder / BIN).write_bytes(pickle.dumps(stored["code"]))
    else:
        how = {"legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}
        to_bin(folder, stored, **how.get(form, {}))
    file = "pytorch_model-00002-of-00002.bin" if form == "in parts" else BIN
    reason = "holds more than weights, and unpickling it can run code; take one with model.safetensors"
    assert refusal(folder) == f"{file} {reason}"
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_python_files_of_a_checkpoint_are_not_run(folder, tmp_path, monkeypatch, file):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor"), "evil.Evil")
    edit(folder / file, auto_map=names | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, trust_remote_code=True)
    load_vlm(folder, device="cpu")
    assert not (tmp_path / "marker").exists()
    assert not any("evil" in module for module in sys.modules)


def test_a_tokenizer_that_is_code_is_not_run(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asks whether to run the code"))
    (folder / "evil.py").write_text("class Evil: pass\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    load_vlm(folder, device="cpu")
    assert "evil" not in sys.modules


def test_no_other_file_or_kernel_than_ours_is_taken(folder):
    """``config.json`` may name both in transformers, and files beside it may bring other weights."""
    other = {key: torch.zeros_like(tensor) for key, tensor in weights(folder).items()}
    save_file(other, folder / "other.safetensors")
    save_file(other, folder / "shard-00000-model-00001-of-00001.safetensors")
    edit(folder / "config.json", transformers_weights="other.safetensors", attn_implementation="owner/kernel")
    assert float(parameters(folder)["itm_head.weight"].abs().sum()) > 0


# What lacks something


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        ("itm_head", "itm_head.bias, itm_head.weight"),
        ("itm_head.weight", "itm_head.weight"),
        ("text_encoder.encoder.layer.1.crossattention.self.query.weight", None),
        ("vision_model.post_layernorm.bias", None),
        (
            "vision_model.embeddings",
            "vision_model.embeddings.class_embedding, vision_model.embeddings.patch_embedding.bias, "
            "vision_model.embeddings.patch_embedding.weight and 1 more",
        ),
    ],
)
@pytest.mark.parametrize("kind", [SAFE, BIN])
def test_missing_weights_are_refused_by_name(folder, pattern, listed, kind):
    kept = {key: tensor for key, tensor in weights(folder).items() if not key.startswith(pattern)}
    save_file(kept, folder / SAFE) if kind == SAFE else to_bin(folder, kept)
    assert refusal(folder) == (f"the checkpoint lacks {listed or pattern}; take a whole one, such as blip-large-flickr")


def test_weights_of_other_shapes_are_refused_by_name(folder):
    save_file(weights(folder) | {"itm_head.weight": torch.zeros(3, 16)}, folder / SAFE)
    assert refusal(folder) == (
        "the checkpoint lacks itm_head.weight of shape (2, 16); take a whole one, such as blip-large-flickr"
    )


def test_config_and_weights_of_different_sizes_are_refused(folder, tmp_path, capfd):
    tiny_blip(tmp_path / "other", patch=4)
    capfd.readouterr()  # transformers shows a bar while it writes
    shutil.copy(tmp_path / "other/config.json", folder)
    assert "vision_model.embeddings.patch_embedding.weight of shape (16, 3, 4, 4)" in refusal(folder)


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ("config.json", f"the folder cannot be read (no such file or directory){AGAIN}"),
        (SAFE, "expected model.safetensors or pytorch_model.bin, got neither"),
        ("tokenizer.json", "expected a tokenizer.json, got none; fetch it"),
    ],
)
def test_missing_files(folder, lacking, text):
    (folder / lacking).unlink()
    assert refusal(folder) == text


def test_a_tokenizer_without_words_is_refused(folder):
    """transformers would go on with one that reads every word as ``[UNK]``."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert refusal(folder).startswith("expected a tokenizer.json, got none")


def test_a_missing_part(folder):
    in_parts(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert refusal(folder) == (
        "model.safetensors.index.json lists model-00002-of-00002.safetensors, which is not there; fetch it"
    )


def test_an_index_stays_in_its_folder(folder):
    outside = folder.parent / "other.safetensors"
    save_file(weights(folder), outside)
    in_parts(folder)
    edit(folder / "model.safetensors.index.json", weight_map={"itm_head.weight": "../other.safetensors"})
    assert refusal(folder) == "model.safetensors.index.json lists other.safetensors, which is not there; fetch it"


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_index(folder, text):
    in_parts(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    assert re.search("model.safetensors.index.json(, got list| is no JSON).*; check the file", refusal(folder))


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", "config.json")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal(folder) == f"the folder cannot be read (permission denied){AGAIN}"


# What is damaged


@pytest.mark.parametrize("damage", ["empty", "half", "page", "pointer"])
@pytest.mark.parametrize("kind", [SAFE, BIN])
def test_damaged_weights(folder, kind, damage):
    if kind == BIN:
        to_bin(folder, weights(folder))
    whole = (folder / kind).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "page": b"<!DOCTYPE html>", "pointer": pointer}
    (folder / kind).write_bytes(damaged[damage])
    text = refusal(folder)
    if kind == BIN and damage in ("page", "pointer"):
        assert text.startswith(f"{BIN} holds more than weights")
    else:
        assert text.startswith(f"{kind} cannot be read (")


@pytest.mark.parametrize(
    "stored", [{"model": {"itm_head.weight": torch.zeros(2, 16)}}, [torch.zeros(2)], torch.zeros(2), {"epoch": 5}]
)
def test_a_bin_of_another_kind(folder, stored):
    to_bin(folder, stored)
    assert refusal(folder) == f"expected tensors by name in {BIN}, got something else"


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]", b"5", b"null"])
def test_files_that_hold_no_json_object(folder, file, content):
    (folder / file).write_bytes(content)
    text = refusal(folder)
    assert text.startswith((f"{folder / file} is no JSON (", f"expected a JSON object in {folder / file}, got "))
    assert text.endswith("; check the file, or fetch the checkpoint again")


@pytest.mark.parametrize("kind", ["bert", "one\nline", "", None, ["blip"]])
def test_a_model_of_another_kind(folder, kind):
    edit(folder / "config.json", model_type=kind)
    expected = f"expected a checkpoint of {', '.join(FAMILIES)}, such as blip-large-flickr"
    assert refusal(folder) == f"{expected}, got one of kind {str(kind)!r}"


def test_the_kind_decides_and_not_the_name_of_the_architecture(folder):
    edit(folder / "config.json", architectures=["BlipForConditionalGeneration"])
    load_vlm(folder, device="cpu")


@pytest.mark.parametrize(
    ("tower", "changes", "reason"),
    [
        ("text_config", {"hidden_size": "wide"}, "Field 'hidden_size' expected int, got str"),
        ("text_config", {"num_attention_heads": 3}, "not a multiple"),
        ("text_config", {"hidden_act": "none such"}, "none such"),
        ("vision_config", {"patch_size": 0}, "zero"),
        ("vision_config", {"image_size": None}, "image_size"),
    ],
)
def test_settings_that_make_no_model(folder, tower, changes, reason):
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **{tower: config[tower] | changes})
    text = refusal(folder)
    assert text.startswith("config.json does not describe a BlipForImageTextRetrieval (")
    assert reason in text
    assert text.endswith(f"){AGAIN}")


@pytest.mark.parametrize(
    ("tower", "changes", "message"),
    [
        ("text_config", {"num_hidden_layers": 4_000_000_000}, r"expected num_hidden_layers up to \d+ .*, got 4e\+09; "),
        ("vision_config", {"num_hidden_layers": 10**300}, r"expected num_hidden_layers up to \d+ .*, got 1e\+300; "),
        ("text_config", {"num_labels": 10**8}, r"expected num_labels up to 1000000 in config.json, got 1e\+08; "),
        ("text_config", {"intermediate_size": 900_000}, r"describes a model of \S+ parameters, and the files hold"),
        ("vision_config", {"hidden_size": 100_000}, r"describes a model of \S+ parameters, and the files hold"),
    ],
)
def test_a_model_that_its_weights_cannot_fill_is_refused_before_it_is_built(folder, tower, changes, message):
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **{tower: config[tower] | changes})
    started = perf_counter()
    assert re.search(message, refusal(folder))
    assert perf_counter() - started < 20


@pytest.mark.parametrize("towers", [[1], 5, "text"])
def test_settings_of_the_wrong_kind(folder, towers):
    edit(folder / "config.json", text_config=towers)
    assert refusal(folder).startswith("config.json does not describe a BlipForImageTextRetrieval (")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model": {"type": "WordLevel"}}'])
def test_a_damaged_tokenizer(folder, content):
    (folder / "tokenizer.json").write_text(content)
    assert refusal(folder).startswith("the tokenizer cannot be read (")


def test_a_panic_in_the_tokenizer(folder, capfd):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"][0]["SpecialToken"]["id"] = "no such token"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    capfd.readouterr()
    assert refusal(folder).startswith("the tokenizer cannot be read (no entry found for key); ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_settings_of_the_tokenizer(folder, content):
    (folder / "tokenizer_config.json").write_text(content)
    assert refusal(folder).startswith("the tokenizer cannot be read (")


@pytest.mark.parametrize(
    ("key", "values"), [("image_mean", [0.5, 0.5]), ("image_std", [0.2, 0.2, 0]), ("image_std", [1, 1, 1, 1])]
)
def test_normalisation_that_cannot_be_used(folder, key, values):
    edit(folder / "preprocessor_config.json", **{key: values})
    text = refusal(folder)
    assert text.startswith("expected three numbers for image_mean, and above 0 for image_std, got ")
    assert str(values) in text


def test_normalisation_as_the_checkpoint_says_or_clip_s(folder):
    white = np.full((32, 32, 3), 255, np.uint8)
    edit(folder / "preprocessor_config.json", image_mean=[0, 0.5, 1], image_std=None)
    pixels = load_vlm(folder, device="cpu").prepare(white, 32)[:, 0, 0]
    torch.testing.assert_close(pixels, torch.tensor([1 / 0.26862954, 0.5 / 0.26130258, 0]))
    (folder / "preprocessor_config.json").unlink()
    pixels = load_vlm(folder, device="cpu").prepare(white, 32)[:, 0, 0]
    torch.testing.assert_close(pixels[0], torch.tensor((1 - 0.48145466) / 0.26862954))


# What is no folder


@pytest.mark.parametrize(
    "name", ["", "no-such-model", "a/b/c", "/no/such/folder", "./none", "~/none", "owner/two words", "owner/a--b"]
)
def test_names_that_mean_nothing(name):
    with pytest.raises(ModelError) as caught:
        load_vlm(name, device="cpu")
    assert str(caught.value) == (
        f"no model {name!r}: expected a folder, a hub id such as owner/model, or one of {', '.join(SHORT_NAMES)}"
    )


def test_a_path_is_no_hub_id():
    with pytest.raises(ModelError, match="^no model 'a/b': expected a folder"):
        load_vlm(Path("a/b"), device="cpu")


def test_a_name_that_is_no_dual_encoder_s():
    with pytest.raises(ModelError, match="^mini-blip: expected a CLIP checkpoint such as clip-base, got 'blip'"):
        load_clip("mini-blip", device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "^device 'gpu' cannot be used here; give auto or cpu$"),
        ({"dtype": "int4"}, "^expected dtype auto, float32, bfloat16, float16 or int8, got 'int4'$"),
    ],
)
def test_devices_and_dtypes_that_are_not_there(folder, settings, message):
    with pytest.raises(ModelError, match=message):
        load_vlm(folder, **settings)


def test_a_file_is_no_folder(folder):
    with pytest.raises(ModelError, match="^no model .*: expected a folder"):
        load_vlm(folder / SAFE, device="cpu")


def test_a_folder_has_no_revisions(folder):
    with pytest.raises(ModelError) as caught:
        load_vlm(folder, device="cpu", revision="v2")
    assert str(caught.value) == (f"{folder} is a local folder and has no revision 'v2'; leave it out")


# Other families


HEADS = {"bridgetower": "itm_score.fc", "vilt": "rank_output", "blip2": "itm_head"}


@pytest.fixture(params=HEADS)
def other(request, tmp_path, capfd) -> tuple[Path, str]:
    """A tiny checkpoint, and where its matching head is."""
    write = {"bridgetower": tiny_bridgetower, "vilt": tiny_vilt, "blip2": tiny_blip2}[request.param]
    path = write(tmp_path / request.param)
    capfd.readouterr()  # transformers shows a bar while it writes
    return path, HEADS[request.param]


def test_a_checkpoint_without_a_matching_head_is_refused(other):
    path, head = other
    save_file({key: tensor for key, tensor in weights(path).items() if not key.startswith(head)}, path / SAFE)
    assert refusal(path) == (
        f"the checkpoint lacks {head}.bias, {head}.weight; take a whole one, such as blip-large-flickr"
    )


def test_missing_weights_of_other_families_are_refused(other):
    path, _ = other
    (path / SAFE).unlink()
    assert refusal(path).startswith("expected model.safetensors or pytorch_model.bin, got neither")


def test_other_families_load_from_a_bin(other):
    path, _ = other
    wanted = parameters(path)
    got = parameters(to_bin(path, weights(path)))
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_another_family_s_kind_is_refused_by_its_weights(folder):
    edit(folder / "config.json", model_type="vilt")
    assert refusal(folder).startswith(
        ("config.json does not describe", "config.json describes a model of", "the checkpoint lacks")
    )


@pytest.fixture
def bridgetower(tmp_path, capfd) -> Path:
    path = tiny_bridgetower(tmp_path / "bridgetower")
    capfd.readouterr()
    return path


@pytest.mark.parametrize(
    "architectures", [None, [], ["BridgeTowerModel"], ["BridgeTowerForMaskedLM"], ["BridgeTowerForContrastiveLearning"]]
)
@pytest.mark.parametrize("prefix", ["bridgetower.", ""])
def test_a_bridgetower_of_another_name_loads_if_it_holds_the_head(bridgetower, architectures, prefix):
    """The hub's folders name no architecture; one saved as the bare model has no prefix either."""
    wanted = parameters(bridgetower)
    edit(bridgetower / "config.json", architectures=architectures)
    stored = {key.replace("bridgetower.", prefix, 1): tensor for key, tensor in weights(bridgetower).items()}
    save_file(stored | {"mlm_score.bias": torch.zeros(30)}, bridgetower / SAFE)
    got = parameters(bridgetower)
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_a_bare_bridgetower_is_refused(bridgetower):
    edit(bridgetower / "config.json", architectures=["BridgeTowerModel"])
    stored = weights(bridgetower)
    bare = {key.removeprefix("bridgetower."): tensor for key, tensor in stored.items() if "itm_score" not in key}
    save_file(bare, bridgetower / SAFE)
    assert refusal(bridgetower).startswith("the checkpoint lacks itm_score.fc.bias, itm_score.fc.weight; ")


def test_a_q_former_without_words_is_refused(tmp_path, capfd):
    path = tiny_blip2(tmp_path / "blip2")
    capfd.readouterr()
    config = json.loads((path / "config.json").read_text())
    edit(path / "config.json", qformer_config=config["qformer_config"] | {"use_qformer_text_input": False})
    assert refusal(path) == "expected a Q-Former that reads words, as blip2's, got another"


def test_roberta_s_tokens_and_padding(tmp_path, capfd):
    """As on the hub: byte-level tokens that begin with their space, padding 1, and no tokenizer_config.json."""
    words = json.loads(shared("vocab/roberta-vocab.json").read_text(encoding="utf-8"))
    path = tiny_bridgetower(tmp_path / "roberta", vocab_size=len(words), pad_token_id=1)
    capfd.readouterr()
    write_roberta(path, words, shared("vocab/roberta-merges.txt"))
    vlm = load_vlm(path, device="cpu")
    prompts = [make_prompt(["dog", "traffic light", "tvmonitor"]), make_prompt(["cat"])]
    ids, mask, _ = vlm._tokens(prompts)
    spelled = [vlm._tokenizer.convert_ids_to_tokens(row) for row in ids.tolist()]
    assert spelled[0] == ["<s>", "A", "Ġpicture", "Ġof", "Ġdog", "Ġtraffic", "Ġlight", "Ġtv", "monitor", "</s>"]
    assert spelled[1][:6] == ["<s>", "A", "Ġpicture", "Ġof", "Ġcat", "</s>"]
    assert ids[1, 6:].tolist() == [1] * 4
    assert mask.sum(1).tolist() == [10, 6]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    both = vlm.attend(pixels, prompts)
    named = [row.nonzero().flatten().tolist() for row in both.membership[0]]
    assert named == [[4], [5, 6], [7, 8]]
    alone = vlm.attend(pixels[1:], prompts[1:])
    torch.testing.assert_close(both.match[1:], alone.match)
    torch.testing.assert_close(both.gradient[1:, :, :, :6], alone.gradient, rtol=1e-4, atol=1e-7)
    assert vlm.max_tokens == 62  # of 64 positions the first two are never a token's


def write_roberta(folder: Path, words: dict[str, int], merges: Path) -> None:
    pairs = [tuple(line.split()) for line in merges.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    tokenizer = Tokenizer(models.BPE(words, [pair for pair in pairs if len(pair) == 2]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pad_token": None}, "padding token"),
        ({"model_input_names": ["input_ids"]}, "attention_mask"),
        ({"tokenizer_class": "ByT5Tokenizer"}, "offset_mapping"),
    ],
)
def test_a_tokenizer_that_cannot_do_what_is_asked(tmp_path, capfd, changes, reason):
    folder = tiny_blip(tmp_path, words=[f"word{number}" for number in range(300)])
    capfd.readouterr()
    edit(folder / "tokenizer_config.json", **changes)
    text = refusal(folder)
    assert text.startswith("the tokenizer cannot be used (")
    assert reason in text
    assert text.endswith(AGAIN)


def test_a_dual_encoder_s_tokenizer_is_looked_at_as_well(tmp_path, capfd):
    folder = tiny_clip(tmp_path)
    capfd.readouterr()
    edit(folder / "tokenizer_config.json", pad_token=None)
    with pytest.raises(ModelError, match="the tokenizer cannot be used .*padding token"):
        load_clip(folder, "cpu")


def test_a_tokenizer_of_more_words_than_the_model(folder):
    write_tokenizer(folder, [*WORDS, "one", "two", "three"])
    vlm = load_vlm(folder, device="cpu")
    with pytest.raises(ModelError, match="it has a token 32, and the model 32 tokens"):
        vlm.attend(vlm.prepare(np.zeros((9, 9, 3), np.uint8))[None], [make_prompt(["three"])])


@pytest.mark.parametrize("key", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", ["abc", [None, 1, 1], [[1], [1], [1]], {"r": 1}, 7, [1, 1], [1e300, 1, 1]])
def test_colours_that_are_no_numbers(folder, key, value):
    edit(folder / "preprocessor_config.json", **{key: value})
    assert refusal(folder).startswith("expected three numbers for image_mean, and above 0 for image_std, got ")


@pytest.mark.parametrize("known", ["dog", [1, 2], {"dog": 1}, 5])
def test_known_classes_that_are_no_names(folder, known):
    edit(folder / "config.json", known_classes=known)
    assert refusal(folder).startswith("expected a list of names as known_classes, got ")
