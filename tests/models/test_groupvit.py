"""GroupViT as a checkpoint; its numbers are held against the official ones in ``methods/test_table3.py``."""

import numpy as np
import pytest

from pnp_ovss import ModelError, Segmenter, load_method
from tiny import tiny_clip, tiny_groupvit

WORDS = ["dog", "cat", "bird"]


def test_another_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match="expected a GroupViT checkpoint such as groupvit-yfcc, got 'clip'"):
        load_method("groupvit", tiny_clip(tmp_path), device="cpu")


def test_a_photo_s_presence_is_compared_as_with_clip(tmp_path):
    method = load_method("groupvit", tiny_groupvit(tmp_path), device="cpu", short_side=32, crop=0)
    found = Segmenter(method, present="auto")(np.zeros((32, 40, 3), np.uint8), WORDS)
    assert list(found.presence.scores) == WORDS
