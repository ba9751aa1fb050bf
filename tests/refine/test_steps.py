"""Each refiner on its own, against answers written out or a plain NumPy version of its formula."""

import numpy as np
import pytest
import torch

from pnp_ovss.refine import blur, guided
from pnp_ovss.refine.base import stretch
from pnp_ovss.refine.blur import gaussian_blur
from pnp_ovss.refine.guided import guided_filter, guided_upsample
from pnp_ovss.refine.pamr import pamr
from pnp_ovss.refine.upsample import threshold_and_upsample


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photo_of(b: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (b, h, w, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# Threshold and upsampling


def test_threshold_keeps_raw_values_from_the_threshold_upwards():
    maps = torch.tensor(
        [[[[12.0, 14.0], [16.0, 20.0]], [[0.5, 0.0], [0.25, 0.125]]]]
    )  # min-max: 0 .25 .5 1, 1 0 .5 .25
    kept = threshold_and_upsample(maps, (2, 2), threshold=0.5, background=False)
    assert kept.tolist() == [[[[0, 0], [16, 20]], [[0.5, 0], [0.25, 0]]]]


def test_upsampling_aligns_the_corners_of_rows_and_columns():
    maps = torch.tensor([[[[0.0, 8.0], [0.0, 4.0]]]])
    scores = threshold_and_upsample(maps, (3, 5), threshold=0.1, background=False)
    assert scores.tolist() == [[[[0, 2, 4, 6, 8], [0, 1.5, 3, 4.5, 6], [0, 1, 2, 3, 4]]]]


def test_background_is_1_where_no_class_has_any_score():
    maps = torch.tensor([[[[0.0, 0.0, 0.0, 5.0]], [[0.0, 3.0, 0.0, 0.0]]]])
    scores = threshold_and_upsample(maps, (1, 4), threshold=0.15, background=True)
    assert scores.tolist() == [[[[1, 0, 1, 0]], [[0, 0, 0, 5]], [[0, 3, 0, 0]]]]


@pytest.mark.parametrize(("threshold", "kept"), [(0.15, 0.0), (0.0, 3.0)])
def test_a_constant_map_counts_as_0(threshold, kept):
    scores = threshold_and_upsample(torch.full((1, 1, 2, 2), 3.0), (2, 2), threshold=threshold, background=False)
    assert scores.unique().tolist() == [kept]


# Blur


def plain_blur(signal: np.ndarray, sigma: float, axis: int) -> np.ndarray:
    """Return the blur along one axis by its definition: a sum over offsets with the border mirrored."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padding = [(reach, reach) if i == axis else (0, 0) for i in range(signal.ndim)]
    mirrored = np.pad(signal.astype(np.float64), padding, mode="symmetric")
    length = signal.shape[axis]
    parts = [np.take(mirrored, np.arange(i, i + length), axis) * weight for i, weight in enumerate(weights)]
    return sum(parts) / weights.sum()


@pytest.mark.parametrize(
    ("shape", "sigma"), [((7, 12), 0.05), ((12, 7), 0.3), ((1, 30), 0.05), ((30, 1), 0.3), ((2, 2500), 0.02)]
)
def test_blur_is_a_gaussian_with_a_mirrored_border(shape, sigma):
    scores = noise(2, 3, *shape)
    pixels = sigma * max(shape)
    expected = torch.from_numpy(plain_blur(plain_blur(scores.numpy(), pixels, 2), pixels, 3)).float()
    torch.testing.assert_close(gaussian_blur(scores, sigma=sigma), stretch(expected), rtol=0, atol=1e-4)


def test_blur_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    scores = noise(1, 2, 40, 64)
    expected = torch.from_numpy(np.stack([ndimage.gaussian_filter(s, 0.05 * 64) for s in scores[0].numpy()]))[None]
    torch.testing.assert_close(gaussian_blur(scores, sigma=0.05), stretch(expected), rtol=0, atol=1e-5)


def test_blocks_of_the_blur_do_not_show(monkeypatch):
    scores = noise(1, 2, 50, 70)
    whole = gaussian_blur(scores, sigma=0.04)
    monkeypatch.setattr(blur, "BLOCK", 16)
    torch.testing.assert_close(gaussian_blur(scores, sigma=0.04), whole, rtol=0, atol=1e-5)


def test_blur_leaves_each_channel_to_itself_and_a_constant_one_at_0():
    scores = torch.zeros(1, 3, 9, 9)
    scores[0, 0, 4, 4] = 5
    scores[0, 1] = 7
    out = gaussian_blur(scores, sigma=0.1)
    assert out[0, 0].argmax() == 4 * 9 + 4
    assert out[0, 0].max() == 1
    assert not out[0, 1:].any()


def test_blur_is_an_average():
    torch.testing.assert_close(blur._blur_rows(torch.full((1, 1, 2, 7), 3.0), 1.4), torch.full((1, 1, 2, 7), 3.0))


@pytest.mark.parametrize("sigma", [0.0625, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(3, 64), (64, 1), (5, 7)])
def test_a_blur_that_reaches_over_the_border_and_back(shape, sigma):
    scores, pixels = noise(1, 2, *shape), sigma * max(shape)
    for axis, blurred in ((3, blur._blur_rows(scores, pixels)), (2, blur._blur_rows(scores.mT, pixels).mT)):
        expected = torch.from_numpy(plain_blur(scores.numpy(), pixels, axis)).float()
        torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-5)


def test_no_sigma_no_blur():
    scores = noise(1, 1, 4, 5)
    assert torch.equal(gaussian_blur(scores, sigma=0.0), stretch(scores))


# PAMR


def test_pamr_on_a_flat_photo_is_the_mean_of_the_neighbours():
    scores = torch.zeros(1, 1, 3, 3)
    scores[0, 0, 1, 1] = 8
    out = pamr(scores, torch.full((1, 3, 3, 3), 90, dtype=torch.uint8), iterations=1, dilations=(1,))
    assert out.tolist() == [[[[1, 1, 1], [1, 0, 1], [1, 1, 1]]]]


def plain_pamr(scores: np.ndarray, photo: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """Return PAMR of one image by its formula, pixel by pixel; ``scores`` (ch, h, w)."""
    h, w = photo.shape[:2]
    colour = photo / 255.0
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for _ in range(iterations):
        out = np.zeros_like(scores)
        for y in range(h):
            for x in range(w):
                around = [(y + d * dy, x + d * dx) for d in dilations for dy, dx in ring]
                spots = [(min(max(sy, 0), h - 1), min(max(sx, 0), w - 1)) for sy, sx in around]
                seen = np.array([colour[s] for s in spots])
                deviation = np.concatenate([seen, [colour[y, x]] * len(dilations)]).std(0, ddof=1)
                logits = -(np.abs(seen - colour[y, x]) / (0.1 * deviation + 1e-8)).mean(1)
                affinity = np.exp(logits - logits.max())
                affinity /= affinity.sum()
                out[:, y, x] = sum(a * scores[:, sy, sx] for a, (sy, sx) in zip(affinity, spots, strict=True))
        scores = out
    return scores


def test_pamr_is_its_formula():
    scores, photo = noise(2, 2, 6, 9), photo_of(2, 6, 9) // 16
    out = pamr(scores, photo, iterations=3, dilations=(1, 2, 4))
    for i in range(2):
        expected = plain_pamr(scores[i].double().numpy(), photo[i].numpy(), 3, (1, 2, 4))
        np.testing.assert_allclose(out[i], expected, atol=1e-4)


def test_pamr_does_not_cross_an_edge_and_keeps_the_range():
    photo = torch.zeros(1, 20, 40, 3, dtype=torch.uint8)
    photo[:, :, 20:] = 200
    scores = torch.zeros(1, 1, 20, 40)
    scores[..., 3:9, 3:9] = 1
    out = pamr(scores, photo, iterations=10)
    assert out[..., 20:].max() < 1e-3
    assert out[..., :18].min() > 1e-3
    assert out.max() <= 1


# Guided filter


def plain_guided(score: np.ndarray, photo: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Return the guided filter of one channel by its formula, window by window."""
    h, w = score.shape
    colour = photo / 255.0
    slope, offset = np.zeros((h, w, 3)), np.zeros((h, w))
    windows = {
        (y, x): np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        for y in range(h)
        for x in range(w)
    }
    for spot, window in windows.items():
        c, s = colour[window].reshape(-1, 3), score[window].ravel()
        covariance = c.T @ c / len(c) - np.outer(c.mean(0), c.mean(0))
        slope[spot] = np.linalg.solve(covariance + epsilon * np.eye(3), c.T @ s / len(c) - c.mean(0) * s.mean())
        offset[spot] = s.mean() - slope[spot] @ c.mean(0)
    result = np.zeros((h, w))
    for spot, window in windows.items():
        result[spot] = slope[window].mean((0, 1)) @ colour[spot] + offset[window].mean()
    return result


@pytest.mark.parametrize(("shape", "radius"), [((8, 11), 2), ((11, 8), 2), ((1, 9), 3)])
def test_guided_filter_is_its_formula(shape, radius):
    scores, photo = noise(2, 2, *shape), photo_of(2, *shape)
    out = guided_filter(scores, photo, radius=radius / max(shape), epsilon=0.01)
    for i in range(2):
        for j in range(2):
            expected = plain_guided(scores[i, j].double().numpy(), photo[i].numpy(), radius, 0.01)
            np.testing.assert_allclose(out[i, j], expected, atol=1e-4)


def test_guided_filter_keeps_a_linear_function_of_the_colour():
    photo = photo_of(1, 12, 15)
    scores = (photo.float() / 255) @ torch.tensor([0.5, -0.2, 0.1]) + 0.3
    out = guided_filter(scores[:, None], photo, radius=0.2, epsilon=1e-9)
    torch.testing.assert_close(out[:, 0], scores, rtol=0, atol=1e-3)


@pytest.mark.parametrize("alike", [(0, 0, 0), (0, 1, 0), (0, 0, 2)])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-6, 1e-5])
def test_guided_filter_of_colours_that_vary_together(alike, epsilon):
    scores, photo = noise(1, 1, 12, 15), photo_of(1, 12, 15)[..., list(alike)].contiguous()
    out = guided_filter(scores, photo, radius=0.2, epsilon=epsilon)
    expected = plain_guided(scores[0, 0].double().numpy(), photo[0].numpy(), 3, epsilon)
    np.testing.assert_allclose(out[0, 0], expected, atol=0.1 if epsilon == 1e-8 else 2e-3)


