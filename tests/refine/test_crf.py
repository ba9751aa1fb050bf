"""The lattice and DenseCRF against plain NumPy versions of the same papers."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pnp_ovss.errors import ConfigError
from pnp_ovss.refine import crf, lattice
from pnp_ovss.refine.crf import dense_crf
from pnp_ovss.refine.lattice import WeightedSum, permutohedral_lattice


def plain_lattice(features: np.ndarray) -> np.ndarray:
    """Return the matrix of the permutohedral filter of ``features`` (n, d): Adams et al., point by point.

    A corner is its coordinates in a dictionary; nearest remainder-0 point by rounding, ranks by comparison.
    """
    n, d = features.shape
    rows: dict[tuple[int, ...], np.ndarray] = {}
    splat = []
    scale = [(d + 1) * np.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2)) for i in range(d)]
    for point in range(n):
        f = features[point] * scale
        elevated = np.array([sum(f[j:]) - (j * f[j - 1] if j else 0) for j in range(d + 1)])
        nearest = np.round(elevated / (d + 1)) * (d + 1)
        difference = elevated - nearest
        rank = np.array([sum((difference > difference[i]) | ((difference == difference[i]) & (np.arange(d + 1) < i)))
                         for i in range(d + 1)])  # fmt: skip
        rank += round(nearest.sum() / (d + 1))
        nearest[rank < 0] += d + 1
        nearest[rank > d] -= d + 1
        rank %= d + 1
        difference = (elevated - nearest) / (d + 1)
        share = np.zeros(d + 2)
        for i in range(d + 1):
            share[d - rank[i]] += difference[i]
            share[d + 1 - rank[i]] -= difference[i]
        share[0] += 1 + share[d + 1]
        for remainder in range(d + 1):
            corner = nearest + remainder - (d + 1) * (rank > d - remainder)
            splat.append((tuple(corner.astype(int)), point, share[remainder]))
    for corner, point, share in splat:
        rows.setdefault(corner, np.zeros(n))[point] += share
    for axis in range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] = d
        zero = np.zeros(n)
        rows = {
            corner: row + (rows.get(tuple(corner + step), zero) + rows.get(tuple(corner - step), zero)) / 2
            for corner, row in rows.items()
        }
    matrix = np.zeros((n, n))
    for corner, point, share in splat:
        matrix[point] += share * rows[corner]
    return matrix / (1 + 2.0**-d)


def cloud(n: int, d: int, spread: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (n, d))


@pytest.mark.parametrize(("n", "d", "spread"), [(40, 1, 2.0), (60, 2, 1.0), (60, 3, 1.0), (80, 5, 0.7), (30, 5, 1e3)])
def test_lattice_is_the_papers(n, d, spread):
    features = cloud(n, d, spread)
    filtered = permutohedral_lattice(torch.from_numpy(features).float()[None]).filter(torch.eye(n)[None])[0]
    np.testing.assert_allclose(filtered, plain_lattice(features), atol=1e-4 if spread < 10 else 0.01)


def test_lattice_of_whole_numbers_is_the_papers():
    """Equal rests: points that lie on the faces of their simplex, as flat regions of a photo do."""
    features = np.stack(np.meshgrid(np.arange(4), np.arange(3), [0, 0, 5], indexing="ij"), -1).reshape(-1, 3) * 1.0
    filtered = permutohedral_lattice(torch.from_numpy(features).float()[None]).filter(torch.eye(len(features))[None])[0]
    np.testing.assert_allclose(filtered, plain_lattice(features), atol=1e-5)


@pytest.mark.parametrize(("n", "d", "seed"), [(6, 2, 80), (12, 3, 17)])
def test_no_vertex_takes_the_name_of_anothers_neighbour(n, d, seed):
    """Clouds at whose rim, were the names packed one step closer, two vertices far apart would be neighbours."""
    features = cloud(n, d, 1.0, seed)
    filtered = permutohedral_lattice(torch.from_numpy(features).float()[None]).filter(torch.eye(n)[None])[0]
    np.testing.assert_allclose(filtered, plain_lattice(features), atol=1e-4)


def test_lattice_filters_like_a_gaussian_of_deviation_1():
    y, x = np.meshgrid(np.arange(24) / 3, np.arange(30) / 3, indexing="ij")
    features = np.stack([x, y], -1).reshape(-1, 2)
    signal = np.sin(x.ravel()) + np.cos(2 * y.ravel())
    exact = np.exp(-0.5 * ((features[:, None] - features) ** 2).sum(-1))
    filtered = permutohedral_lattice(torch.from_numpy(features).float()[None])
    ours, ones = filtered.filter(torch.from_numpy(np.stack([signal, np.ones(len(signal))])).float()[..., None])[..., 0]
    expected = exact @ signal / exact.sum(1)
    assert np.abs((ours / ones).numpy() - expected).max() < 0.15
    assert np.corrcoef((ours / ones).numpy(), expected)[0, 1] > 0.995


def test_points_of_different_images_never_mix():
    features = torch.from_numpy(cloud(50, 3, 1.0)).float().repeat(3, 1, 1)
    features[2] += 0.37
    together = permutohedral_lattice(features).filter(torch.eye(150)[None])[0]
    for i in range(3):
        part = slice(50 * i, 50 * i + 50)
        alone = permutohedral_lattice(features[i : i + 1]).filter(torch.eye(50)[None])[0]
        assert torch.equal(together[part, part], alone)
    assert together.sum() == pytest.approx(sum(float(together[50 * i :, 50 * i :][:50, :50].sum()) for i in range(3)))


def test_wide_clouds_take_64_bits_and_wider_ones_are_refused(monkeypatch):
    seen = []
    integer = lattice._integer
    monkeypatch.setattr(lattice, "_integer", lambda count: seen.append(integer(count)) or seen[-1])
    permutohedral_lattice(torch.from_numpy(cloud(30, 5, 1.0)).float()[None])
    permutohedral_lattice(torch.from_numpy(cloud(30, 5, 1e3)).float()[None])
    assert seen == [torch.int32, torch.int32, torch.int64, torch.int32]
    assert [integer(2**31 - 1), integer(2**31)] == [torch.int32, torch.int64]
    for spread in (1e5, 1e12, 1e39):
        with pytest.raises(ConfigError, match="standard deviations are too small"):
            permutohedral_lattice(torch.from_numpy(cloud(30, 5, spread)).float()[None])


def test_normalised_scales_both_sides_by_the_root_of_the_row_sums():
    points = permutohedral_lattice(torch.from_numpy(cloud(40, 2, 1.0)).float()[None])
    matrix = points.filter(torch.eye(40)[None])[0].double()
    scale = matrix.sum(1).rsqrt()
    expected = 3 * scale[:, None] * matrix * scale
    ours = points.normalised(3.0).filter(torch.eye(40)[None])[0].double()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_weighted_sum_is_a_sparse_matrix_by_rows():
    rows = WeightedSum(torch.tensor([2, 0, 1]), torch.tensor([0, 2, 2, 3]), torch.tensor([10.0, 1.0, 100.0]))
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    both = rows(torch.stack([values, -values]))
    assert both.tolist() == [[[51, 62], [0, 0], [300, 400]], [[-51, -62], [0, 0], [-300, -400]]]


@pytest.mark.parametrize("most", [1, 2, 3, 64])
def test_a_weighted_sum_in_parts_is_the_same(most):
    random = np.random.default_rng(0)
    start = torch.tensor([0, 0, 1, 5, 5, 12, 12, 12])  # empty rows first, within and last
    source, weight = torch.from_numpy(random.integers(9, size=12)), torch.from_numpy(random.random(12)).float()
    whole, values = WeightedSum(source, start, weight), torch.from_numpy(random.random((2, 9, 3))).float()
    first, second = whole.in_parts(most)
    assert set(first.start.diff().tolist()) <= {*range(1, most + 1)}
    torch.testing.assert_close(second(first(values)), whole(values))


@pytest.mark.parametrize("side", [2, 3, 6])
def test_corners_are_ordered_as_a_stable_sort_does_it(side):
    values = torch.randint(0, 4, (side, 500), generator=torch.Generator().manual_seed(side)).float()
    expected, order = values.sort(dim=0, descending=True, stable=True)
    label = torch.arange(10, 10 + side, dtype=torch.int32)
    ordered, labels = lattice._descending(values, label)
    assert torch.equal(ordered, expected)
    assert torch.equal(labels, label[order])


def test_names_of_32_and_of_64_bits_sort_alike():
    names = torch.randint(0, 40, (300,), generator=torch.Generator().manual_seed(0))
    ordered, entry = lattice._sorted(names.int())
    long, place = lattice._sorted(names << 56)
    assert torch.equal(names[entry].int(), ordered)
    assert torch.equal(long, ordered.long() << 56)
    assert torch.equal(place, entry)


# Mean field


SETTINGS = {
    "iterations": 4,
    "gaussian_sxy": 2.0,
    "gaussian_weight": 1.5,
    "bilateral_sxy": 9.0,
    "bilateral_srgb": 20.0,
    "bilateral_weight": 4.0,
}


@pytest.mark.parametrize("scale", [30, 300])
@pytest.mark.parametrize("channels", [2, crf.FEW, crf.FEW + 1, 8, crf.WIDE])
def test_softmax_of_any_number_of_channels_and_of_each_image_to_the_bit(channels, scale):
    energy = torch.randn(2, 1000, channels, generator=torch.Generator().manual_seed(channels))
    energy[1] *= scale
    result = crf._softmax(energy.clone())
    torch.testing.assert_close(result, energy.double().softmax(2).float(), rtol=1e-6, atol=1e-7)
    assert torch.equal(crf._softmax(energy[:1].clone()), result[:1])


def softmax(energy: np.ndarray) -> np.ndarray:
    e = np.exp(energy - energy.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def plain_crf(scores: np.ndarray, photo: np.ndarray, iterations, gaussian_sxy, gaussian_weight, bilateral_sxy,
              bilateral_srgb, bilateral_weight) -> np.ndarray:  # fmt: skip
    """Return mean-field inference of one image with full kernel matrices; ``scores`` (ch, h, w)."""
    ch, h, w = scores.shape
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    position = np.stack([x, y], -1).reshape(-1, 2)
    kernels = [
        (gaussian_weight, plain_lattice(position / gaussian_sxy)),
        (bilateral_weight, plain_lattice(np.hstack([position / bilateral_sxy, photo.reshape(-1, 3) / bilateral_srgb]))),
    ]
    log_unary = np.log(np.maximum(softmax(scores.reshape(ch, -1).T), 1e-5))
    q = softmax(log_unary)
    for _ in range(iterations):
        message = 0
        for weight, kernel in kernels:
            scale = 1 / np.sqrt(kernel.sum(1))
            message = message + weight * scale[:, None] * (kernel @ (scale[:, None] * q))
        q = softmax(log_unary + message)
    return q.T.reshape(ch, h, w)


def case(b: int, ch: int, h: int, w: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    photo = torch.randint(0, 60, (b, h, w, 3), generator=g)
    photo[:, :, w // 2 :, 0] += 120
    return 3 * torch.rand(b, ch, h, w, generator=g), photo.to(torch.uint8)


@pytest.mark.parametrize(("channels", "lanes"), [(3, 1), (6, 1), (6, 8), (17, 1), (17, 8)])
@pytest.mark.parametrize("change", [{}, {"gaussian_weight": 0.0}, {"bilateral_weight": 0.0}, {"iterations": 0}])
def test_dense_crf_is_its_formula(change, channels, lanes, monkeypatch):
    monkeypatch.setattr(crf, "LANES", lanes)
    scores, photo = case(2, channels, 7, 10)
    settings = SETTINGS | change
    out = dense_crf(scores, photo, **settings)
    for i in range(2):
        expected = plain_crf(scores[i].double().numpy(), photo[i].numpy().astype(float), **settings)
        np.testing.assert_allclose(out[i], expected, atol=1e-4)


def test_a_ruled_out_channel_keeps_a_hundred_thousandth():
    scores = torch.tensor([0.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    out = dense_crf(scores, torch.zeros(1, 3, 4, 3, dtype=torch.uint8), iterations=0)
    torch.testing.assert_close(out[:, 0], torch.full((1, 3, 4), 1e-5), rtol=1e-3, atol=0)


def test_dense_crf_of_a_batch_is_that_of_each_image_to_the_bit():
    scores, photo = case(4, 5, 9, 13)
    photo[2] = 40
    together = dense_crf(scores, photo, **SETTINGS)
    for i in range(4):
        assert torch.equal(together[i : i + 1], dense_crf(scores[i : i + 1], photo[i : i + 1], **SETTINGS))


def test_an_image_stops_on_its_own_once_it_moves_no_more_than_the_tolerance():
    scores, photo = case(3, 3, 8, 11)
    scores[1] = torch.tensor([40.0, 0, 0])[:, None, None]  # settled from the start
    mild = SETTINGS | {"gaussian_weight": 0.5, "bilateral_weight": 1.0}
    steps = [dense_crf(scores, photo, **mild | {"iterations": i}) for i in range(12)]
    moves = torch.stack([(new - old).abs().amax((1, 2, 3)) for old, new in pairwise(steps)])
    tolerance = 0.01
    early = dense_crf(scores, photo, **mild | {"iterations": 11, "tolerance": tolerance})
    stops = [1 + int((moves[:, i] <= tolerance).nonzero()[0]) for i in range(3)]
    assert stops[1] < max(stops) < 11
    for i in range(3):
        assert torch.equal(early[i], steps[stops[i]][i])


def test_labels_move_to_the_edge_of_the_photo():
    photo = torch.zeros(1, 12, 40, 3, dtype=torch.uint8)
    photo[:, :, 22:] = 200
    scores = torch.zeros(1, 2, 12, 40)
    scores[:, 0, :, :18] = 1
    scores[:, 1, :, 18:] = 1
    labels = dense_crf(scores, photo, bilateral_sxy=80.0).argmax(1)
    assert not labels[:, :, :22].any()
    assert labels[:, :, 22:].all()


def test_strong_weights_do_not_overflow():
    scores, photo = case(1, 4, 9, 9)
    out = dense_crf(scores, photo, gaussian_weight=500.0, bilateral_weight=900.0)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(out.sum(1), torch.ones(1, 9, 9))


def test_a_kept_kernel_is_that_of_the_same_size_and_settings():
    scores, image = torch.rand(1, 3, 12, 16), torch.randint(256, (1, 12, 16, 3), dtype=torch.uint8)

    def fresh(scores, image, **settings):
        crf._kept_smoothness.cache_clear()
        return dense_crf(scores, image, **settings)

    turned = scores.transpose(2, 3), image.transpose(1, 2)
    for case, settings in (((scores, image), {}), (turned, {}), (turned, {"gaussian_sxy": 1.0})):
        expected = fresh(*case, **settings)
        for other in ({}, {"gaussian_weight": 1.0}):
            dense_crf(scores, image, **other)
            assert torch.equal(dense_crf(*case, **settings), expected)
