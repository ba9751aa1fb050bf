"""The permutohedral lattice: a Gaussian filter over points of any dimension, in time linear in their number.

Every point is splatted onto the ``d + 1`` corners of the simplex it lies in, the lattice is blurred along its
``d + 1`` axes, and every point reads its corners back with the same weights.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice", Eurographics 2010.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from pnp_ovss.errors import ConfigError

POINTS = 2**20
"""Points whose vertices are counted at a time."""

FURTHEST = 2**24
"""Steps that a float32 can count."""

PART = 64
"""Entries that a GPU adds up one after the other: the vertex of a plain sky has thousands."""

HAS_TRITON = find_spec("triton") is not None

TOO_NARROW = "the crf's standard deviations are too small for this photo; raise crf_bilateral_srgb or the two sxy"


@dataclass(frozen=True)
class WeightedSum:
    """A sparse matrix by rows: ``result[r] = sum of weight[i] * values[source[i]]``, start[r] <= i < start[r + 1].

    ``embedding_bag`` computes the same, and is the fastest form of it that torch has on a CPU; on CUDA a Triton kernel
    is faster.
    """

    source: Int[Tensor, " entry"]
    start: Int[Tensor, " boundary"]
    weight: Float[Tensor, " entry"]
    each: int = 0
    """Entries of every row, where all have as many."""

    def __call__(self, values: Float[Tensor, "image n ch"]) -> Float[Tensor, "image row ch"]:
        """Return the weighted sums of rows of each image's ``values``."""
        if values.is_cuda and HAS_TRITON:
            from pnp_ovss.refine.kernels import weighted_sums

            return weighted_sums(self.source, self.start, self.weight, values, self.each)
        bags = partial(embedding_bag, self.source, offsets=self.start, mode="sum", include_last_offset=True)
        sums = [bags(some, per_sample_weights=self.weight) for some in values]
        return torch.stack(sums) if len(sums) > 1 else sums[0][None]

    def in_parts(self, most: int) -> "tuple[WeightedSum, WeightedSum]":
        """Return the same in two steps: sums of ``most`` entries at most, and the sums of these."""
        begin, end = self.start[:-1], self.start[1:]
        parts = (end - begin).add_(most - 1).div_(most, rounding_mode="floor")
        first = torch.cat([parts.new_zeros(1), parts.cumsum(0, dtype=parts.dtype)])
        start = (begin - most * first[:-1]).repeat_interleave(parts)
        number = torch.arange(len(start), dtype=start.dtype, device=start.device)
        start = torch.cat([start + most * number, end[-1:]])
        return replace(self, start=start), WeightedSum(number, first, self.weight.new_ones(len(number)))


@dataclass(frozen=True)
class Lattice:
    """Where points meet the lattice: built once, used for any number of channels and iterations."""

    splat: tuple[WeightedSum, ...]
    """Vertices from points, on a GPU by way of parts of them."""
    blurs: tuple[WeightedSum, ...]
    """Vertices from vertices, per axis: each one and half of its two neighbours, where they exist."""
    slice: WeightedSum
    """Points from vertices."""

    def filter(self, values: Float[Tensor, "image n ch"]) -> Float[Tensor, "image n ch"]:
        """Return the Gaussian-weighted sum of each image's ``values`` around each point."""
        for step in (*self.splat, *self.blurs, self.slice):
            values = step(values)
        return values

    def normalised(self, gain: float) -> "Lattice":
        """Return the filter ``gain * D K D``, where ``K`` is this one and ``D = diag(K 1) ** -1/2``."""
        points, side = len(self.slice.start) - 1, len(self.blurs)
        scale = (self.filter(self.slice.weight.new_ones(1, points, 1))[0] + 1e-20).rsqrt_()
        back = self.slice.weight.view(points, side) * (scale * gain)
        first, *others = self.splat
        first = replace(first, weight=scale.flatten().index_select(0, first.source).mul_(first.weight))
        return replace(self, splat=(first, *others), slice=replace(self.slice, weight=back.flatten()))


