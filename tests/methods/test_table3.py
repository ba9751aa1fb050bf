"""The trained systems of Table 3 against their authors' code: GroupViT, CLIPpy, TCL, SegCLIP, OVSegmentor, ReCo."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peers import error, method_on
from pnp_ovss import METHODS, Vocabulary
from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.methods.groups import group_scores, with_background
from pnp_ovss.models.clip import ensemble
from released import released, released_tcl
from shared import shared

CLOSE = 1e-5
WORDS = Vocabulary.of(list("abcdefghi"))


def golden(system: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the sizes of a system's case."""
    folder = shared(f"golden/peers/{system}")
    with np.load(folder / "golden-a.npz") as arrays:
        return dict(arrays), json.loads((folder / "case.json").read_text())["a"]


def at_photo(
    method: Any, pixels: np.ndarray, texts: np.ndarray, vocabulary: Vocabulary, size: tuple[int, int]
) -> Tensor:
    """Return the scores of a picture at the size of its photo, before the softmax over the words."""
    method.prepare = lambda image: torch.from_numpy(pixels[0])
    method.clip.encode_words = lambda words, templates, unit=True: torch.from_numpy(texts[: len(words)])
    maps = method.class_maps([np.zeros((*size, 3), np.uint8)], [vocabulary])[0]
    return method._spread(maps.windows, maps.rows, maps.columns, size)


