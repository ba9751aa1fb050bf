"""Sliding windows as two matrices, against a loop over windows."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn.functional import interpolate

from pnp_ovss.methods.windows import along, cut, raster

lengths, crops = st.integers(1, 90), st.integers(1, 40)


@given(lengths, crops, st.integers(1, 40))
def test_windows_cover_a_side_and_end_with_it(length, crop, stride):
    axis = along(length, crop, min(stride, crop))
    assert axis.window == min(length, crop)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.window == length
    steps = [after - before for before, after in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(0 < step <= min(stride, crop) for step in steps)
    assert all(step == min(stride, crop) for step in steps[:-1])


def test_no_crop_is_one_window():
    assert along(50, 0, 7).starts == (0,)
    assert along(50, 0, 7).window == 50


def looped(grids, rows, columns, size):
    """Return what the papers' code does: each window enlarged and added in its place, over how often a pixel came."""
    queries, sums = grids.shape[1], torch.zeros(grids.shape[1], rows.length, columns.length)
    counts, windows = torch.zeros(rows.length, columns.length), iter(grids)
    padded = [axis.before + axis.window + axis.after for axis in (rows, columns)]
    for top in rows.starts:
        for left in columns.starts:
            large = interpolate(next(windows)[None], size=padded, mode="bilinear")[0]
            large = large[:, rows.before :, columns.before :][:, : rows.window, : columns.window]
            sums[:, top : top + rows.window, left : left + columns.window] += large
            counts[top : top + rows.window, left : left + columns.window] += 1
    return interpolate((sums / counts)[None], size=size, mode="bilinear")[0].view(queries, *size)


@settings(deadline=None)
@given(lengths, lengths, crops, st.integers(1, 40), st.integers(1, 6), st.integers(1, 3), st.data())
def test_two_matrices_do_what_a_loop_does(h, w, crop, stride, multiple, cells, data):
    rows, columns = (along(side, crop, min(stride, crop)).padded(multiple) for side in (h, w))
    size = data.draw(lengths), data.draw(lengths)
    count = len(rows.starts) * len(columns.starts)
    grids = torch.rand(count, 2, cells, cells + 1, generator=torch.Generator().manual_seed(h * w))
    down, right = rows.spread(cells, size[0]), columns.spread(cells + 1, size[1])
    spread = down @ raster(grids, len(columns.starts)) @ right.T
    torch.testing.assert_close(spread, looped(grids, rows, columns, size), rtol=0, atol=1e-5)


def test_windows_are_cut_row_by_row_and_filled_up_with_zeros():
    pixels = torch.arange(3 * 5 * 4).reshape(3, 5, 4).float() + 1
    rows, columns = along(5, 3, 2).padded(4), along(4, 3, 3).padded(2)
    windows = cut(pixels, rows, columns)
    assert windows.shape == (4, 3, 4, 4)
    assert rows.starts == (0, 2)
    assert columns.starts == (0, 1)
    torch.testing.assert_close(windows[1, :, :3, :3], pixels[:, :3, 1:])  # of one pixel too few the end gets it
    assert not windows[:, :, 3].any()
    assert not windows[:, :, :, 3].any()


@pytest.mark.parametrize("direct", [True, False])
def test_a_single_window_may_be_resampled_at_once(direct):
    axis = along(16, 0, 1)
    small = torch.rand(4, 1)
    at_once = interpolate(small.T[None], size=9, mode="linear")[0].T
    by_way = interpolate(interpolate(small.T[None], size=16, mode="linear"), size=9, mode="linear")[0].T
    torch.testing.assert_close(axis.spread(4, 9, direct) @ small, at_once if direct else by_way)
