"""A dress rehearsal: every short name from a hub whose repositories are laid out as the public ones, old forms and all.

What their files are like is in ``tests/published.py``; only their weights are small and random.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nightly
from hub_server import Repository
from pnp_ovss import ModelError, load_method, load_vlm
from pnp_ovss.cli import main
from pnp_ovss.methods.on_clip import eight_bit
from pnp_ovss.methods.pnp import make_prompt
from pnp_ovss.mini import draw
from pnp_ovss.models.blip import Captioner, mended
from pnp_ovss.models.clip import load_clip
from pnp_ovss.models.groupvit import load_groupvit
from pnp_ovss.models.hub import SHIPPED, SHORT_NAMES
from pnp_ovss.models.loading import load_tokenizer
from published import BLIP_SHAPE, CLIP_ENDS, MEAN, PUBLISHED, STD, bert, clip_bpe, publish, roberta
from terminal import errors_of

SMALL = ("--refine", "none", "--present", "all", "--device", "cpu")
WINDOW = ("--templates", "a photo of a {}.", "--background", "never", "--device", "cpu")
ON_CLIP = ("--short-side", "32", "--crop", "0", *WINDOW)
REGIONS = (
    *("--model", "mini-blip", "--refine", "regions", "--regions", "sam"),
    "--regions-points",
    "2",
    "--present",
    "all",
)
KIND = {
    "blip": ("--size", "32", *SMALL),
    "bridgetower": ("--size", "32", *SMALL),
    "vilt": ("--size", "32", *SMALL),
    "blip-2": ("--size", "28", *SMALL),
    "clip": ("--method", "maskclip", *ON_CLIP),
    "groupvit": ("--method", "groupvit", *ON_CLIP),
    "vit": ("--method", "proxyclip", "--model", "mini-clip", "--short-side", "112", "--crop", "0", *WINDOW),
    "dinov2": ("--method", "proxyclip", "--model", "mini-clip", "--short-side", "112", "--crop", "0", *WINDOW),
    "sam": REGIONS,
    "sam2": REGIONS,
}
"""Flags for a photo by family."""
FLAG = {"vit": "--proxy", "dinov2": "--proxy", "sam": "--regions-model", "sam2": "--regions-model"}
"""What names the model, where it is not ``--model``."""


QUICK = ("blip-base-flickr", "bridgetower-large", "vilt-flickr", "blip2-coco", "clip-large", "dino-base", "dinov2-base")
QUICK += ("sam-base", "sam2-tiny", "blip-caption-large", "groupvit-redcaps")
"""One of each family, the hardest; the others in the slow run."""


def each(*names: str) -> list:
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


@pytest.fixture
def published(hub, tmp_path, capfd, monkeypatch):
    """Return what puts the repository of a short name on the hub."""
    monkeypatch.setattr("pnp_ovss.models.blip.SHAPE", BLIP_SHAPE)

    def put(name: str) -> Repository:
        if name not in PUBLISHED:  # in the package
            return Repository(Path())
        source, folder = publish(name, tmp_path / name)
        hub.repositories[source] = Repository(folder)
        capfd.readouterr()
        return hub.repositories[source]

    return put


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(draw(seed=2, index=0, size=64).image).save(path)
    return path


def test_every_short_name_is_rehearsed():
    shipped = {name for name, model in SHORT_NAMES.items() if isinstance(model.source, Path)}
    assert set(PUBLISHED) == set(SHORT_NAMES) - shipped
    assert {model.family for model in SHORT_NAMES.values()} == {*KIND, "captioner"}
    assert {SHORT_NAMES[name].family for name in QUICK} == {*KIND, "captioner"}


@pytest.mark.parametrize("name", each(*SHORT_NAMES))
def test_a_short_name_is_fetched_loaded_and_segments_a_photo(hub, published, photo, tmp_path, capfd, name):
    repository, model = published(name), SHORT_NAMES[name]
    names, out = ("--classes", "dog, cat"), tmp_path / "out"
    if model.family == "captioner":
        arguments = ("name", str(photo), "--namer", "caption", "--namer-model", name, "--keep", "0", "--device", "cpu")
    else:
        own = (FLAG.get(model.family, "--model"), name, *(("--size", "112") if model.preset.startswith("mini") else ()))
        arguments = ("segment", str(photo), *names, *KIND[model.family], *own, "--out", str(out))
    assert main(list(arguments)) == 0, errors_of(capfd)
    if model.family != "captioner":
        assert np.array(Image.open(out / "photo.png")).shape == (64, 64)
    # Nothing is asked for but what is needed: no other framework's weights, and one form of them.
    fetched = hub.fetched()
    assert len(fetched) == len(set(fetched))
    forms = {file.rpartition(".")[2] for file in fetched if repository.folder and file not in ("vocab.txt",)}
    assert forms <= {"json", "safetensors", "bin", "txt"}
    assert not {"safetensors", "bin"} <= forms
    assert hub.strays == []
    assert [line for line in errors_of(capfd) if not line.startswith("pnp-ovss: ")] == []  # of no library
    assert main(["models"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith(f"{name} ")]
    if model.checked:
        [line] = lines
        assert line[1] == model.family
        assert {"cached", "shipped"} & set(line)
    assert main(["doctor"]) == 0
    assert name in capfd.readouterr().out.partition("models here")[2].partition("\n")[0]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "groupvit-yfcc")) for name in nightly.MODELS]
)
def test_the_night_run_measures_its_models_on_three_scenes(published, monkeypatch, name):
    repository = published(name)
    monkeypatch.setattr(nightly, "SIDE", 64)
    measured = nightly.scene_maps(nightly.MODELS[name], name)
    assert str(measured["about"]) == repository.commit
    assert all(np.isfinite(measured[number]).all() for number in "012")
    assert any(measured[number].any() for number in "012")  # of random weights few heads raise a match


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    files = list(folder.glob("*.safetensors"))
    parts = [load_file(file) for file in files] or [torch.load(folder / "pytorch_model.bin", weights_only=True)]
    return {name: one for part in parts for name, one in part.items()}


@pytest.mark.parametrize("name", each(*(name for name, one in SHORT_NAMES.items() if one.preset and name in PUBLISHED)))
def test_the_weights_of_a_vlm_are_those_of_its_repository(published, name):
    stored = weights_of(published(name).folder)
    vlm = load_vlm(name, device="cpu")
    got = vlm._model.state_dict()
    assert got.keys() < stored.keys()  # position ids are left out
    assert all(torch.equal(got[key], stored[key].float()) for key in got)


def test_the_words_of_blip_have_twelve_heads_whatever_its_settings_say(hub, published, tmp_path):
    folder = published("blip-base-flickr").folder
    assert json.loads((folder / "config.json").read_text())["text_config"]["num_attention_heads"] == 8
    right = tmp_path / "right"
    PUBLISHED["blip-base-coco"](right)  # the same weights, and 12
    hub.repositories["owner/blip"] = Repository(folder)
    pixels, prompts = torch.randn(1, 3, 32, 32), [make_prompt(["dog", "cat"])]
    wanted = load_vlm(right, device="cpu")
    for name in ("blip-base-flickr", SHORT_NAMES["blip-base-flickr"].source, "owner/blip", folder):
        vlm = load_vlm(name, device="cpu")
        assert vlm.heads == wanted.heads == 12
        assert torch.equal(vlm.match(pixels, prompts), wanted.match(pixels, prompts))


def test_settings_of_blip_are_put_right_for_the_authors_models_alone():
    """By their shape: a folder or another hub id holds them as well. Somebody's own model may have 8 heads."""
    right = {"text_config": {"num_attention_heads": 12}, "vision_config": {"layer_norm_eps": 1e-6}}
    wrong = {"text_config": {"num_attention_heads": 8}, "vision_config": {"layer_norm_eps": 1e-5}}
    assert mended(wrong) == mended({"text_config": None}) == mended({}) == mended(right) == right
    sizes = {"hidden_size": 768, "vocab_size": 30524}
    written = {name: part | (sizes if name == "text_config" else {}) for name, part in wrong.items()}
    assert mended(written)["text_config"] == sizes | right["text_config"]
    for own in ({"hidden_size": 512}, {"vocab_size": 30522}, {"vocab_size": "many"}):
        settings = wrong | {"text_config": wrong["text_config"] | own}
        assert mended(settings) == settings
    shipped = json.loads((SHIPPED / "mini-blip" / "config.json").read_text())
    assert mended(shipped) == shipped
    assert mended({"text_config": 5}) == {"text_config": 5}  # which loading refuses


