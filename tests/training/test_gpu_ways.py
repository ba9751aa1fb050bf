"""What a GPU run does otherwise than one on CPU cores, tried on a CPU: the same steps from the same batches."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pnp_ovss.mini.scenes import SIMILAR, STUFF, THINGS
from training.ahead import batches, whole_batch
from training.batches import Batch, joined, make_batch, normalise
from training.captions import NAMES
from training.config import TRAIN_SEED, TrainConfig
from training.export import WEIGHTS, export
from training.losses import by_shard, contrast_loss, tokens_for_match
from training.model_bridgetower import image_tower
from training.model_clip import MiniClip
from training.recipes import RECIPES
from training.scene_cache import DrawnScenes, draw_scenes, open_scenes
from training.tokenizer import build_tokenizer
from training.train import Trainer, main

TINY = TrainConfig(
    steps=8,
    image_size=32,
    width=64,
    layers=4,
    heads=2,
    scenes=8,
    batch=8,
    warmup=2,
    match_from=2,
    explain=2,
    fade_from=4,
    seed=TRAIN_SEED,
)


@pytest.fixture(scope="module")
def scenes() -> DrawnScenes:
    return draw_scenes(TRAIN_SEED, 8, TINY.image_size)


def equal(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_joined_shards_are_each_as_they_were_with_longer_padding(scenes: DrawnScenes):
    tokenizer = build_tokenizer()
    for step in (0, 5, 7):  # with patches left out, with attention taken away, with neither
        shards = [make_batch(scenes, tokenizer, TINY, step, shard) for shard in (0, 1)]
        whole = joined(shards)
        assert (len(whole.images), whole.shards) == (8, 2)
        for k, shard in enumerate(shards):
            rows, t, s = slice(4 * k, 4 * k + 4), shard.ids.shape[-1], shard.sentence_ids.shape[-1]
            assert torch.equal(whole.pixels[rows], shard.pixels)
            assert torch.equal(whole.ids[rows, :, :t], shard.ids)
            assert not whole.ids[rows, :, t:].any()
            assert not whole.mask[rows, :, t:].any()
            assert (whole.said[rows, :, t:] == -1).all()
            assert torch.equal(whole.sentence_ids[rows, :s], shard.sentence_ids)
            assert not whole.sentence_mask[rows, s:].any()
            for name in ("keep", "stays"):
                part, own = getattr(whole, name), getattr(shard, name)
                assert (part is None) == (own is None) == (step == 7 if name == "keep" else step < 4)
                assert part is None or torch.equal(part[rows], own)


def test_pixels_are_mirrored_tinted_and_normalised(scenes: DrawnScenes):
    batch = make_batch(scenes, build_tokenizer(), replace(TINY, hide=0.0), 0, 0)
    flat = batch.mirrored.flatten()
    assert flat.any()
    assert not flat.all()
    for k, turned in enumerate(flat.tolist()):
        image = batch.images[k].permute(2, 0, 1).float() / 255
        seen = (image.flip(-1) if turned else image) * batch.gain[k] + batch.shift[k]
        torch.testing.assert_close(batch.pixels[k], normalise(seen.clamp(0, 1)))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_all_shards_at_once_give_the_mean_gradient_of_each_alone(
    name: str, tmp_path: Path, scenes: DrawnScenes, monkeypatch: pytest.MonkeyPatch
):
    """Before the match, with it, with attention taken away, and while explaining; in float32, to see it exactly."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.enable_grad())
    recipe = RECIPES[name].config
    phases = {"pairs": recipe.pairs, "contrast": recipe.contrast, "fade_none": recipe.fade_none}
    config = replace(TINY, name=name, look_layers=recipe.look_layers, explain=min(2, recipe.explain), **phases)
    trainer = Trainer(config, scenes, tmp_path)
    with torch.no_grad():
        trainer.model.tagger.weight.mul_(200)  # sure of itself, so that names are shown
    for step in (0, 3, 5, 7):
        trainer.step = step
        (alone, logs), (once, log) = trainer.in_threads(), trainer.in_one_pass()
        assert set(logs) == set(log)
        assert step < 3 or name == "mini-clip" or logs["look"] > 0
        for part in log:
            torch.testing.assert_close(log[part].double(), logs[part], rtol=1e-4, atol=1e-6)
        for one, other in zip(alone, once, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(other, one, rtol=1e-3, atol=2e-5)
                assert other.is_contiguous()  # as the fused optimiser wants it


def test_a_loss_by_shards_does_not_look_across_them():
    torch.manual_seed(0)
    image, text = torch.randn(2, 6, 5).unbind()
    present = torch.rand(6, 4) < 0.5
    halves = [contrast_loss(image[k], text[k], present[k], 0.1) for k in (slice(0, 3), slice(3, 6))]
    found = by_shard(contrast_loss, 2, image, text, present, 0.1)
    torch.testing.assert_close(found, torch.stack(halves).mean())
    assert not torch.allclose(found, contrast_loss(image, text, present, 0.1))
    torch.testing.assert_close(
        by_shard(lambda some, x: some[0].max() * x.max(), 2, [torch.arange(4.0)], torch.tensor([1.0, 1, 2, 2])),
        torch.tensor((1 * 1 + 3 * 2) / 2),
    )


def test_an_image_is_given_the_cls_of_another_one_of_its_shard(scenes: DrawnScenes):
    batch = whole_batch(scenes, build_tokenizer(), TINY, 5)
    marks = torch.arange(8.0)[:, None, None].expand(8, 3, 2)  # (image, token, width)
    shown, stays = tokens_for_match(marks, batch, TINY, 5)
    assert shown[:, 0, 0].tolist() == [3, 0, 1, 2, 7, 4, 5, 6]
    assert torch.equal(shown[:, 1:], marks[:, 1:])
    assert stays is not None
    assert batch.stays is not None
    assert torch.equal(stays, torch.cat([torch.ones(8, 1), batch.stays], 1))


@pytest.mark.slow
def test_batches_made_ahead_are_those_made_in_place(tmp_path: Path):
    scenes = open_scenes(tmp_path / "scenes", TRAIN_SEED, 8, TINY.image_size, workers=1)
    config = replace(TINY, steps=6, explain=1)
    found = list(batches(scenes, config, 2, workers=1))
    assert len(found) == 4
    assert all(equal(made, whole_batch(scenes, build_tokenizer(), config, 2 + k)) for k, made in enumerate(found))


def test_bridgetower_sees_through_the_clip_of_its_own_run(tmp_path: Path, scenes: DrawnScenes):
    config = replace(TINY, name="mini-bridgetower", image_tower="mini-clip")
    with pytest.raises(
        SystemExit, match=r"taken over from .*mini-clip, which has no model.safetensors; train mini-clip"
    ):
        Trainer(config, scenes, tmp_path, tmp_path)
    torch.manual_seed(7)
    clip = MiniClip(config).half().float()
    export(clip, build_tokenizer(), config, tmp_path / "mini-clip")
    assert (tmp_path / "mini-clip" / WEIGHTS).exists()
    trainer = Trainer(config, scenes, tmp_path, tmp_path)
    found = trainer.model.model.bridgetower.vision_model.visual.state_dict()
    for name, value in image_tower(clip.model.state_dict()).items():
        assert torch.equal(found[name], value)


def test_names_are_numbered_as_the_scenes_have_them():
    assert (*THINGS, *STUFF) == NAMES
    assert set(SIMILAR) <= set(NAMES)


def test_a_gpu_that_is_not_there_is_asked_for_in_vain(capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["--device", "cuda"])
    assert "finds no CUDA device; give cpu" in capsys.readouterr().err
