"""The guided filter: scores become a locally linear function of the photo's colour, at its own size or a larger one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.refine.base import Images, Refiner, Scores
from pnp_ovss.settings import setting
from pnp_ovss.types import OnStep, ignore

STRIP = 2**20
"""Pixels enlarged at a time."""

GUIDE = 300
"""Bytes per pixel that it takes to fit anything to the photo's colours."""


@dataclass(frozen=True)
class GuidedFilter(Refiner):
    """Scores fitted to the colours around each pixel."""

    guided_radius: float = setting(0.02, "guided: window radius as a share of the photo's longer side", 0, 1)
    # Below 1e-8 the fit to a grey photo is lost in rounding.
    guided_epsilon: float = setting(1e-3, "guided: smaller follows edges more closely; squared intensity, 0-1", 1e-8)

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return ``guided_filter(scores, image)`` with these settings."""
        return guided_filter(scores, image, radius=self.guided_radius, epsilon=self.guided_epsilon)

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before and after, and what fits one channel at a time to the photo's colours."""
        return 4 * pixels * 2 * channels + GUIDE * pixels


@torch.no_grad()
def guided_filter(scores: Scores, image: Images, *, radius: float, epsilon: float) -> Scores:
    """Return the ``slope . colour + offset`` that fits each channel best, averaged over the windows of a pixel.

    Values stay within each channel's range, which the fit alone may leave.

    Windows are squares that reach ``radius`` (a share of the longer side, at least one pixel) each way and end at the
    photo's edge. Per window, ``slope = (cov(colour) + epsilon) ** -1 cov(colour, score)``: with a smaller ``epsilon``,
    in squared intensity of colours from 0 to 1, weaker edges count.

    Source: He, Sun, Tang, "Guided image filtering", TPAMI 2013, equations 14 to 16 and 18 (colour guide).
    """
    colour = _colour(image)
    pixels = max(1, round(radius * max(scores.shape[2:])))
    result = torch.empty_like(scores)
    for channel, (score, fit) in enumerate(
        zip(scores.unbind(1), _fits(scores.unbind(1), colour, pixels, epsilon), strict=True)
    ):
        low, high = score.amin((1, 2), keepdim=True), score.amax((1, 2), keepdim=True)
        result[:, channel] = _apply(fit, colour).maximum(low).minimum(high)
    return result


@torch.no_grad()
def guided_upsample(
    scores: Float[Tensor, "b ch sh sw"],
    small: UInt8[Tensor, "b sh sw 3"],
    image: Images,
    *,
    radius: int = 2,
    epsilon: float = 1e-4,
    on_step: OnStep = ignore,
) -> Scores:
    """Return ``scores`` at the size of ``image``, their edges on the photo's; ``small`` is the photo at their own size.

    The fit of ``guided_filter`` is made at the small size (``radius`` in its pixels) and enlarged; the colour is taken
    at full size. Values stay within each channel's range. Needs little more memory than the result.

    Source: He and Sun, "Fast guided filter", arXiv 1505.00996.
    """
    result = scores.new_empty(*scores.shape[:2], *image.shape[1:3])
    for channel, enlarged in enumerate(enlarge(scores, small, image, radius=radius, epsilon=epsilon, on_step=on_step)):
        result[:, channel] = enlarged
    return result


@torch.no_grad()
def enlarge(
    scores: Float[Tensor, "b ch sh sw"],
    small: UInt8[Tensor, "b sh sw 3"],
    image: Images,
    *,
    radius: int = 2,
    epsilon: float = 1e-4,
    order: Sequence[int] | None = None,
    on_step: OnStep = ignore,
) -> Iterator[Float[Tensor, "b h w"]]:
    """Yield the channels of what ``guided_upsample`` returns, one by one, in this ``order`` if any."""
    rows, order = scores.shape[2], range(scores.shape[1]) if order is None else order
    chosen = [scores[:, channel] for channel in order]
    for number, (score, fit) in enumerate(zip(chosen, _fits(chosen, _colour(small), radius, epsilon), strict=True)):
        on_step("upsample", number, len(chosen))
        low, high = score.amin((1, 2), keepdim=True), score.amax((1, 2), keepdim=True)
        yield _enlarged(fit, rows, image, low, high)


def _enlarged(
    fit: Float[Tensor, "b 4 sh sw"], rows: int, image: Images, low: Tensor, high: Tensor
) -> Float[Tensor, "b h w"]:
    """Return the enlarged fit applied to the photo's colours, made by strips of rows."""
    h, w = image.shape[1:3]
    result = fit.new_empty(len(fit), h, w)
    for strip in torch.split(torch.arange(h, device=fit.device), max(1, STRIP // w)):
        at = ((strip + 0.5) * (rows / h) - 0.5).clamp_(0, rows - 1)  # in rows of `fit`, pixel centres on pixel centres
        first, last = int(at[0]), int(at[-1].ceil()) + 1
        wide = interpolate(fit[:, :, first:last], size=(last - first, w), mode="bilinear", align_corners=False)
        above = at.long() - first
        below = (above + 1).clamp_(max=last - first - 1)
        tall = torch.lerp(wide[:, :, above], wide[:, :, below], at.frac().to(fit)[:, None])
        part = slice(int(strip[0]), int(strip[-1]) + 1)
        result[:, part] = _apply(tall, _colour(image[:, part])).maximum(low).minimum(high)
    return result


def _colour(image: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    return image.permute(0, 3, 1, 2).float() / 255


def _apply(fit: Float[Tensor, "b 4 h w"], colour: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    result = fit[:, 3].clone()
    for i in range(3):
        result.addcmul_(fit[:, i], colour[:, i])
    return result


def _fits(
    scores: Sequence[Float[Tensor, "b h w"]], colour: Float[Tensor, "b 3 h w"], radius: int, epsilon: float
) -> Iterator[Float[Tensor, "b 4 h w"]]:
    """Yield for each channel slope (3) and offset (1) per pixel, the mean over the windows that hold the pixel."""
    guide = colour.double()  # colours of a grey photo vary together: what is left of the determinant is tiny
    mean = _box(guide, radius)
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    xx, xy, xz, yy, yz, zz = (
        _box(guide[:, i] * guide[:, j], radius) - mean[:, i] * mean[:, j] + epsilon * (i == j) for i, j in pairs
    )
    # The inverse of a symmetric 3 x 3 matrix by its cofactors: a batched solver takes ten times as long.
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, f = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * a + xy * b + xz * c
    a, b, c, d, e, f = ((cofactor / determinant).to(colour) for cofactor in (a, b, c, d, e, f))
    mean = mean.to(colour)
    del guide, determinant, xx, xy, xz, yy, yz, zz
    for score in scores:
        level = _box(score, radius)
        x, y, z = (_box(colour[:, i] * score, radius) - mean[:, i] * level for i in range(3))
        slope = torch.stack([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z], 1)
        yield _box(torch.cat([slope, (level - (slope * mean).sum(1))[:, None]], 1), radius)


def _box(values: Float[Tensor, "*b h w"], radius: int) -> Float[Tensor, "*b h w"]:
    """Return the mean over the window of each pixel, cut off at the border; summed in double precision."""
    for axis in (-2, -1):
        length = values.shape[axis]
        sums = values.cumsum(axis, dtype=torch.double)
        sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], axis)
        middle = torch.arange(length, device=values.device)
        last, first = (middle + radius + 1).clamp_(max=length), (middle - radius).clamp_(min=0)
        count = (last - first).to(values.dtype)
        values = (sums.index_select(axis, last) - sums.index_select(axis, first)).to(values.dtype)
        values = values / (count if axis == -1 else count[:, None])
    return values
