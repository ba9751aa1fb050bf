"""Step 9: a fully connected conditional random field pulls the labels to the edges of the photo."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.refine.base import Images, Refiner, Scores, group_size, groups
from pnp_ovss.refine.lattice import Lattice, most_vertices, permutohedral_lattice
from pnp_ovss.settings import MANY, MOST_STEPS, setting
from pnp_ovss.types import OnStep, ignore

LEAST = 1e-5
"""No channel starts with a smaller probability: one that the scores rule out can come back."""

PIXEL, VERTEX = 400, 200
"""Bytes of both lattices per pixel and per vertex."""

CORNERS = 3 + 6
"""Vertices per pixel at most, where every pixel has its own."""

KEPT = 2**20
"""Pixels of a photo up to which the smoothness kernel is kept for the next of the same size; 55 bytes each."""

LANES = 8 if torch.backends.cpu.get_cpu_capability() == "AVX2" else 1
"""A photo's rows have a multiple of so many columns: AVX2 stores a part of a register several times slower."""

FEW, WIDE = 4, 16
"""Channels up to which sums go column by column, and from which on torch's own softmax is the fastest."""

SAFE = 80.0
"""The exponential of what lies this far from 0 is a float32."""


@dataclass(frozen=True)
class DenseCRF(Refiner):
    """Fully connected CRF with Gaussian edge potentials: step 9 of PnP-OVSS."""

    crf_iterations: int = setting(10, "crf: mean-field iterations", 0, MOST_STEPS)
    crf_gaussian_sxy: float = setting(3.0, "crf: smoothness kernel, standard deviation in pixels", 1 / MANY)
    crf_gaussian_weight: float = setting(7.0, "crf: smoothness kernel, weight")
    crf_bilateral_sxy: float = setting(50.0, "crf: appearance kernel, standard deviation in pixels", 1 / MANY)
    crf_bilateral_srgb: float = setting(5.0, "crf: appearance kernel, standard deviation in 8-bit colours", 1 / MANY)
    crf_bilateral_weight: float = setting(10.0, "crf: appearance kernel, weight")
    crf_bgr: bool = setting(
        False, "crf: take colours as blue, green, red; the lattice rounds a little differently then"
    )
    crf_tolerance: float = setting(0.0, "crf: stop early when no probability moves more than this; 0: never", 0, 1)

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return ``dense_crf(scores, image)`` with these settings."""
        settings = {name.removeprefix("crf_"): value for name, value in vars(self).items() if name != "crf_bgr"}
        return dense_crf(scores, image.flip(-1) if self.crf_bgr else image, on_step=on_step, **settings)

    def scaled(self, factor: float) -> "DenseCRF":
        """Return the step with both standard deviations in pixels scaled."""
        gaussian, bilateral = self.crf_gaussian_sxy * factor, self.crf_bilateral_sxy * factor
        return replace(self, crf_gaussian_sxy=gaussian, crf_bilateral_sxy=bilateral)

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before, as energies and as probabilities, what filters a group, and the lattices.

        The vertices of a photo are counted, which takes a few seconds where it is large.
        """
        kept, vertices = 4 if self.crf_tolerance > 0 else 3, CORNERS * pixels
        if image is not None:
            photo = image()
            size = photo.shape[0], photo.shape[1], photo.shape[2]
            position = _positions(*size, photo.device) / self.crf_gaussian_sxy
            appearance = _appearance(photo, self.crf_bilateral_sxy, self.crf_bilateral_srgb)
            vertices = sum(most_vertices(points.flatten(0, 1)) for points in (position, appearance))
        width = _width(channels, pixels)
        scores = 4 * pixels * (channels + (kept - 1) * width + 6 * group_size(width, pixels))
        return scores + PIXEL * pixels + VERTEX * vertices


