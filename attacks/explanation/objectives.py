"""What an attack wants of a map, as pure functions of maps ``[B,H,W]``: larger = more damage.

``loss`` is differentiable and drives the steps; ``value`` is the evaluation metric itself,
on the true model's maps, and selects the best iterate. With s the map scaled to Σ|s| = H·W.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from robustlab.core.maps import shares
from robustlab.metrics.ranks import Kendall

Measure = Literal["cosine", "pearson", "sensitivity"]


class Objective(Protocol):
    """Damage per image; ``where`` says which images of the problem the maps belong to."""

    def loss(self, maps: Tensor, where: slice) -> Tensor: ...

    def value(self, maps: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LeaveTop:
    """Ghorbani's top-k: loss = −Σ_{i∈T} s_i, value = −|T ∩ T'|/k, T the clean map's top k."""

    top: Tensor
    k: int

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return -(shares(maps) * self.top[where]).sum((1, 2)) / self.k

    def value(self, maps: Tensor) -> Tensor:
        return -(top_k_mask(maps, self.k) & self.top).sum((1, 2)).double() / self.k


@dataclass(frozen=True, eq=False)
class LeaveTopByRank(LeaveTop):
    """The same loss; value = −τ_b(m', m), Kendall's rank correlation with the clean map m."""

    clean: Tensor

    def value(self, maps: Tensor) -> Tensor:
        return -Kendall()(self.clean, maps)


@dataclass(frozen=True, eq=False)
class MoveCenter:
    """Ghorbani's mass centre: ‖C(x') − C(x)‖², C = Σ|s_ij|·(i,j)/HW; value is the distance."""

    center: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return (mass_center(maps) - self.center[where]).square().sum(1)

    def value(self, maps: Tensor) -> Tensor:
        return (mass_center(maps) - self.center).square().sum(1).sqrt().double()


@dataclass(frozen=True, eq=False)
class FillRegion:
    """Ghorbani's targeted region A: the share of the map's mass inside, Σ_{i∈A} s_i / HW."""

    region: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return (shares(maps) * self.region).mean((1, 2))

    def value(self, maps: Tensor) -> Tensor:
        return (shares(maps) * self.region).mean((1, 2)).double()


@dataclass(frozen=True, eq=False)
class Imitate:
    """Dombrowski's target map, relative: −‖ĝ − t̂‖²/‖t̂‖², both scaled to Σ|·| = 1.

    The relative form keeps the term O(1) for any map size; the paper's MSE of maps that sum
    to 1 is around 1e-10 and needs weights of 1e11.
    """

    target: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        target = shares(self.target[where])
        gap = (shares(maps) - target).square().sum((1, 2))
        # a flat map has the smallest square at this scale; an all-zero target counts as flat
        pixels = maps.shape[1] * maps.shape[2]
        return -gap / target.square().sum((1, 2)).clamp(min=pixels)

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


@dataclass(frozen=True, eq=False)
class Resemble:
    """Pearson's correlation with a target map, whatever the scale and offset of either."""

    target: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return 1 - MoveAway(self.target, "pearson").loss(maps, where)

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


@dataclass(frozen=True, eq=False)
class MoveAway:
    """Distance from the clean map m: 1 − cos(m', m), 1 − r(m', m), or ‖m' − m‖ / ‖m‖.

    r is Pearson's correlation. A map without length, or without variance for r, has
    similarity 0 to any other; from an all-zero m the length of m' is taken as it is.
    """

    clean: Tensor
    measure: Measure

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        before, after = self.clean[where], maps
        if self.measure == "sensitivity":  # squares of tiny gradients would leave float32
            scale = before.abs().amax((1, 2), keepdim=True)
            scale = torch.where(scale > 0, scale, 1)
            length = (before / scale).flatten(1).norm(dim=1)
            moved = ((after - before) / scale).flatten(1).norm(dim=1)
            return moved / torch.where(length > 0, length, 1)
        before, after = (shares(m).flatten(1) for m in (before, after))
        if self.measure == "pearson":
            before = before - before.mean(1, keepdim=True)
            after = after - after.mean(1, keepdim=True)
        lengths = before.norm(dim=1) * after.norm(dim=1)
        return 1 - (before * after).sum(1) / torch.where(lengths > 0, lengths, 1)

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


def mass_center(maps: Tensor) -> Tensor:
    """Centre of |m| in pixels ``[B,2]`` (row, column); the picture's middle for a zero map."""
    weight = shares(maps).abs() / (maps.shape[1] * maps.shape[2])
    rows = torch.arange(maps.shape[1], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    middle = torch.stack([rows.mean(), columns.mean()])
    offsets = [
        (weight.sum(2) * (rows - middle[0])).sum(1),
        (weight.sum(1) * (columns - middle[1])).sum(1),
    ]
    return torch.stack(offsets, 1) + middle


def top_k_mask(maps: Tensor, k: int) -> Tensor:
    """Membership ``[B,H,W]`` of the k largest pixels; among equals the lowest index first."""
    from robustlab.metrics.ranks import highest

    return highest(maps.flatten(1), k).view_as(maps)
