"""The small dual encoder in training: its forward pass is that of what is exported, and it learns from words."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pnp_ovss.mini.scenes import draw
from pnp_ovss.models.clip import load_clip, similarity
from training.batches import make_batch
from training.captions import NAMES, PROMPT
from training.config import TRAIN_SEED, TrainConfig
from training.export import export
from training.model_clip import MiniClip, clip_loss, watch_clip
from training.scene_cache import draw_scenes
from training.tokenizer import build_tokenizer

TINY = TrainConfig(
    explain=2,
    name="mini-clip",
    steps=6,
    image_size=32,
    width=16,
    layers=2,
    heads=2,
    scenes=8,
    batch=8,
    shards=1,
    keep=1.0,
)


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(TRAIN_SEED, 8, TINY.image_size)


def test_the_forward_is_that_of_the_exported_model(tmp_path: Path, scenes):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = MiniClip(TINY).half().float().eval()  # the precision it is exported in
    export(model, tokenizer, TINY, tmp_path / "mini")
    clip = load_clip(tmp_path / "mini", device="cpu")
    assert clip.known == NAMES
    batch = make_batch(scenes, tokenizer, TINY, 0, 0)
    with torch.no_grad():
        image, _ = model.vectors(model.encode_image(batch.pixels), batch.sentence_ids, batch.sentence_mask)
        odds = model.names(model.encode_image(batch.pixels))
    torch.testing.assert_close(clip.encode_images(batch.pixels), image, rtol=1e-4, atol=1e-5)
    texts = clip.encode_texts([PROMPT.format(name) for name in NAMES])
    theirs = clip.scale * similarity(clip.encode_images(batch.pixels), texts)
    torch.testing.assert_close(odds - model.prior, theirs, rtol=1e-3, atol=1e-3)
    scene = draw(TRAIN_SEED, 0, TINY.image_size)
    assert clip.prepare(scene.image).shape == (3, 32, 32)


def test_a_few_steps_lower_the_loss_and_every_exported_weight_learns(scenes):
    torch.manual_seed(0)
    model, tokenizer = MiniClip(TINY), build_tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    losses = []
    batch = make_batch(scenes, tokenizer, replace(TINY, hide=0.0), 0, 0)
    for step in range(20):
        loss, log = clip_loss(model, batch, TINY, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(log["names"])
    assert losses[-1] < losses[0]
    moved = [name for name, value in model.model.named_parameters() if not torch.equal(value, before[name])]
    still = set(before) - set(moved)
    assert all("k_proj.bias" in name or "embeddings" in name for name in still), still
    watched = watch_clip(model.eval(), scenes, tokenizer, TINY)
    assert set(watched) == {"precision", "recall", "f1"}
    assert 0 <= watched["f1"] <= 1
