"""The vote of regions over scores."""

import numpy as np
import pytest
import torch

from pnp_ovss import Config, refine
from pnp_ovss.errors import ConfigError
from pnp_ovss.refine.regions import Regions, vote
from pnp_ovss.regions import find_regions
from pnp_ovss.regions.folder import keep_regions


def test_each_region_takes_its_mean_scores_and_what_none_covers_keeps_its_own():
    scores = torch.tensor([[[0.2, 0.4, 0.9]], [[0.5, 0.0, 0.1]]])
    vote(scores, np.array([[0, 0, -1]], np.int32))
    assert torch.allclose(scores, torch.tensor([[[0.3, 0.3, 0.9]], [[0.25, 0.25, 0.1]]]))


def test_photos_of_a_batch_vote_by_their_own_regions():
    photos = np.random.default_rng(0).integers(0, 255, (2, 30, 40, 3)).astype(np.uint8)
    scores = torch.rand(2, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    before, step = scores.clone(), Regions(regions_size=0.2)
    both = step(scores, torch.from_numpy(photos))
    assert torch.equal(scores, before)
    for number, photo in enumerate(photos):
        assert torch.equal(both[number], step(scores[number][None], torch.from_numpy(photo)[None])[0])
        regions = find_regions(photo, step)
        assert torch.allclose(both[number][:, regions == 1], scores[number][:, regions == 1].mean(1, keepdim=True))


def test_regions_of_a_folder_are_refined_by_like_those_of_the_photo(tmp_path):
    photo, maps = np.zeros((8, 8, 3), np.uint8), np.zeros((1, 2, 2), np.float32)
    maps[0, 0, 0] = 1
    regions = np.full((8, 8), -1)
    regions[:, :3], regions[:6, 3:6] = 0, 1
    keep_regions(tmp_path, photo, regions)
    settings = {"threshold": 0.0, "background": "never", "regions": "folder", "regions_folder": str(tmp_path)}
    plain = refine(maps, photo, Config(refiners=(), **settings))[1]
    voted = refine(maps, photo, Config(refiners=("regions",), stretch=False, **settings))[1]
    for region in (0, 1):
        assert np.allclose(voted[0, regions == region], plain[0, regions == region].mean())
    assert np.array_equal(voted[0, regions < 0], plain[0, regions < 0])


def test_a_source_that_is_not_there_is_found_before_any_photo():
    with pytest.raises(ConfigError, match="there is no source of regions 'colour'"):
        Config(refiners=("regions",), regions="colour")