def test_the_image_tower_of_blip_has_the_epsilon_of_the_authors_code(published):
    settings = json.loads((published("blip-large-coco").folder / "config.json").read_text())
    assert settings["vision_config"]["layer_norm_eps"] == 1e-5
    model = load_vlm("blip-large-coco", device="cpu")._model
    for part, epsilon in ((model.vision_model, 1e-6), (model.text_encoder, 1e-12)):
        assert {one.eps for one in part.modules() if isinstance(one, torch.nn.LayerNorm)} == {epsilon}


def test_so_have_those_of_its_captioner(published):
    config = Captioner(published("blip-caption-large").folder, "cpu")._model.config
    assert (config.text_config.num_attention_heads, config.text_config.sep_token_id) == (12, 3)
    assert config.vision_config.layer_norm_eps == 1e-6


@pytest.mark.parametrize("name", ["clip-base", "clip-large", "groupvit-yfcc", "groupvit-redcaps"])
def test_a_text_is_what_its_end_token_holds_though_the_settings_call_another_one_the_end(published, name):
    """The end is not 2, as ``config.json`` says, but the highest id, which pads as well."""
    published(name)
    load = load_clip if name.startswith("clip") else load_groupvit
    model = load(name, "cpu")
    texts = ["dog", "a dog and a cat"]
    tokens = model.tokenize(texts)
    ends = (tokens["input_ids"] == CLIP_ENDS[1]).int().argmax(1)
    assert ends.tolist() == [2, 7 + 1]
    assert tokens["input_ids"][0, 3:].tolist() == [CLIP_ENDS[1]] * (tokens["input_ids"].shape[1] - 3)
    with torch.no_grad():
        hidden = model._model.text_model(**tokens).last_hidden_state
        wanted = model._model.text_projection(hidden[torch.arange(2), ends])
    torch.testing.assert_close(model.encode_texts(texts, unit=False), wanted)
    torch.testing.assert_close(model.encode_texts(texts[:1], unit=False), wanted[:1])


