"""Steps 2 to 6 against what the authors' own code gives on a BLIP of random weights: tests/data/golden/README.md."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pnp_ovss
from pnp_ovss.methods.pnp.method import dropout_passes
from shared import shared

SLICE = Path(__file__).parents[1] / "data" / "golden" / "blip"


@pytest.fixture(scope="module", params=["slice", "whole"])
def official(request) -> SimpleNamespace:
    folder = SLICE if request.param == "slice" else shared("golden/blip-official")
    case = json.loads((folder / "case.json").read_text())
    with np.load(folder / "official.npz") as arrays:
        stored = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return SimpleNamespace(
        vlm=pnp_ovss.load_vlm(folder, device="cpu"),
        prompts=[pnp_ovss.make_prompt(names) for names in case["classes"]],
        captions=case["captions"],
        config=pnp_ovss.Config(
            layer=case["layer_1based"] - 1,
            head=case["head_0based"],
            passes=case["passes"],
            drop=case["patches_per_pass"],
        ),
        class_maps=[maps for name, maps in sorted(stored.items()) if name.startswith("class_maps")],
        layers=stored.pop("layers", torch.arange(12)).tolist(),
        **{name: array for name, array in stored.items() if not name.startswith("class_maps")},
    )


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_the_prompt_is_the_authors(official):
    assert [prompt.text for prompt in official.prompts] == official.captions
    ids, mask, _ = official.vlm._tokens(official.prompts)
    assert torch.equal(ids * mask, official.input_ids * official.attention_mask)


def test_every_layer_and_head_gives_the_authors_map(official):
    attention = official.vlm.attend(official.pixel_values, official.prompts)
    ours = (attention.weights * attention.gradient.relu())[:, :, :, 1:]  # theirs leave out the first token
    for b, index, head in np.ndindex(*official.maps_pass0.shape[:3]):
        theirs, layer = official.maps_pass0[b, index, head], official.layers[index]
        if layer + 1 < official.vlm.layers:
            assert relative_error(ours[b, layer, head], theirs) < 1e-5
        else:  # above the last layer only [ENC] is read, so no other token has a gradient
            assert torch.equal(ours[b, layer, head], torch.zeros_like(theirs))
            assert torch.equal(theirs, torch.zeros_like(theirs))


def test_the_passes_hide_the_authors_patches_and_match_as_theirs(official):
    passes = dropout_passes(official.vlm, official.pixel_values, official.prompts, official.config)
    assert len(passes) == len(official.dropped) == 4
    for one, dropped, logits in zip(passes, official.dropped, official.itm_logits, strict=True):
        assert torch.equal(~one.visible, dropped)
        assert relative_error(one.match, logits[:, 1]) < 1e-5


def test_the_summed_class_maps_are_the_authors(official):
    ours = pnp_ovss.salience(official.vlm, official.pixel_values, official.prompts, official.config)
    for maps, theirs in zip(ours, official.class_maps, strict=True):
        assert relative_error(maps, theirs) < 1e-5
