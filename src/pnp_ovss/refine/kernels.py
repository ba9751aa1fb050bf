"""Weighted sums of rows on a GPU, as a Triton kernel: ``embedding_bag`` wants many channels to be fast there.

Import it where there is a CUDA device and Triton, which comes with torch for Linux.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LANES = 256
"""Sums of one program, counted over rows and channels."""
WIDEST = 32
"""Channels of one program."""


@triton.jit  # type: ignore[untyped-decorator]
def _sums(  # type: ignore[no-untyped-def]  # Triton reads the annotations
    source,
    start,
    weight,
    values,
    result,
    inputs,
    rows,
    channels,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    EACH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    image = tl.program_id(2).to(tl.int64)
    lane = (channel < channels)[None, :]
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    if EACH:  # all reads are under way at once
        inside = row < rows
        for number in tl.static_range(EACH):
            place = tl.load(source + row * EACH + number, mask=inside, other=0).to(tl.int64)
            factor = tl.load(weight + row * EACH + number, mask=inside, other=0.0)
            at = (image * inputs + place)[:, None] * channels + channel[None, :]
            total += factor[:, None] * tl.load(values + at, mask=inside[:, None] & lane, other=0.0)
    else:
        begin = tl.load(start + row, mask=row < rows, other=0)
        count = tl.load(start + row + 1, mask=row < rows, other=0) - begin
        for number in range(tl.max(count, 0)):
            inside = number < count
            place = tl.load(source + begin + number, mask=inside, other=0).to(tl.int64)
            factor = tl.load(weight + begin + number, mask=inside, other=0.0)
            at = (image * inputs + place)[:, None] * channels + channel[None, :]
            total += factor[:, None] * tl.load(values + at, mask=inside[:, None] & lane, other=0.0)
    at = (image * rows + row)[:, None] * channels + channel[None, :]
    tl.store(result + at, total, mask=(row < rows)[:, None] & lane)


def weighted_sums(source: Tensor, start: Tensor, weight: Tensor, values: Tensor, each: int = 0) -> Tensor:
    """Return what ``WeightedSum`` returns of ``values`` (image, n, ch), float32: (image, row, ch).

    Every sum is taken in the order of its entries, so the same input always gives the same bits.
    """
    images, inputs, channels = values.shape
    rows = len(start) - 1
    result = values.new_empty(images, rows, channels)
    width = min(WIDEST, triton.next_power_of_2(channels))
    block = LANES // width
    grid = triton.cdiv(rows, block), triton.cdiv(channels, width), images
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        sizes = inputs, rows, channels, block, width, each
        _sums[grid](source, start, weight, values.contiguous(), result, *sizes)
    return result