@pytest.mark.parametrize(("kind", "spelled"), [
    (bert, ["[CLS]", "a", "dog", "car", "##t", "[SEP]"]),
    (roberta, ["<s>", "a", "Ġdog", "Ġca", "r", "t", "</s>"]),
    (clip_bpe, ["<|startoftext|>", "a</w>", "dog</w>", "ca", "r", "t</w>", "<|endoftext|>"]),
])  # fmt: skip
def test_a_tokenizer_is_the_same_with_and_without_a_tokenizer_json(tmp_path, kind, spelled):
    found = []
    for whole in (True, False):
        folder = tmp_path / str(whole)
        folder.mkdir()
        kind(folder, whole)
        assert (folder / "tokenizer.json").is_file() == whole
        tokenizer = load_tokenizer(folder, "here")
        one = tokenizer("a dog cart", return_offsets_mapping=True)
        assert tokenizer.convert_ids_to_tokens(one["input_ids"]) == spelled
        found.append((one["input_ids"], one["offset_mapping"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("lacking", ["vocab.json", "merges.txt"])
def test_half_a_tokenizer_is_none(published, lacking):
    (published("clip-large").folder / lacking).unlink()
    with pytest.raises(ModelError, match="clip-large: expected a tokenizer.json, got none; fetch it"):
        load_clip("clip-large", "cpu").tokenize(["dog"])


def test_pairs_are_fetched_only_where_they_make_the_tokenizer(hub, published):
    published("bridgetower-base")
    load_vlm("bridgetower-base", device="cpu")
    assert not {"vocab.json", "merges.txt"} & set(hub.fetched())


def test_safetensors_may_lie_in_a_revision_of_their_own(hub, published, tmp_path):
    """As where the hub's own converter has asked for them to be taken: ``refs/pr/N`` is a revision like others."""
    repository = published("vilt-coco")
    other = tmp_path / "other"
    PUBLISHED["vilt-coco"](other)
    weights = {name: 2 * one for name, one in torch.load(other / "pytorch_model.bin", weights_only=True).items()}
    save_file(weights, other / "model.safetensors")
    repository.others["refs/pr/3"] = Repository(other, commit="b" * 40)
    vlm = load_vlm("vilt-coco", device="cpu", revision="refs/pr/3")
    assert vlm.revision == "b" * 40
    assert "pytorch_model.bin" not in hub.fetched()
    name = "rank_output.weight"
    assert torch.equal(vlm._model.state_dict()[name], weights[name])
    assert torch.equal(load_vlm("vilt-coco", device="cpu")._model.state_dict()[name], weights[name] / 2)
    hub.forget()
    assert load_vlm("vilt-coco", device="cpu", revision="refs/pr/3").revision == "b" * 40
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("name", "mean"), [("blip-base-coco", MEAN), ("vilt-coco", [0.5] * 3), ("bridgetower-base", MEAN)]
)
def test_colours_are_normalised_as_an_old_feature_extractor_says(published, name, mean):
    published(name)
    assert load_vlm(name, device="cpu").mean == mean


@pytest.mark.parametrize("name", ["bridgetower-large", "bridgetower-large-itc"])
def test_the_large_bridgetowers_are_bare_and_have_the_colours_of_clip(published, name):
    folder = published(name).folder
    small = {"config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json"}
    assert {path.name for path in folder.glob("*.json")} == small
    assert not {path.name for path in folder.glob("*.txt")}
    assert "image_mean" not in json.loads((folder / "preprocessor_config.json").read_text())
    vlm = load_vlm(name, device="cpu")
    assert ([*vlm.mean], [*vlm.std]) == (MEAN, STD)
    ids = vlm.tokenize(["dog", "a dog cart"])["input_ids"]
    assert vlm._tokenizer.convert_ids_to_tokens(ids[1]) == ["<s>", "a", "Ġdog", "Ġca", "r", "t", "</s>"]
    assert ids[0, -1] == vlm._pad == 1


def test_groupvit_sees_imagenet_s_colours_though_its_repository_says_clip_s(published):
    """So does whatever compares photos with words: ``prepare`` and the windows are normalised with the same numbers."""
    stored = json.loads((published("groupvit-yfcc").folder / "preprocessor_config.json").read_text())
    assert stored["image_mean"] == MEAN
    method = load_method("groupvit", "groupvit-yfcc", device="cpu", short_side=32, crop=0)
    assert (method.clip.mean, method.clip.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert type(method).normalisation is None
    assert eight_bit(method.clip) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def test_vilt_has_the_epsilons_of_the_authors_code(published):
    """timm's in the transformer, BERT's for the words; ``config.json`` knows the second one alone."""
    published("vilt-coco")
    vilt = load_vlm("vilt-coco", device="cpu")._model.vilt
    epsilons = {name: one.eps for name, one in vilt.named_modules() if isinstance(one, torch.nn.LayerNorm)}
    words = epsilons.pop("embeddings.text_embeddings.LayerNorm")
    assert (words, {*epsilons.values()}) == (1e-12, {1e-6})


def test_blip2_has_minimal_settings_and_older_weights_beside_its_own(hub, published):
    folder = published("blip2").folder
    settings = json.loads((folder / "config.json").read_text())
    assert settings["text_config"] == {"model_type": "opt"}
    assert "patch_size" not in settings["vision_config"]
    assert (folder / "pytorch_model.bin").stat().st_size > (folder / "model.safetensors").stat().st_size
    vlm = load_vlm("blip2", device="cpu")
    assert (vlm.patch, vlm.heads, vlm.layers) == (14, 12, 5)
    assert "pytorch_model.bin" not in hub.fetched()
    assert vlm._tokenizer.convert_ids_to_tokens(vlm._words - 1) == vlm._tokenizer.bos_token == "[DEC]"


@pytest.mark.parametrize("name", [name for name, one in SHORT_NAMES.items() if isinstance(one.source, Path)])
def test_parameters_of_a_shipped_model_are_those_of_its_file(name):
    if SHORT_NAMES[name].millions:
        counted = sum(one.numel() for one in weights_of(SHIPPED / name).values())
        assert round(counted / 1e6, 1) == SHORT_NAMES[name].millions
