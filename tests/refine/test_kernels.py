"""The weighted sums of a GPU: on one, or with TRITON_INTERPRET=1 on a CPU that has Triton."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from pnp_ovss.refine.crf import dense_crf
from pnp_ovss.refine.lattice import WeightedSum

CUDA = torch.cuda.is_available()
if not find_spec("triton") or not (CUDA or os.environ.get("TRITON_INTERPRET")):
    pytest.skip("needs Triton and CUDA", allow_module_level=True)

from pnp_ovss.refine.kernels import weighted_sums  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
@pytest.mark.parametrize("channels", [1, 3, 7, 40])
def test_sums_are_those_of_a_cpu(integer, channels):
    random = np.random.default_rng(channels)
    counts = random.integers(0, 9, size=300)
    counts[[0, -1]] = 0
    start = torch.from_numpy(np.cumsum([0, *counts])).to(integer)
    source = torch.from_numpy(random.integers(50, size=counts.sum())).to(integer)
    weight, values = torch.rand(len(source)), torch.rand(2, 50, channels)
    expected = WeightedSum(source, start, weight)(values)
    parts = [part.to(DEVICE) for part in (source, start, weight, values)]
    torch.testing.assert_close(weighted_sums(*parts).cpu(), expected)


@pytest.mark.parametrize("each", [1, 3, 6])
def test_rows_of_as_many_entries_each(each):
    random = np.random.default_rng(each)
    start, source = torch.arange(0, 300 * each + 1, each), torch.from_numpy(random.integers(50, size=300 * each))
    weight, values = torch.rand(len(source)), torch.rand(2, 50, 4)
    expected = WeightedSum(source, start, weight)(values)
    parts = [part.to(DEVICE) for part in (source, start, weight, values)]
    torch.testing.assert_close(weighted_sums(*parts, each).cpu(), expected)


@pytest.mark.skipif(not CUDA, reason="no CUDA here")
def test_a_photo_of_a_batch_is_as_alone_and_as_on_a_cpu():
    random = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 4, 48, 64, generator=random)
    images = torch.randint(256, (3, 12, 16, 3), generator=random).repeat_interleave(4, 1).repeat_interleave(4, 2).byte()
    together = dense_crf(scores.cuda(), images.cuda())
    assert torch.equal(together, dense_crf(scores.cuda(), images.cuda()))
    for number in range(3):
        one = slice(number, number + 1)
        alone = dense_crf(scores[one].cuda(), images[one].cuda())
        assert torch.equal(together[one], alone)
        assert (alone.cpu() - dense_crf(scores[one], images[one])).abs().median() < 1e-5
