"""The permutohedral lattice: a Gaussian filter over points of any dimension, in time linear in their number.

Each point is splatted onto the ``d + 1`` corners of the simplex it lies in, the lattice is blurred along its
``d + 1`` axes, and the points read their corners back with the same weights.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice", 2010.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["Lattice"]


@dataclass(frozen=True)
class Lattice:
    """Where the points of one or more images touch the lattice. Built once, used by every iteration and class."""

    corner: Int[Tensor, "point corner"]  # row of each corner in the lattice
    weight: Float[Tensor, "point corner"]  # barycentric, rows sum to 1
    member: Int[Tensor, " entry"]  # the points of corner 0, then of corner 1, ...
    start: Int[Tensor, " vertex"]  # where each vertex begins in `member`
    member_weight: Float[Tensor, " entry"]
    neighbours: tuple[tuple[Int[Tensor, "vertex 3"], Float[Tensor, "vertex 3"]], ...]  # per axis: itself, two more

    def filter(self, values: Float[Tensor, "point ch"]) -> Float[Tensor, "point ch"]:
        """Return, for each point, the Gaussian-weighted sum of all ``values`` around it (not an average)."""
        lattice = embedding_bag(self.member, values, self.start, mode="sum", per_sample_weights=self.member_weight)
        for index, share in self.neighbours:
            lattice = embedding_bag(index, lattice, mode="sum", per_sample_weights=share)
        axes = len(self.neighbours)
        return embedding_bag(self.corner, lattice, mode="sum", per_sample_weights=self.weight) / (1 + 2.0 ** (1 - axes))

    @staticmethod
    def build(features: Float[Tensor, "b n d"]) -> "Lattice":
        b, n, d = features.shape
        side = d + 1
        elevated = _elevate(features.reshape(b * n, d))
        floor = (elevated / side).floor()
        rest, order = (elevated - floor * side).sort(-1, descending=True)
        short = (rest.sum(-1) / side).round().long()
        weight = torch.cat([side - rest[:, :1] + rest[:, -1:], rest[:, :-1] - rest[:, 1:]], 1) / side

        cells = floor.long()[:, :d]
        cells -= cells.amin(0) - 2
        extent = (cells.amax(0) + 3) * side
        stride = torch.ones(side + 1, dtype=torch.long, device=features.device)
        stride[1:] = extent.new_tensor([*extent.cumprod(0).tolist(), 0])
        # stride[:d] places, stride[d] the image
        image = torch.arange(b, device=features.device).repeat_interleave(n)
        place = stride[:side].clone()
        per_image = stride[d].clone()
        place[d] = 0
        diagonal = place.sum()
        key = torch.empty(b * n, side, dtype=torch.long, device=features.device)
        key[:, 0] = (cells * side * place[:d]).sum(1) + short * diagonal + image * per_image
        key[:, 1:] = side * place[order[:, :-1]] - diagonal
        key = key.cumsum(1)

        ordered, entry = key.flatten().sort(stable=True)
        first = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=first[1:])
        start = first.nonzero()[:, 0]
        vertices = ordered[start]
        corner = torch.empty_like(entry)
        corner[entry] = first.cumsum(0) - 1
        neighbours = []
        itself = torch.arange(len(vertices), device=features.device)
        for axis in range(side):
            step = side * place[axis] - diagonal
            wanted = vertices + step
            at = torch.searchsorted(vertices, wanted).clamp_(max=len(vertices) - 1)
            found = vertices[at] == wanted
            index = torch.stack([itself, itself, itself], 1)
            share = torch.zeros(len(vertices), 3)
            share[:, 0] = 1
            index[found, 1] = at[found]
            share[found, 1] = 0.5
            index[at[found], 2] = itself[found]
            share[at[found], 2] = 0.5
            neighbours.append((index, share.to(features)))
        return Lattice(corner.view(-1, side), weight, entry // side, start, weight.flatten()[entry], tuple(neighbours))


def _elevate(features: Float[Tensor, "n d"]) -> Float[Tensor, "n side"]:
    """Return the points on the hyperplane of zero sum, scaled so that the blur has a standard deviation of 1."""
    d = features.shape[1]
    axis = torch.arange(1, d + 1, device=features.device, dtype=features.dtype)
    scaled = features * ((d + 1) * (2 / 3) ** 0.5 / (axis * (axis + 1)).sqrt())
    basis = torch.ones(d, d + 1, device=features.device, dtype=features.dtype).tril()
    basis.diagonal(1).copy_(-axis)
    return scaled @ basis
