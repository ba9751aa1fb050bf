"""``refine``: what goes in, what comes out, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from pnp_ovss import Config
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.refine import refine, refine_batch
from pnp_ovss.refine.base import stretch
from pnp_ovss.refine.blur import Blur, gaussian_blur
from pnp_ovss.refine.crf import DenseCRF, dense_crf
from pnp_ovss.refine.guided import guided_filter
from pnp_ovss.refine.pamr import pamr
from pnp_ovss.refine.scores import ScoreMap, label_together

BARE = Config(refiners=(), threshold=0.5)
ORDERS = [(), ("blur",), ("crf",), ("pamr",), ("guided",), ("blur", "crf"), ("guided", "crf", "pamr", "blur")]


def photo_of(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def maps_of(classes: int, gh: int, gw: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((classes, gh, gw), dtype=np.float32)


def test_labels_are_the_strongest_class_or_background():
    maps = np.array([[[0, 4, 0]], [[0, 0, 9]]], dtype=np.float32)  # 2 classes on a 1 x 3 grid
    labels, scores = refine(maps, photo_of(2, 5), BARE)
    # Bilinear over 5 columns: class 1 is 0 2 4 2 0, class 2 is 0 0 0 4.5 9; nothing in column 0.
    assert labels.tolist() == [[0, 1, 1, 2, 2]] * 2
    assert scores[:, 0].tolist() == [[1, 0, 0, 0, 0], [0, 2, 4, 2, 0], [0, 0, 0, 4.5, 9]]
    assert (labels.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("background", "classes", "channels"),
    [("always", 3, 4), ("never", 2, 2), ("few", 2, 3), ("few", 3, 3)],
)
def test_background_is_a_channel_where_the_setting_has_one(background, classes, channels):
    labels, scores = refine(maps_of(classes, 4, 4), photo_of(6, 8), Config(background=background))
    assert scores.shape == (channels, 6, 8)
    assert labels.min() >= 0
    assert labels.max() < channels


def test_equal_scores_go_to_the_lowest_label():
    maps = np.repeat(maps_of(1, 3, 3), 3, axis=0)
    labels, _ = refine(maps, photo_of(7, 5), Config(background="never"))
    assert not labels.any()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["blur", "crf", "pamr", "guided"])
def test_a_refiner_gives_the_same_whatever_the_number_of_threads(threads, name):
    scores, photo = torch.from_numpy(maps_of(3, 151, 207))[None], torch.from_numpy(photo_of(151, 207))[None]
    [refiner] = Config(refiners=(name,), crf_iterations=2, pamr_iterations=2).steps()
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(refiner(scores, photo))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_tensors_in_tensors_out():
    maps, photo = maps_of(2, 4, 5), photo_of(9, 7)
    config = Config(refiners=("blur",))
    labels, scores = refine(maps, photo, config)
    for given_photo in (photo, torch.from_numpy(photo)):
        tensors = refine(torch.from_numpy(maps).requires_grad_(), given_photo, config)
        assert tensors[0].dtype == torch.int32
        assert not tensors[1].requires_grad
        assert np.array_equal(tensors[0].numpy(), labels)
        assert np.array_equal(tensors[1].numpy(), scores)


@pytest.mark.parametrize(
    "convert", [lambda a: a.astype(np.float64), lambda a: a.astype(">f4"), lambda a: a[::-1][::-1]]
)
def test_any_real_array_will_do(convert):
    maps, photo = maps_of(2, 4, 5), photo_of(9, 7)
    locked = photo[..., ::-1].copy()
    locked.flags.writeable = False
    assert np.array_equal(refine(convert(maps), locked[..., ::-1], Config())[0], refine(maps, photo, Config())[0])
    whole = (maps * 100).astype(np.uint16)
    assert np.array_equal(refine(whole, photo, BARE)[1], refine(whole.astype(np.float32), photo, BARE)[1])


@pytest.mark.parametrize("refiners", ORDERS, ids=lambda names: "-".join(names) or "none")
def test_a_batch_gives_what_its_images_give_alone(refiners):
    config = Config(refiners=refiners, crf_tolerance=1e-3, max_pixels=150)
    maps = torch.from_numpy(np.stack([maps_of(3, 5, 4, seed) for seed in range(3)]))
    photos = torch.from_numpy(np.stack([photo_of(12, 17, seed) for seed in range(3)]))
    photos[1] = 128  # a flat photo beside two of noise
    labels, scores = refine_batch(maps, photos, config)
    for i in range(3):
        alone = refine(maps[i], photos[i], config)
        assert torch.equal(alone[0], labels[i])
        torch.testing.assert_close(alone[1], scores[i], rtol=0, atol=2e-4)


def test_refiners_run_in_the_order_given_on_stretched_scores(monkeypatch):
    seen = []
    for kind in (Blur, DenseCRF):

        def spy(self, scores, image, on_step):
            seen.append((type(self).__name__, float(scores.min()), float(scores.max())))
            return scores * 7 + 3

        monkeypatch.setattr(kind, "__call__", spy)
    _, scores = refine(maps_of(2, 3, 3) * 50, photo_of(5, 5), Config(refiners=("crf", "blur", "crf")))
    assert seen == [("DenseCRF", 0, 1), ("Blur", 0, 1), ("DenseCRF", 0, 1)]
    assert scores.max() == 10


CRF = {
    "iterations": 3,
    "gaussian_sxy": 2.0,
    "gaussian_weight": 4.0,
    "bilateral_sxy": 30.0,
    "bilateral_srgb": 6.0,
    "bilateral_weight": 8.0,
    "tolerance": 0.05,
}


@pytest.mark.parametrize(
    ("name", "function", "settings", "given"),
    [
        ("blur", lambda scores, image, **given: gaussian_blur(scores, **given), {"blur": 0.2}, {"sigma": 0.2}),
        ("crf", dense_crf, {f"crf_{key}": value for key, value in CRF.items()}, CRF),
        ("pamr", pamr, {"pamr_iterations": 2}, {"iterations": 2}),
        ("guided", guided_filter, {"guided_radius": 0.1, "guided_epsilon": 0.2}, {"radius": 0.1, "epsilon": 0.2}),
    ],
)
def test_a_refiner_gets_its_settings(name, function, settings, given):
    maps, photo = maps_of(2, 3, 3), photo_of(9, 8)
    before = refine(maps, photo, Config(refiners=(), threshold=0.3))[1]
    found = refine(maps, photo, Config(refiners=(name,), threshold=0.3, **settings))[1]
    image = torch.from_numpy(photo)[None]
    expected = function(stretch(torch.from_numpy(before)[None]), image, **given)[0].numpy()
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, refine(maps, photo, Config(refiners=(name,), threshold=0.3))[1])


def halves(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Return class maps of a left and a right object, and a photo with its edge a little to the right of the middle."""
    photo = np.full((h, w, 3), (200, 60, 30), dtype=np.uint8)
    photo[:, int(w * 0.55) :] = (20, 80, 160)
    maps = np.zeros((2, 4, 8), dtype=np.float32)
    maps[0, :, :4] = 1
    maps[1, :, 4:] = 1
    return maps, photo