def permutohedral_lattice(features: Float[Tensor, "b n d"]) -> Lattice:
    """Return the lattice of ``b * n`` points, given in standard deviations; points of different ``b`` never mix.

    Raises: ConfigError if the points spread so far that 64 bits cannot name the vertices.
    """
    key, weight, axes = _simplices(features)
    points, side = weight.shape
    ordered, entry = _sorted(key.flatten())
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    start = _places(first)
    vertices = ordered.index_select(0, start)

    index = _integer(points * side)
    corner = torch.empty_like(entry, dtype=index).scatter_(0, entry, first.to(index).cumsum_(0).sub_(1))
    rows = len(vertices) + 1  # the last has no points: it is read where a vertex has no neighbour
    bags, threes = (
        torch.arange(0, count * width + 1, width, dtype=index, device=features.device)
        for count, width in ((points, side), (rows, 3))
    )
    begin = torch.cat([start, start.new_full((2,), points * side)]).to(index)
    splat = WeightedSum(_divided(entry, side).to(index), begin, weight.flatten().index_select(0, entry))
    del key, ordered, entry, first, start  # more than half of what is held
    halves = torch.tensor([1, 0.5, 0.5], device=features.device).repeat(rows)
    back = weight.flatten().div_(1 + 2.0 ** (1 - side))
    return Lattice(
        splat=splat.in_parts(PART) if features.is_cuda else (splat,),
        blurs=tuple(WeightedSum(_neighbours(vertices, axis, index), threes, halves, 3) for axis in axes),
        slice=WeightedSum(corner, bags, back, side),
    )


def most_vertices(features: Float[Tensor, "n d"]) -> int:
    """Return how many vertices the lattice of these points has at most: each part of them, counted by itself."""
    counts = [torch.unique(_simplices(some[None])[0]).numel() for some in torch.split(features, POINTS)]
    return sum(counts)


def _simplices(
    features: Float[Tensor, "b n d"],
) -> tuple[Int[Tensor, "point side"], Float[Tensor, "point side"], list[int]]:
    """Return the names and the barycentric weights of each point's corners, and the step between names along each axis.

    A vertex is a sum of steps along the axes (axis i: +d in coordinate i, -1 in the others). The axes sum to zero, so
    minus the others replaces axis 0, and the counts of steps along axes 1 to d, packed into one integer, name a vertex.
    """
    b, n, d = features.shape
    side = d + 1
    elevated = _elevate(features.reshape(b * n, d))
    floor = (elevated / side).floor_()
    rest = elevated.sub_(floor, alpha=side)
    steps = floor[1:].sub_(floor[:1])
    steps.sub_(steps.amin(1, keepdim=True)).add_(1)
    furthest = steps.amax(1).tolist()
    if not all(largest < FURTHEST for largest in furthest):  # NaN is no number of steps either
        raise ConfigError(TOO_NARROW)
    places = [1]
    for largest in reversed(furthest):  # coordinates of the first features lead: rows of a photo stay near in memory
        places.append(places[-1] * (int(largest) + 3))  # 0 to largest + 1 for a corner, and a gap
    if places[-1] * b >= 2**63:
        raise ConfigError(TOO_NARROW)
    axes = [-sum(places[:-1]), *places[-2::-1]]
    name = _integer(places[-1] * b)
    axis = torch.tensor(axes, dtype=name, device=features.device)
    rest, step = _descending(rest, axis)
    weight = rest.new_empty(b * n, side)
    weight[:, 0] = rest[-1] - rest[0] + side
    torch.sub(rest[:-1], rest[1:], out=weight.t()[1:])
    weight.div_(side)
    base = (torch.arange(b, dtype=name, device=features.device) * places[-1]).repeat_interleave(n)
    for count, along in zip(steps, axes[1:], strict=True):
        base.add_(count.to(name), alpha=along)

    # The corners: from the floor one step at a time, along the axis of the largest rest, then of the next, ...
    key = torch.empty(b * n, side, dtype=name, device=features.device)
    key[:, 0] = base
    for corner in range(1, side):
        torch.add(key[:, corner - 1], step[corner - 1], out=key[:, corner])
    return key, weight, axes