@torch.no_grad()
def dense_crf(
    scores: Scores,
    image: Images,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3.0,
    gaussian_weight: float = 7.0,
    bilateral_sxy: float = 50.0,
    bilateral_srgb: float = 5.0,
    bilateral_weight: float = 10.0,
    tolerance: float = 0.0,
    on_step: OnStep = ignore,
) -> Scores:
    """Return the probability of each channel per pixel after mean-field inference; they sum to 1.

    ``log_unary = log(softmax(scores))``, and each iteration is

    ``Q <- softmax(log_unary + gaussian_weight * G(Q) + bilateral_weight * B(Q))``

    ``G`` filters over the position (standard deviation ``gaussian_sxy`` pixels), ``B`` over position and 8-bit RGB
    (``bilateral_sxy`` pixels, ``bilateral_srgb`` colour steps), both normalised symmetrically: the Potts model.
    With a ``tolerance`` above 0, an image is done once no probability moves by more than that.

    Source: Krahenbuhl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", 2011.
    The same numbers as pydensecrf with DIAG_KERNEL and NORMALIZE_SYMMETRIC, up to rounding.
    """
    b, channels, h, w = scores.shape
    width = _width(channels, h * w, scores.device.type)
    log_unary = scores.new_full((b, h, w, width), -torch.inf, dtype=torch.float)
    log_unary[..., :channels] = scores.permute(0, 2, 3, 1)
    log_unary = _softmax(log_unary.view(b, h * w, width)).clamp_(min=LEAST).log_()
    log_unary[..., channels:] = -torch.inf
    build = _kept_smoothness if h * w <= KEPT else _smoothness
    gaussian = build(h, w, gaussian_sxy, gaussian_weight, image.device)  # one for all photos of a size
    appearance = _appearance(image, bilateral_sxy, bilateral_srgb)
    bilateral = permutohedral_lattice(appearance).normalised(bilateral_weight)
    probability = _softmax(log_unary.clone())
    done = torch.zeros(b, 1, 1, dtype=torch.bool, device=scores.device)
    parts = [*groups(width, b * h * w)]

    def smoothed(some: Tensor) -> Tensor:
        return gaussian.filter(some).add_(bilateral.filter(some.view(1, b * h * w, -1)).view_as(some))

    for iteration in range(iterations):
        on_step("crf", iteration, iterations)
        if len(parts) == 1:
            following = smoothed(probability).add_(log_unary)
        else:  # the filters take each channel by itself
            following = torch.empty_like(probability) if tolerance > 0 else probability
            for part in parts:
                following[..., part] = smoothed(probability[..., part].contiguous()).add_(log_unary[..., part])
        following = _softmax(following)
        if tolerance > 0:
            following = torch.where(done, probability, following)
            done = done | ((following - probability).abs().amax((1, 2), keepdim=True) <= tolerance)
        probability = following
        if tolerance > 0 and bool(done.all()):
            break
    return probability.view(b, h, w, width)[..., :channels].permute(0, 3, 1, 2).contiguous()


def _appearance(image: Images, sxy: float, srgb: float) -> Float[Tensor, "b n 5"]:
    """Return position and colour of the pixels in standard deviations."""
    b, h, w = image.shape[:3]
    return torch.cat([_positions(b, h, w, image.device) / sxy, image.reshape(b, h * w, 3).float() / srgb], -1)


def _positions(b: int, h: int, w: int, device: torch.device) -> Float[Tensor, "b n 2"]:
    """Return column and row of the pixels."""
    y, x = (torch.arange(side, device=device).float() for side in (h, w))
    return torch.cartesian_prod(y, x).view(1, h * w, 2).flip(2).expand(b, -1, -1)


def _smoothness(h: int, w: int, sxy: float, weight: float, device: torch.device) -> Lattice:
    """Return the kernel that no colour changes: the same for every photo of a size."""
    return permutohedral_lattice(_positions(1, h, w, device) / sxy).normalised(weight)


_kept_smoothness = lru_cache(maxsize=1)(_smoothness)


def _width(channels: int, pixels: int, device: str = "cpu") -> int:
    """Return how many columns hold the channels of an image: whole registers, where parts of them are stored slowly."""
    whole = device == "cpu" and channels > FEW and pixels <= KEPT
    return -(-channels // LANES) * LANES if whole else channels


def _softmax(energy: Float[Tensor, "b n ch"]) -> Float[Tensor, "b n ch"]:
    """Return the softmax over the channels; ``energy`` is used up.

    With few channels torch's own is several times slower on a CPU, and over another axis its rounding depends on the
    batch.
    """
    if energy.device.type != "cpu":
        return energy.softmax(2)
    if energy.shape[2] >= WIDE or energy.shape[2] == LANES:
        return torch.softmax(energy, 2, out=energy)
    for image in energy:  # each by itself: the largest value of one changes no other
        channels = image.unbind(1)
        low, high = image.aminmax()
        if not (low > -SAFE and high < SAFE):
            most = reduce(torch.maximum, channels)
            for channel in channels:
                channel.sub_(most)
        image.exp_()
        share = (reduce(torch.add, channels) if len(channels) <= FEW else image.sum(1)).reciprocal_()
        for channel in channels:
            channel.mul_(share)
    return energy