def test_a_large_photo_is_refined_small_and_enlarged_along_its_edges():
    maps, photo = halves(120, 200)
    config = Config(crf_bilateral_sxy=80.0)
    whole, _ = refine(maps, photo, config)
    labels, scores = refine(maps, photo, Config(crf_bilateral_sxy=80.0, max_pixels=120 * 200 // 9))
    assert scores.shape == (3, 120, 200)
    assert (labels == whole).mean() > 0.99
    assert (labels[:, :108] == 1).mean() > 0.99  # the photo's edge is at column 110, the maps' at 100
    assert (labels[:, 112:] == 2).mean() > 0.99
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_lengths_in_pixels_shrink_with_a_large_photo(monkeypatch):
    seen = []

    def spy(self, scores, image, on_step):
        seen.append((tuple(image.shape), self))
        return scores

    monkeypatch.setattr(DenseCRF, "__call__", spy)
    labels, _ = refine(maps_of(2, 4, 4), photo_of(20, 30), Config(refiners=("crf",), max_pixels=150))
    assert labels.shape == (20, 30)
    assert seen == [((1, 10, 15, 3), DenseCRF(crf_gaussian_sxy=1.5, crf_bilateral_sxy=25.0))]


def test_refiners_see_a_large_photo_by_the_mean_of_the_pixels_that_fall_together(monkeypatch):
    photo = np.array([[0, 10, 100, 104], [20, 30, 100, 98]], dtype=np.uint8)[:, :, None].repeat(3, axis=2)
    seen = []
    monkeypatch.setattr(Blur, "__call__", lambda self, scores, image, on_step: seen.append(image) or scores)
    for bound in (2, 1):
        refine(maps_of(1, 2, 2), photo, Config(refiners=("blur",), max_pixels=bound))
    assert seen[0][..., 0].tolist() == [[[15, 100]]]
    assert seen[1].shape == (1, 1, 1, 3)


def test_a_photo_at_the_bound_is_refined_whole():
    maps, photo = maps_of(2, 4, 4), photo_of(10, 12)
    exact = refine(maps, photo, Config(max_pixels=10**9))
    at_bound, above = (refine(maps, photo, Config(max_pixels=bound)) for bound in (120, 119))
    assert np.array_equal(exact[1], at_bound[1])
    assert not np.array_equal(exact[1], above[1])


def test_without_refiners_a_large_photo_is_not_shrunk():
    maps, photo = maps_of(2, 4, 4), photo_of(10, 12)
    small = Config(refiners=(), max_pixels=30)
    assert np.array_equal(refine(maps, photo, small)[1], refine(maps, photo, Config(refiners=()))[1])


@pytest.mark.parametrize(
    ("maps", "photo", "message"),
    [
        (np.zeros((2, 3), np.float32), photo_of(4, 4), r"real class maps .*, got torch.float32 of shape \(2, 3\)$"),
        (np.zeros((0, 3, 3), np.float32), photo_of(4, 4), r"of shape \(0, 3, 3\)$"),
        (np.zeros((1, 3, 3), bool), photo_of(4, 4), r"real class maps .*, got torch.bool of shape \(1, 3, 3\)$"),
        (np.zeros((1, 3, 3), complex), photo_of(4, 4), "real class maps .*, got torch.complex128"),
        (np.full((1, 3, 3), None), photo_of(4, 4), "numbers .*, got an array of object"),
        (np.full((1, 3, 3), np.nan, np.float32), photo_of(4, 4), "finite class maps >= 0, got values from nan to nan"),
        (np.full((1, 3, 3), 1e300), photo_of(4, 4), "finite class maps >= 0, got values from inf to inf"),
        (np.full((1, 3, 3), -0.25, np.float32), photo_of(4, 4), "class maps >= 0, got values from -0.25 to -0.25"),
        (maps_of(1, 3, 3), np.zeros((4, 4), np.uint8), r"a photo of uint8 RGB .*, got torch.uint8 of shape \(4, 4\)$"),
        (maps_of(1, 3, 3), np.zeros((4, 4, 4), np.uint8), r"of shape \(4, 4, 4\)$"),
        (maps_of(1, 3, 3), np.zeros((0, 4, 3), np.uint8), r"of shape \(0, 4, 3\)$"),
        (maps_of(1, 3, 3), np.zeros((4, 4, 3), np.float32), "a photo of uint8 RGB .*, got torch.float32"),
    ],
)
def test_what_cannot_be_used_is_refused(maps, photo, message):
    with pytest.raises(InputError, match=message) as caught:
        refine(maps, photo, Config())
    assert "\n" not in str(caught.value)


EXTREMES = [
    Config(refiners=("blur",), blur=1.0),
    Config(crf_gaussian_weight=1e6, crf_bilateral_weight=1e6),
    Config(crf_gaussian_sxy=1e6, crf_bilateral_sxy=1e6, crf_bilateral_srgb=1e6),
    Config(refiners=("guided",), guided_radius=1.0, guided_epsilon=1e-8),
    Config(refiners=("guided",), guided_radius=0.0, guided_epsilon=1e6),
]


@pytest.mark.parametrize("config", EXTREMES)
@pytest.mark.parametrize("shape", [(40, 50), (1, 300)])
def test_settings_at_the_ends_of_their_ranges(config, shape):
    grey = np.repeat(photo_of(*shape)[..., :1], 3, axis=2)
    for photo in (photo_of(*shape), grey):
        _, scores = refine(maps_of(3, 5, 4), photo, config)
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("refiners", [order for order in ORDERS if order])
def test_scores_of_a_refiner_lie_in_0_to_1(refiners):
    maps, photo = maps_of(3, 5, 4, seed=4) * 9, photo_of(40, 50, seed=4)
    _, scores = refine(maps, photo, Config(refiners=refiners, threshold=0.6))
    assert scores.min() >= 0
    assert scores.max() <= 1 + 1e-6


def test_an_unknown_refiner_is_refused_with_those_there_are():
    with pytest.raises(
        ConfigError,
        match="^there is no refiner 'crv'; the refiners are blur, crf, pamr, guided, regions, prompts, tidy$",
    ):
        Config(refiners=("blur", "crv"))
    with pytest.raises(ConfigError, match="no refiner ''"):
        Config(refiners=("",))


def test_a_kernel_too_narrow_to_compute_is_refused():
    for srgb in (1e-4, 1e-6):
        with pytest.raises(ConfigError, match="raise crf_bilateral_srgb"):
            refine(maps_of(1, 2, 2), photo_of(8, 9), Config(crf_bilateral_srgb=srgb))


@settings(max_examples=60, deadline=None)
@given(
    maps=arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
        elements=st.sampled_from([0, 0, 1, 0.5, 1e-38, 1e-45, 3e38]) | st.floats(0, 1, width=32),
    ),
    photo=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)), fill=st.integers(0, 255)),
    refiners=st.sampled_from(ORDERS),
    background=st.sampled_from(["always", "never", "few"]),
    bound=st.sampled_from([1, 10, 1000]),
)
def test_any_maps_and_photo_give_a_valid_label_map(maps, photo, refiners, background, bound):
    config = Config(refiners=refiners, background=background, max_pixels=bound)
    labels, scores = refine(maps, photo, config)
    assert np.isfinite(scores).all()
    assert np.array_equal(labels, scores.argmax(0))
    assert scores.shape == (len(maps) + config.has_background(len(maps)), *photo.shape[:2])