def same_labels(scores: Tensor, official: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether labels agree wherever the two best scores are apart."""
    best = torch.from_numpy(official).topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-5 * best.max()
    assert clear.float().mean() > 0.5
    return bool((scores.argmax(0) == torch.from_numpy(labels))[clear].all())


GROUPVIT = {"crop": 64, "stride": 32}


@pytest.fixture
def groupvit() -> Any:
    return method_on("groupvit", shared("golden/peers/groupvit/weights-a"), **GROUPVIT)


def test_groupvit_s_words_are_the_official_ones():
    arrays, _ = golden("groupvit")
    clip = method_on("groupvit", shared("golden/peers/groupvit/weights-a")).clip
    ids = torch.from_numpy(arrays["input_ids"][:, 0])
    assert error(clip.encode_tokens(ids, (ids != 0).long()), arrays["text_embedding"]) < CLOSE


def test_groupvit_s_groups_are_the_official_ones(groupvit):
    arrays, _ = golden("groupvit")
    groups, image, shares = groupvit.clip.encode_groups(torch.from_numpy(arrays["image"][..., :64, :64]))
    for ours, theirs in ((groups, "crop_group_embeds"), (image, "crop_image_embed")):
        official = torch.nn.functional.normalize(torch.from_numpy(arrays[theirs]), dim=-1)
        assert error(ours, official.numpy()) < CLOSE
    enlarged = torch.nn.functional.interpolate(shares, size=(64, 64), mode="bilinear")
    assert error(enlarged[0], arrays["crop_map"]) < CLOSE


@pytest.mark.parametrize(
    ("case", "settings"),
    [("bg95", {"prob_threshold": 0.95}), ("bg35", {"prob_threshold": 0.35}), ("nobg", {"background": "never"})],
)
def test_groupvit_s_maps_are_the_official_ones(case, settings):
    arrays, sizes = golden("groupvit")
    method = method_on("groupvit", shared("golden/peers/groupvit/weights-a"), **GROUPVIT, **settings)
    scores = at_photo(method, arrays["image"], arrays["text_embedding"], WORDS, tuple(sizes["ori"]))
    assert error(scores, arrays[f"full_{case}"]) < CLOSE
    assert same_labels(scores, arrays[f"full_{case}"], arrays[f"labels_{case}"])


def test_groupvit_of_a_whole_picture_is_the_official_one():
    arrays, sizes = golden("groupvit")
    method = method_on("groupvit", shared("golden/peers/groupvit/weights-a"), crop=0, prob_threshold=0.35)
    scores = at_photo(method, arrays["whole_image"], arrays["text_embedding"], WORDS, tuple(sizes["whole"]))
    assert error(scores, arrays["whole_bg35"]) < CLOSE


def test_only_the_words_nearest_to_the_window_score():
    texts = torch.eye(7)
    image = torch.tensor([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    scores = group_scores(texts[None, :1], image, texts, 0.0)[0, :, 0]
    torch.testing.assert_close(scores, torch.tensor([1 / 35] * 5 + [0.0] * 2))


def test_the_best_group_of_a_window_is_never_background():
    scores = torch.tensor([[[0.2, 0.5, 0.9], [0.3, 0.4, 0.0]]])
    assert with_background(scores, 0.95)[0, 0].tolist() == [1, 1, 0]
    assert with_background(scores, 0.4)[0, 0].tolist() == [1, 0, 0]


def test_clippy_is_the_official_one(tmp_path):
    arrays, _ = golden("clippy")
    method = method_on("clippy", released("clippy", tmp_path), crop=0)
    ids, mask = (torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask"))
    assert error(method.clip.encode_tokens(ids, mask), arrays["text_embedding"]) < CLOSE
    pixels = torch.from_numpy(arrays["image"])
    assert error(method.features(pixels).flatten(1, 2), arrays["patches"]) < CLOSE
    pooled = torch.nn.functional.normalize(torch.from_numpy(arrays["pooled"]), dim=-1)
    assert error(method.clip.encode_images(pixels), pooled.numpy()) < CLOSE
    for texts, name, labels in (
        ("near_text", "similarity", "labels"),
        ("text_embedding", "text_similarity", "text_labels"),
    ):
        queries = torch.from_numpy(arrays[texts])
        scores = method.slide(pixels, queries)[0]
        assert error(scores / queries.norm(), arrays[name]) < CLOSE
        best = scores.argmax(0)
        best[best >= 21] = 0
        official = torch.from_numpy(arrays[name]).topk(2, dim=0).values
        clear = official[0] - official[1] > 1e-5 * official.max()
        assert (best == torch.from_numpy(arrays[labels]))[clear].all()


def test_clippy_s_background_is_any_other_class_of_context():
    words = METHODS["clippy"].presets["clippy/voc21"].background_words
    assert words[0] == "background"
    assert len(set(words) - set(class_names("voc"))) >= 40


@pytest.fixture
def tcl(tmp_path) -> Callable[..., Any]:
    """Return TCL on the golden models, with settings."""
    folder = released_tcl(tmp_path)
    return lambda **settings: method_on("tcl", folder, masker=folder / "masker", crop=64, stride=32, **settings)


def test_tcl_s_words_are_the_official_ones(tcl):
    arrays, _ = golden("tcl")
    clip, ids = tcl().clip, torch.from_numpy(arrays["input_ids"])
    clip._model.text_model.eos_token_id = 299
    texts = clip.embed_tokens(ids.flatten(0, 1), (ids.flatten(0, 1) != 0).long()).view(*ids.shape[:2], -1)
    assert error(ensemble(texts), arrays["text_embedding"]) < CLOSE


def test_tcl_s_window_is_the_official_one(tcl):
    arrays, _ = golden("tcl")
    method, texts = tcl(), torch.from_numpy(arrays["near_text"])
    encoded = method.encode(torch.from_numpy(arrays["image"][..., :64, :64]))
    decoded = torch.nn.functional.normalize(torch.from_numpy(arrays["crop_decoded"]), dim=1)
    assert error(encoded[0].movedim(-1, 1), decoded.numpy()) < CLOSE
    assert error(method.compare(encoded, texts), arrays["crop_kp"]) < CLOSE


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("pamr_bg", {"prob_threshold": 0.4}),
        ("pamr_nobg", {"background": "never"}),
        ("plain_bg", {"prob_threshold": 0.5, "window_pamr": False}),
    ],
)
def test_tcl_s_maps_are_the_official_ones(tcl, case, settings):
    arrays, sizes = golden("tcl")
    vocabulary = Vocabulary.of(list("abcd"))
    scores = at_photo(tcl(**settings), arrays["image"], arrays["near_text"], vocabulary, tuple(sizes["ori"]))
    assert error(scores, arrays[f"full_{case}"]) < CLOSE
    assert same_labels(scores, arrays[f"full_{case}"], arrays[f"labels_{case}"])


@pytest.mark.parametrize(
    ("system", "case", "crop", "settings"),
    [
        ("segclip", "bg80", 32, {"prob_threshold": 0.8}),
        ("segclip", "bg25", 32, {"prob_threshold": 0.25}),
        ("segclip", "nobg", 32, {"background": "never"}),
        ("ovsegmentor", "bg95", 64, {"prob_threshold": 0.95}),
        ("ovsegmentor", "bg35", 64, {"prob_threshold": 0.35}),
        ("ovsegmentor", "nobg", 64, {"background": "never"}),
    ],
)
def test_other_grouping_systems_are_the_official_ones(tmp_path, system, case, crop, settings):
    arrays, sizes = golden(system)
    method = method_on(system, released(system, tmp_path), crop=crop, stride=sizes.get("stride", crop), **settings)
    groups, image, shares = method.clip.encode_groups(torch.from_numpy(arrays["image"][..., :crop, :crop]))
    for ours, theirs in ((groups, ("crop_centre_embeds", "crop_group_embeds")), (image, ("crop_image_embed",))):
        official = next(torch.from_numpy(arrays[name]) for name in theirs if name in arrays)
        assert error(ours, torch.nn.functional.normalize(official, dim=-1).numpy()) < CLOSE
    assert error(shares.flatten(2), arrays["crop_attn"]) < CLOSE
    ids = torch.from_numpy(arrays["input_ids"]).view(9, -1)
    mask = torch.from_numpy(arrays["attention_mask"]) if "attention_mask" in arrays else (ids != 0).long()
    assert error(method.clip.encode_tokens(ids, mask), arrays["text_embedding"]) < CLOSE
    scores = at_photo(method, arrays["image"], arrays["text_embedding"], WORDS, tuple(sizes["ori"]))
    assert error(scores, arrays[f"full_{case}"]) < CLOSE
    assert same_labels(scores, arrays[f"full_{case}"], arrays[f"labels_{case}"])


def test_segclip_at_twice_its_size_is_the_official_one(tmp_path):
    arrays, _ = golden("segclip")
    method = method_on("segclip", released("segclip", tmp_path), crop=0, prob_threshold=0.65)
    scores = at_photo(method, arrays["big_image"], arrays["text_embedding"], WORDS, (64, 64))
    assert error(scores, arrays["big_bg65"]) < CLOSE
    assert same_labels(scores, arrays["big_bg65"], arrays["big_labels_bg65"])
