"""CLIP's towers opened up, against transformers' own forward."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate, normalize

from peers import error, golden
from pnp_ovss import InputError, load_vlm
from pnp_ovss.mini import draw
from pnp_ovss.models import loading
from pnp_ovss.models.clip import Clip, ensemble, load_clip, positions
from shared import shared
from tiny import tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(tiny_clip(tmp_path_factory.mktemp("clip")), device="cpu")


def test_the_blocks_make_up_the_image_tower(clip):
    pixels = torch.rand(2, 3, 32, 32)
    tokens = clip.run(clip.embed(pixels), 0, clip.blocks)
    with torch.no_grad():
        whole = clip._model.vision_model(pixel_values=pixels)
    torch.testing.assert_close(tokens, whole.last_hidden_state)
    torch.testing.assert_close(normalize(clip.project(tokens)[:, 0], dim=-1), clip.encode_images(pixels))


def test_what_the_blocks_add_up_is_float32_in_any_dtype():
    exact, half = (load_clip("mini-clip", "cpu", dtype) for dtype in ("float32", "bfloat16"))
    pixels = torch.stack([exact.prepare(draw(1, index, 64).image) for index in range(4)])
    expected, tokens = (clip.run(clip.embed(pixels), 0, clip.blocks) for clip in (exact, half))
    assert half.qkv(0, tokens)[0].dtype == torch.bfloat16
    assert tokens.dtype == torch.float32
    with torch.no_grad():
        whole = half._model.vision_model(pixel_values=pixels.bfloat16()).last_hidden_state
    # The mean over all values: the largest difference is one value's rounding, which CPUs do in their own ways.
    assert (tokens - expected).square().mean().sqrt() < 0.9 * (whole - expected).square().mean().sqrt()


def test_what_does_not_fill_a_patch_is_left_out(clip):
    pixels = torch.rand(1, 3, 32, 32)
    wider = torch.nn.functional.pad(pixels, (0, 7, 0, 3), value=1.0)
    torch.testing.assert_close(clip.embed(wider), clip.embed(pixels))


def test_positions_of_as_many_cells_are_taken_as_they_are():
    table = torch.rand(17, 3)
    assert positions(table, 4, 4) is table
    assert positions(table, 2, 8) is table
    assert positions(table, 4, 4, by_size=True) is table
    assert positions(table, 2, 8, by_size=True) is not table


def test_positions_of_other_grids_are_interpolated(clip):
    table = torch.rand(17, 3)
    square = table[1:].T.view(1, 3, 4, 4)
    by_size = interpolate(square, size=(5, 7), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(positions(table, 5, 7, by_size=True)[1:], by_size)
    by_factor = positions(table, 5, 7)
    assert by_factor.shape == (36, 3)
    assert torch.equal(by_factor[0], table[0])
    assert 0.001 < error(by_factor[1:], by_size.numpy()) < 0.2  # close, but another thing
    embeddings = clip._model.vision_model.embeddings
    theirs = embeddings.interpolate_pos_encoding(torch.empty(1, 36, 16), 40, 56)[0]
    torch.testing.assert_close(positions(embeddings.position_embedding.weight, 5, 7, by_size=True), theirs)


def test_the_vector_of_a_word_is_the_direction_of_the_mean_over_templates(clip):
    templates = ("a picture of a {}.", "the {}", "{}")
    texts = [template.replace("{}", word) for word in ("dog", "cat") for template in templates]
    expected = normalize(clip.encode_texts(texts).view(2, 3, -1).mean(1), dim=-1)
    torch.testing.assert_close(clip.encode_words(["dog", "cat"], templates), expected)


def test_words_are_encoded_once(clip, monkeypatch):
    read = []
    encode = clip.encode_texts
    monkeypatch.setattr(clip, "encode_texts", lambda texts, unit: read.extend(texts) or encode(texts, unit))
    first = clip.encode_words(["tree", "sky", "tree"], ["a {}"])
    again = clip.encode_words(["sky", "boat"], ["a {}"])
    other = clip.encode_words(["sky"], ["the {}"])
    assert read == ["a tree", "a sky", "a boat", "the sky"]
    assert torch.equal(first[1], again[0])
    assert torch.equal(first[0], first[2])
    assert not torch.allclose(first[1], other[0])


def test_vectors_of_many_words_are_kept_for_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("pnp_ovss.models.kept.cache_folder", lambda kind: tmp_path / "cache")
    folder, words, templates = tiny_clip(tmp_path / "clip"), ("dog", "cat"), [f"{{}} {n}" for n in range(129)]
    read = []

    def vectors(folder=folder, templates=templates):
        clip = load_clip(folder, device="cpu")
        encode = clip.encode_texts
        monkeypatch.setattr(clip, "encode_texts", lambda texts, unit: read.append(len(texts)) or encode(texts, unit))
        return clip.encode_words(words, templates)

    first = vectors()
    assert torch.equal(vectors(), first)
    assert read == [258]
    [kept] = (tmp_path / "cache").iterdir()
    kept.write_bytes(b"damaged")
    assert torch.equal(vectors(), first)
    vectors(templates=templates[::-1])
    vectors(tiny_clip(tmp_path / "other", seed=1))
    assert read == [258] * 4
    vectors(templates=templates[:128])
    assert len(list((tmp_path / "cache").iterdir())) == 3  # not those of few texts


def test_where_nothing_can_be_kept_vectors_are_encoded(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("pnp_ovss.models.kept.cache_folder", lambda kind: tmp_path / "file" / "no folder")
    clip = load_clip(tiny_clip(tmp_path / "clip"), device="cpu")
    assert clip.encode_words(["dog"], [f"{{}} {n}" for n in range(257)]).shape == (1, 8)


def test_a_model_that_knows_few_words_says_so(tmp_path):
    few = load_clip(tiny_clip(tmp_path, known=["dog"]), device="cpu")
    with pytest.raises(InputError, match="cannot know 'cat'; it knows dog"):
        few.encode_words(["dog", "cat"], ["{}"])


def test_text_vectors_are_the_official_ones():
    arrays, _ = golden("text")
    clip = load_clip(Path(shared("golden/peers/clip-tiny")), device="cpu")
    ids = torch.from_numpy(arrays["tokens"]).long()
    vectors = clip.encode_tokens(ids.flatten(0, 1), (ids.flatten(0, 1) != 0).long()).unflatten(0, ids.shape[:2])
    assert error(vectors[0], normalize(torch.from_numpy(arrays["encoded_first"]), dim=-1).numpy()) < 1e-5
    assert error(ensemble(vectors), arrays["features"]) < 1e-5


def test_a_cpu_that_computes_with_bfloat16_takes_it_for_a_large_clip_by_itself(tmp_path, monkeypatch, tiny_blip_folder):
    folder = tiny_clip(tmp_path)
    monkeypatch.setattr(loading, "has_bfloat16", lambda: True)
    assert load_clip(folder, "cpu").dtype == torch.float32
    monkeypatch.setattr(loading, "LARGE", 0)
    assert load_clip(folder, "cpu").dtype == torch.bfloat16
    assert load_clip(folder, "cpu", "float32").dtype == torch.float32
    assert load_vlm(tiny_blip_folder, "cpu")._model.dtype == torch.float32
    monkeypatch.setattr(loading, "has_bfloat16", lambda: False)
    assert load_clip(folder, "cpu").dtype == torch.float32
