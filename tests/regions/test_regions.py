"""Sources of regions: laws that all keep, and exact answers of each."""

import numpy as np
import pytest
from PIL import Image

from pnp_ovss.errors import ConfigError, InputError, ModelError
from pnp_ovss.images import fingerprint
from pnp_ovss.models.sam import load_sam
from pnp_ovss.regions import SOURCES, RegionSettings, find_masks, find_regions, sam, stacked
from pnp_ovss.regions.base import numbered
from pnp_ovss.regions.folder import keep_regions, load
from pnp_ovss.regions.watershed import merged
from tiny import tiny_sam

OFFLINE = [name for name in SOURCES if name not in ("folder", "sam")]


def squares(noise: float = 3) -> np.ndarray:
    """A photo of four squares, of which two on the diagonal have one colour."""
    photo = np.full((40, 60, 3), (200, 40, 40), float)
    photo[:20, 30:] = photo[20:, :30] = (40, 40, 200)
    return (photo + np.random.default_rng(0).normal(0, noise, photo.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", OFFLINE)
def test_regions_end_at_edges_cover_the_photo_and_are_numbered_without_gaps(name):
    photo = squares()
    regions = find_regions(photo, RegionSettings(regions=name, regions_size=0.3))
    assert (regions.dtype, regions.shape) == (np.int32, (40, 60))
    assert sorted(np.unique(regions)) == list(range(regions.max() + 1))
    blue = photo[..., 2] > photo[..., 0]
    for region in range(regions.max() + 1):
        share = blue[regions == region].mean()
        assert min(share, 1 - share) < 0.06
    assert (regions == find_regions(photo, RegionSettings(regions=name, regions_size=0.3))).all()


@pytest.mark.parametrize("name", OFFLINE)
def test_larger_regions_are_fewer(name):
    photo = np.random.default_rng(1).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    counts = [find_regions(photo, RegionSettings(regions=name, regions_size=size)).max() for size in (0.05, 0.1, 0.3)]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_photos_of_a_few_pixels_and_of_one_colour_have_regions(name, size):
    regions = find_regions(np.zeros((*size, 3), np.uint8), RegionSettings(regions=name))
    assert regions.shape == size
    assert regions.min() == 0


def test_basins_merge_up_to_the_slack_of_the_smaller_region():
    basins = np.array([[0, 0, 1, 2]])
    colour = np.zeros((1, 4, 3), np.float32)
    colour[0, 2:] = [[4, 0, 0], [12, 0, 0]]
    expected = {7.9: 3, 8.0: 2, 11.9: 2, 12.0: 1}  # |0-1| = 4 <= scale / 2; then |1-2| = 8 <= 4 + scale / 3
    for scale, count in expected.items():
        assert len(set(merged(basins, colour, scale=scale, least=0.0))) == count


def test_small_regions_join_the_neighbour_that_differs_least():
    basins = np.array([[0, 0, 0, 1, 2, 2, 2]])
    colour = np.zeros((1, 7, 3), np.float32)
    colour[0, 3:] = [[100, 0, 0], [150, 0, 0], [150, 0, 0], [150, 0, 0]]
    found = merged(basins, colour, scale=0.1, least=2.0)
    assert found[1] == found[2] != found[0]


def test_masks_that_overlap_become_one_map_with_the_smaller_on_top():
    masks = np.zeros((3, 2, 4), bool)
    masks[0, :, 1:3] = masks[1, :, :3] = True
    masks[2, 0, 0] = True
    assert stacked(masks, (2, 4)).tolist() == [[2, 1, 1, -1], [0, 1, 1, -1]]
    hidden = [np.array([[True, True]]), np.array([[True, False]]), np.array([[False, True]])]
    assert stacked(hidden, (1, 2)).tolist() == [[0, 1]]
    assert stacked([], (1, 2)).tolist() == [[-1, -1]]


def test_numbers_are_those_from_0_on():
    assert numbered(np.array([[7, -3], [2, -1]])).tolist() == [[1, -1], [0, -1]]


def test_a_folder_gives_back_what_was_kept(tmp_path):
    photo, other = squares(), squares(5)
    regions = np.full((40, 60), -1)
    regions[:5], regions[30:] = 0, 1
    keep_regions(tmp_path, photo, regions)
    settings = RegionSettings(regions="folder", regions_folder=str(tmp_path))
    assert (find_regions(photo, settings) == regions).all()
    assert (find_masks(photo, settings) == np.stack([regions == 0, regions == 1])).all()
    assert find_masks(photo, RegionSettings(regions="watershed")) == []  # pieces, not things
    with pytest.raises(InputError, match=r"expected regions [0-9a-f]{64} in .*, got none; put them there with"):
        find_regions(other, settings)


def test_a_folder_holds_arrays_and_binary_masks_as_well(tmp_path):
    photo = squares()
    place = tmp_path / fingerprint(photo)
    ids = np.zeros((40, 60), np.int64)
    ids[3:9, 4:7] = 5
    np.save(place.with_suffix(".npy"), ids)
    assert (load(tmp_path, photo) == np.where(ids > 0, 0, -1)).all()
    place.mkdir()
    Image.fromarray(ids > 0).save(place / "a.png")
    Image.fromarray(np.full((40, 60), 255, np.uint8)).save(place / "b.png")
    assert (load(tmp_path, photo) == (ids > 0)).all()
    settings = RegionSettings(regions="folder", regions_folder=str(tmp_path))
    assert (find_masks(photo, settings) == np.stack([ids > 0, ids >= 0])).all()


def test_what_a_folder_cannot_give_is_one_line(tmp_path):
    photo = squares()
    place = tmp_path / fingerprint(photo)
    np.save(place.with_suffix(".npy"), np.zeros((40, 61), np.uint8))
    with pytest.raises(InputError, match=r"expected the region of each pixel of \(40, 60\)"):
        load(tmp_path, photo)
    place.with_suffix(".npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="cannot be read as regions"):
        load(tmp_path, photo)
    with pytest.raises(InputError, match="expected up to 65535 regions of shape"):
        keep_regions(tmp_path, photo, np.full((40, 60), 65535))
    with pytest.raises(ConfigError, match="the regions of a folder need --regions-folder"):
        find_regions(photo, RegionSettings(regions="folder"))
    with pytest.raises(ConfigError, match="there is no source of regions 'none'; the sources are "):
        find_regions(photo, RegionSettings(regions="none"))


@pytest.fixture
def sam_settings(tmp_path, monkeypatch) -> RegionSettings:
    """Settings for a SAM of random weights, whose regions are kept in a folder of the test."""
    monkeypatch.setattr(sam, "cache_folder", lambda kind: tmp_path / kind)
    monkeypatch.setattr("pnp_ovss.models.sam.LEAST_IOU", -1e9)
    monkeypatch.setattr("pnp_ovss.models.sam.LEAST_STABILITY", 0.3)
    return RegionSettings(regions="sam", regions_model=str(tiny_sam(tmp_path / "model")), regions_points=3)


def test_regions_of_sam_are_its_masks_and_are_kept_by_photo_model_and_settings(sam_settings, tmp_path, monkeypatch):
    photo, model = squares(), load_sam(sam_settings.regions_model, device="cpu")
    found = find_regions(photo, sam_settings)
    assert (found == stacked(model.everything(photo, 3), (40, 60))).all()
    assert {-1, 0} <= set(np.unique(found))

    monkeypatch.setattr(sam, "load_kept", lambda *which: 1 / 0)
    assert (find_regions(photo, sam_settings) == found).all()
    assert (find_masks(photo, sam_settings) == model.everything(photo, 3)).all()  # as they overlap
    other = tiny_sam(tmp_path / "other", seed=1)
    for image, settings in (
        (squares(5), sam_settings),
        (photo, sam_settings.override({"regions_points": 4})),
        (photo, sam_settings.override({"regions_model": str(other)})),
    ):
        with pytest.raises(ZeroDivisionError):
            find_regions(image, settings)


def test_without_weights_and_network_a_line_says_what_works(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sam._revision.cache_clear()
    instead = r"or --refine regions --regions watershed, which has no model; the cache is \S+$"
    with pytest.raises(ModelError, match=r"^sam-huge: not all of it is in the cache, and HF_HUB_OFFLINE.*" + instead):
        find_regions(squares(), RegionSettings(regions="sam", regions_model="sam-huge"))
