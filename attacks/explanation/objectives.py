"""What an attack wants of a map, as pure functions of maps ``[B,H,W]``: larger = more damage.

``loss`` is differentiable and drives the steps; ``value`` is the evaluation metric itself,
on the true model's maps, and selects the best iterate. With s the map scaled to Σ|s| = H·W.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustlab.core.maps import shares


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
    from robustlab.metrics.ranks import _highest

    return _highest(maps.flatten(1), k).view_as(maps)
