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

ROWS = 2**18
"""Pixels whose softmax is taken at a time."""

KEPT = 2**20
"""Pixels of a photo up to which the smoothness kernel is kept for the next of the same size; 55 bytes each."""

FEW, WIDE = 4, 16
"""Channels up to which a softmax goes column by column, and from which on torch's own is the fastest: 16 fill a
register."""


@dataclass(frozen=True)
class DenseCRF(Refiner):
    """Step 9 of the method."""

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
        scores = 4 * pixels * (kept * channels + 6 * group_size(channels, pixels))
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
    rows = scores.float().permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    log_unary = _softmax(rows.view(b * h * w, channels)).clamp_(min=LEAST).log_()
    del rows
    build = _kept_smoothness if h * w <= KEPT else _smoothness
    gaussian = build(h, w, gaussian_sxy, gaussian_weight, image.device)  # one for all photos of a size
    appearance = _appearance(image, bilateral_sxy, bilateral_srgb)
    bilateral = permutohedral_lattice(appearance).normalised(bilateral_weight)
    probability = _softmax(log_unary.clone())
    done = torch.zeros(b, 1, 1, dtype=torch.bool, device=scores.device)
    for iteration in range(iterations):
        on_step("crf", iteration, iterations)
        following = torch.empty_like(probability) if tolerance > 0 else probability
        for part in groups(channels, b * h * w):  # the filters take each channel by itself
            some = probability[:, part].contiguous()
            smooth = gaussian.filter(some.view(b, h * w, -1)).view_as(some)
            following[:, part] = smooth.add_(bilateral.filter(some[None])[0]).add_(log_unary[:, part])
        following = _softmax(following)
        if tolerance > 0:
            old, new = probability.view(b, h * w, channels), following.view(b, h * w, channels)
            following = torch.where(done, old, new).view_as(probability)
            done = done | ((new - old).abs().amax((1, 2), keepdim=True) <= tolerance)
        probability = following
        if tolerance > 0 and bool(done.all()):
            break
    return probability.view(b, h, w, channels).permute(0, 3, 1, 2).contiguous()


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


def _softmax(energy: Float[Tensor, "n ch"]) -> Float[Tensor, "n ch"]:
    """Return the softmax over the channels; ``energy`` is used up.

    With few channels torch's own is several times slower on a CPU, and over another axis its rounding depends on the
    batch.
    """
    if energy.is_cuda:
        return energy.softmax(1)
    if energy.shape[1] >= WIDE:
        for rows in torch.split(energy, ROWS):
            rows.copy_(rows.softmax(1))
        return energy
    if energy.shape[1] <= FEW:
        channels = energy.unbind(1)
        most = reduce(torch.maximum, channels)
        for channel in channels:
            channel.sub_(most)
        energy.exp_()
        total = reduce(torch.add, channels)
        for channel in channels:
            channel.div_(total)
        return energy
    energy.sub_(energy.amax(1, keepdim=True)).exp_()
    return energy.div_(energy.sum(1, keepdim=True))