@pytest.mark.parametrize("refiners", ORDERS, ids=lambda names: "-".join(names) or "none")
@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 700)])
def test_a_thin_photo_gives_a_valid_label_map(refiners, shape):
    labels, scores = refine(maps_of(2, 7, 7), photo_of(*shape), Config(refiners=refiners))
    assert labels.shape == shape
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("refiners", ORDERS, ids=lambda names: "-".join(names) or "none")
def test_maps_that_locate_nothing_are_background(refiners):
    labels, scores = refine(np.full((3, 5, 5), 0.7, np.float32), photo_of(12, 9), Config(refiners=refiners))
    assert not labels.any()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("refiners", ORDERS, ids=lambda names: "-".join(names) or "none")
def test_a_grey_photo_gives_a_valid_label_map(refiners):
    photo = np.repeat(photo_of(12, 9)[..., :1], 3, axis=2)
    labels, scores = refine(maps_of(1, 5, 5), photo, Config(refiners=refiners, background="never"))
    assert not labels.any()
    assert np.isfinite(scores).all()


def test_stretch_moves_the_extremes_of_each_channel_to_0_and_1():
    scores = torch.tensor([[[[2.0, 3.0, 6.0]], [[5.0, 5.0, 5.0]]], [[[0.0, -1.0, 1.0]], [[8.0, 0.0, 2.0]]]])
    expected = [[[[0, 0.25, 1]], [[0, 0, 0]]], [[[0.5, 0, 1]], [[1, 0, 0.25]]]]
    assert stretch(scores).tolist() == expected


def test_maps_labelled_together_are_labelled_one_by_one():
    random = np.random.default_rng(0)
    plain, merged = ((0,), (1,), (2,)), ((1,), (0, 2), ())
    maps = [
        ScoreMap(torch.from_numpy(random.integers(4, size=(3, 9, 11)).astype(np.float32)), owners)
        for owners in (plain, merged)
    ]
    for (labels, means), one in zip(label_together(maps), maps, strict=True):
        expected, values = one.label()
        assert labels.dtype == expected.dtype
        np.testing.assert_array_equal(labels, expected)
        assert means == pytest.approx(values)