def test_guided_filter_stays_in_the_range_of_each_channel():
    photo = torch.zeros(1, 1, 9, 3, dtype=torch.uint8)
    photo[0, 0, :, 0] = torch.tensor([0, 0, 0, 100, 100, 100, 250, 0, 0])  # one pixel far beyond the line fitted
    scores = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 0, 0]).view(1, 1, 1, 9)
    (fit,) = guided._fits([scores[:, 0]], guided._colour(photo), 4, 1e-4)
    fitted = guided._apply(fit, guided._colour(photo))[:, None]
    assert fitted.max() > 1.1
    out = guided_filter(torch.cat([scores, 5 * scores], 1), photo, radius=4 / 9, epsilon=1e-4)
    torch.testing.assert_close(out[:, :1], fitted.clamp(0, 1))
    torch.testing.assert_close(out[:, 1:], (5 * fitted).clamp(0, 5))


def test_guided_upsample_takes_the_detail_from_the_large_photo(monkeypatch):
    monkeypatch.setattr(guided, "STRIP", 90)  # three rows of 30 pixels at a time
    large = torch.zeros(1, 20, 30, 3, dtype=torch.uint8)
    large[:, 7:, :, 0] = 255  # an edge inside a row of the small photo
    large[:, :, 13:, 1] = 255
    small = torch.nn.functional.interpolate(large.permute(0, 3, 1, 2).float(), size=(4, 6), mode="area")
    small = small.round().permute(0, 2, 3, 1).to(torch.uint8)
    weights = torch.tensor([0.7, 0.3, 0.0])
    scores = (small.float() / 255 @ weights)[:, None]
    out = guided_upsample(scores, small, large, radius=1, epsilon=1e-7)
    torch.testing.assert_close(out[0, 0], large[0].float() / 255 @ weights, rtol=0, atol=0.02)


def test_guided_upsample_of_a_flat_photo_is_bilinear(monkeypatch):
    monkeypatch.setattr(guided, "STRIP", 29 * 3)
    scores = noise(2, 3, 5, 7)
    small, large = (torch.full((2, h, w, 3), 77, dtype=torch.uint8) for h, w in ((5, 7), (13, 29)))
    out = guided_upsample(scores, small, large, radius=1, epsilon=1e-4)
    means = guided._box(guided._box(scores, 1), 1)
    expected = torch.nn.functional.interpolate(means, size=(13, 29), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_box_is_the_mean_of_the_window_within_the_image():
    values = torch.tensor([[[1.0, 2.0, 6.0, 7.0]], [[0.0, 0.0, 3.0, 9.0]]])
    assert guided._box(values, 1).tolist() == [[[1.5, 3, 5, 6.5]], [[0, 1, 4, 6]]]
    assert guided._box(values.transpose(1, 2), 1)[0].flatten().tolist() == [1.5, 3, 5, 6.5]