def _descending(
    values: Float[Tensor, "side n"], label: Int[Tensor, " side"]
) -> tuple[Float[Tensor, "side n"], Int[Tensor, "side n"]]:
    """Return each column in descending order, and the labels of its values; ``values`` are used up.

    On a CPU neighbours change places until all are in order: for so few a quarter of the time that sorting takes.
    """
    if values.device.type != "cpu":
        values, order = values.t().sort(1, descending=True)
        return values.t(), label.take(order.t())
    side = len(values)
    label = label[:, None].expand(values.shape).clone()
    for first in range(side):
        for above in range(first % 2, side - 1, 2):
            (a, b), (p, q) = values[above : above + 2], label[above : above + 2]
            change = (q - p).mul_(a < b)
            p.add_(change)
            q.sub_(change)
            larger = torch.maximum(a, b)
            torch.minimum(a, b, out=b)
            a.copy_(larger)
    return values, label


def _elevate(features: Float[Tensor, "n d"]) -> Float[Tensor, "side n"]:
    """Return the points on the plane where coordinates sum to 0, scaled to fit the blur of the lattice."""
    n, d = features.shape
    elevated = torch.zeros(d + 1, n, device=features.device)
    total = elevated[0]  # no matrix product: its rounding depends on the number of rows
    for k in range(d, 0, -1):
        column = features[:, k - 1] * ((d + 1) * (2 / 3) ** 0.5 / (k * (k + 1)) ** 0.5)
        torch.add(total, column, alpha=-k, out=elevated[k])
        total += column
    return elevated


def _integer(count: int) -> torch.dtype:
    """Return the smaller integer that counts so far; sorting and reading 32 bits takes half the time."""
    return torch.int32 if count < 2**31 else torch.int64


def _sorted(names: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the names in ascending order, and where each was; equal ones stay in order.

    Place and name are the halves of one integer, which numpy sorts in half of the time that torch takes for pairs.
    """
    if names.device.type != "cpu" or names.dtype != torch.int32 or sys.byteorder != "little":
        return names.sort(stable=True)
    pairs = np.empty((len(names), 2), np.int32)
    pairs[:, 0], pairs[:, 1] = np.arange(len(names), dtype=np.int32), names
    pairs.view(np.int64).ravel().sort()
    place, ordered = torch.from_numpy(pairs).unbind(1)
    return ordered.contiguous(), place.contiguous()


def _places(mask: Bool[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Return where the mask is true; on a CPU numpy's way takes a fifth of torch's time."""
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero().flatten()


def _divided(entry: Int[Tensor, " n"], side: int) -> Int[Tensor, " n"]:
    """Return ``entry // side``, on a CPU as numpy does it, in a tenth of torch's time."""
    return torch.from_numpy(entry.numpy() // side) if entry.device.type == "cpu" else entry // side


def _neighbours(vertices: Int[Tensor, " vertex"], step: int, index: torch.dtype) -> Int[Tensor, " entry"]:
    """Return for each vertex itself and its neighbours along one axis, whose names are ``step`` more and less.

    Where there is none, the row after the last stands for it, which is zero.
    """
    count = len(vertices)
    both = torch.cat([vertices, vertices + step])
    order = _stable_order(both)  # of two sorted runs: a merge
    merged = both.index_select(0, order)
    met = _places(merged[1:] == merged[:-1])
    after, before = order.index_select(0, met), order.index_select(0, met + 1) - count
    rows = torch.full((count + 1, 3), count, dtype=index, device=vertices.device)
    rows[:, 0] = torch.arange(count + 1, device=vertices.device)
    rows[:, 1].scatter_(0, before, after.to(index))
    rows[:, 2].scatter_(0, after, before.to(index))
    return rows.flatten()


def _stable_order(values: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the order that sorts ``values``; numpy's stable sort gains by runs that are sorted, torch's does not."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.argsort(values.numpy(), kind="stable"))
    return values.argsort(stable=True)
