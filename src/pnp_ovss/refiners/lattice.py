"""The permutohedral lattice: a Gaussian filter over points of any dimension, in time linear in their number.

Every point is splatted onto the ``d + 1`` corners of the simplex it lies in, the lattice is blurred along its
``d + 1`` axes, and every point reads its corners back with the same weights. All three are sparse sums of rows, done by
``embedding_bag``, torch's fastest form of them on the CPU.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice", Eurographics 2010.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["Lattice", "permutohedral_lattice"]


@dataclass(frozen=True)
class Lattice:
    """Where points meet the lattice: built once, used for any number of channels and iterations."""

    corner: Int[Tensor, "point side"]
    """Vertices of the simplex each point lies in."""
    corner_weight: Float[Tensor, "point side"]
    """Barycentric coordinates, rows sum to 1 (before ``normalised``)."""
    member: Int[Tensor, " entry"]
    """The same the other way round: the points at vertex 0, then those at vertex 1, ..."""
    member_weight: Float[Tensor, " entry"]
    start: Int[Tensor, " vertex"]
    """First entry of each vertex in ``member``."""
    blurs: tuple[tuple[Int[Tensor, "vertex 3"], Float[Tensor, "vertex 3"]], ...]
    """Per axis: each vertex and its two neighbours, and their weights 1, 1/2, 1/2; 0 where there is no neighbour."""

    def filter(self, values: Float[Tensor, "point ch"]) -> Float[Tensor, "point ch"]:
        """Return the Gaussian-weighted sum of the ``values`` around each point; a point alone keeps less than its own."""
        lattice = embedding_bag(self.member, values, self.start, mode="sum", per_sample_weights=self.member_weight)
        for rows, weights in self.blurs:
            lattice = embedding_bag(rows, lattice, mode="sum", per_sample_weights=weights)
        return embedding_bag(self.corner, lattice, mode="sum", per_sample_weights=self.corner_weight)

    def normalised(self, gain: float) -> "Lattice":
        """Return ``gain * D K D``, where ``K`` is this filter and ``D = diag(K 1) ** -1/2``."""
        ones = self.corner_weight.new_ones(len(self.corner), 1)
        scale = (self.filter(ones) + 1e-20).rsqrt()
        return replace(
            self,
            corner_weight=self.corner_weight * scale * gain,
            member_weight=self.member_weight * scale.flatten()[self.member],
        )


def permutohedral_lattice(features: Float[Tensor, "b n d"]) -> Lattice:
    """Return the lattice of ``b * n`` points; points of different ``b`` share no vertex.

    ``features`` are in standard deviations of the filter.

    A vertex is the sum of ``steps[i]`` times axis ``i`` (+d in coordinate i, -1 in the others). The axes sum to zero, so
    axis 0 is minus the sum of the others, and ``steps[1:]`` packed into one integer name the vertex.

    Raises: ValueError if the points spread over more vertices than an integer can name.
    """
    b, n, d = features.shape
    side = d + 1
    elevated = _elevate(features.reshape(b * n, d))
    floor = (elevated / side).floor_()
    rest, order = elevated.sub_(floor, alpha=side).sort(1, descending=True)
    weight = torch.cat([side - rest[:, :1] + rest[:, -1:], rest[:, :-1] - rest[:, 1:]], 1) / side

    steps = floor.sub_(floor[:, :1].clone())
    low = steps.amin(0)
    extents = [int(extent) + 3 for extent in (steps.amax(0) - low).tolist()]  # one step each way, and a gap
    places = [1]
    for extent in extents[1:]:
        places.append(places[-1] * extent)
    if places[-1] * b >= 2**63:
        raise ValueError(f"the points span {extents[1:]} lattice steps; fewer than 2**63 cells are wanted: widen the filter")
    number = torch.int32 if places[-1] * b < 2**31 else torch.int64
    place = torch.tensor([-sum(places[:-1]), *places[:-1]], dtype=number, device=features.device)
    image = torch.arange(b, dtype=number, device=features.device).repeat_interleave(n) * places[-1]

    # From the corner at the floor, the others follow one axis at a time, the one with the largest rest first.
    key = torch.empty(b * n, side, dtype=number, device=features.device)
    key[:, 0] = ((steps - low + 1).to(number)[:, 1:] * place[1:]).sum(1, dtype=number) + image
    key[:, 1:] = place.take(order[:, :-1])
    ordered, entry = key.cumsum(1, dtype=number).flatten().sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    vertices = ordered[first]
    corner = torch.empty_like(entry).scatter_(0, entry, first.cumsum(0) - 1)
    return Lattice(
        corner=corner.view(-1, side),
        corner_weight=weight / (1 + 2.0**-d),
        member=entry.div(side, rounding_mode="floor"),
        member_weight=weight.flatten()[entry],
        start=first.nonzero().flatten(),
        blurs=tuple(_blur(vertices, step) for step in place.tolist()),
    )


def _blur(vertices: Int[Tensor, " vertex"], step: int) -> tuple[Int[Tensor, "vertex 3"], Float[Tensor, "vertex 3"]]:
    """Return each vertex with its two neighbours along one axis, and the weights of the three; ``vertices`` is sorted."""
    count = len(vertices)
    itself = torch.arange(count + 1, device=vertices.device)
    after = torch.searchsorted(vertices, vertices + step).clamp_(max=count - 1)
    found = vertices[after] == vertices + step
    before = itself.scatter(0, torch.where(found, after, count), itself[:count])
    rows = torch.stack([itself[:count], torch.where(found, after, itself[:count]), before[:count]], 1)
    weights = (rows != rows[:, :1]).float() / 2
    weights[:, 0] = 1
    return rows, weights


def _elevate(features: Float[Tensor, "n d"]) -> Float[Tensor, "n side"]:
    """Return the points on the plane where coordinates sum to 0, scaled so that the lattice blurs by one unit of them."""
    d = features.shape[1]
    axis = torch.arange(1, d + 1, device=features.device, dtype=features.dtype)
    basis = torch.ones(d, d + 1, device=features.device, dtype=features.dtype).tril()
    basis.diagonal(1).copy_(-axis)
    return (features * ((d + 1) * (2 / 3) ** 0.5 / (axis * (axis + 1)).sqrt())) @ basis
