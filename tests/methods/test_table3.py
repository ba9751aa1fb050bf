"""The trained systems of Table 3 against their authors' code: GroupViT, CLIPpy, TCL, SegCLIP, OVSegmentor, ReCo."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from peers import differing, error, method_on
from pnp_ovss import METHODS, Segmenter, Vocabulary
from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.methods.groups import group_scores, with_background
from pnp_ovss.models.clip import ensemble
from released import released, released_reco, released_tcl
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


@pytest.fixture
def reco(tmp_path) -> Any:
    """Return ReCo on the golden networks and photos, the words' vectors being given."""
    arrays, sizes = golden("reco")
    folder, photos = released_reco(tmp_path / "models"), tmp_path / "photos"
    photos.mkdir()
    for number in range(sizes["archive"]):
        Image.fromarray(arrays[f"archive_{number:02d}"]).save(photos / f"{number:02d}.png")
    parts = {part: folder / part for part in ("dense", "encoder")} | {"archive": photos}
    few = {"retrieved": sizes["k"], "photo_side": sizes["size"], "context": tuple(sizes["context"])}
    method = method_on("reco", folder / "clip", short_side=sizes["image"][0], **parts, **few)
    for model, texts in ((method.clip, "retrieval_texts"), (method.dense, "dense_texts")):
        known = dict(zip(sizes["texts_order"], torch.from_numpy(arrays[texts]), strict=True))
        model.encode_words = lambda words, templates, known=known: torch.stack([known[word] for word in words])
    given = iter(torch.from_numpy(arrays["retrieval_images"]))
    method.clip.encode_images = lambda pixels: torch.stack([next(given) for _ in pixels])
    return method


def test_reco_s_networks_are_the_official_ones(reco):
    arrays, _ = golden("reco")
    for pixels, ours, theirs in (("image", reco.encoder, "encoder"), ("image", reco.dense, "dense")):
        found = ours.encode_patches(torch.from_numpy(arrays[pixels])).movedim(-1, 1)
        assert error(found, arrays[theirs]) < CLOSE
    photos = torch.stack([reco._photo(reco.archive.files[number]) for number in arrays["retrieved"][0]])
    assert error(photos, arrays["retrieved_pixels_0"]) < CLOSE
    seen = torch.nn.functional.normalize(reco.dense.encode_patches(photos), dim=-1)
    attention = reco._attention(seen, torch.from_numpy(arrays["dense_texts"][:1]))
    enlarged = torch.nn.functional.interpolate(attention, size=arrays["text_attention_0"].shape[1:], mode="bilinear")
    assert error(enlarged[:, 0], arrays["text_attention_0"]) < CLOSE


def test_reco_finds_the_photos_and_what_words_look_like(reco):
    arrays, sizes = golden("reco")
    texts = torch.from_numpy(arrays["retrieval_texts"])
    found = reco.archive.nearest(texts, sizes["k"], reco.clip)
    order = [[reco.archive.files.index(file) for file in row] for row in found]
    assert order == arrays["retrieved"].tolist()
    assert error(reco.looks(sizes["context"]), arrays["context_features"]) < CLOSE
    assert error(reco.looks(sizes["categories"]), arrays["category_features"]) < CLOSE


def test_reco_s_maps_are_the_official_ones(reco):
    arrays, sizes = golden("reco")
    photo, vocabulary = arrays["image_uint8"], Vocabulary.of(sizes["categories"])
    maps = reco.class_maps([photo], [vocabulary])[0]
    scores = reco.scores(maps, photo.shape[:2])
    assert error(scores, arrays["scores"]) < CLOSE
    assert same_labels(scores, arrays["scores"], arrays["labels"])
    likeness = reco._spread(maps.windows, maps.rows, maps.columns, photo.shape[:2])
    assert error(likeness, arrays["scores_without_text"]) < CLOSE
    queries, pixels = reco._queries(vocabulary), torch.from_numpy(arrays["image"])
    assert error(reco.slide(pixels, queries)[0], arrays["scores"]) < CLOSE
    encoder, dense = (
        torch.nn.functional.normalize(torch.from_numpy(arrays[part]), dim=1) for part in ("encoder", "dense")
    )
    looks, texts = queries.split([encoder.shape[1], dense.shape[1]], 1)
    seen = torch.sigmoid(10 * torch.einsum("bchw,qc->bqhw", dense, texts))
    likeness = torch.sigmoid(torch.einsum("bchw,qc->bqhw", encoder, looks))
    expected = likeness * torch.nn.functional.interpolate(seen, size=likeness.shape[2:], mode="bilinear")
    torch.testing.assert_close(reco.logits(pixels, queries), expected)


def test_reco_s_crf_is_the_official_one(reco):
    arrays, _ = golden("reco")
    # Its code makes pixels of colours and colours of pixels again, cut off, where our CRF sees the photo.
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    colours = ((torch.from_numpy(arrays["image"][0]) * std + mean) * 255).byte().permute(1, 2, 0)
    (crf,) = reco.config.steps()
    scores = crf(torch.from_numpy(arrays["scores"])[None], colours[None])[0]
    assert error(scores, arrays["crf"]) < 1e-4  # rounding: theirs is as far from the same in float64
    assert (scores.argmax(0) == torch.from_numpy(arrays["crf_labels"])).all()
    reco.backbone = None  # which words are there is no matter of ReCo's
    assert (
        differing(Segmenter(reco)(arrays["image_uint8"], golden("reco")[1]["categories"]), arrays["crf_labels"]) < 1e-3
    )
