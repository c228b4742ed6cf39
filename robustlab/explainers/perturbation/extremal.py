"""Extremal perturbation: the region of a given area that keeps the score best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.perturbation.infill import Infill, blurred, infill_of
from robustlab.explainers.perturbation.masks import cell_grid, enlarged, learnt, slope
from robustlab.explainers.perturbation.options import (
    check_above_zero,
    check_at_least,
    check_infill,
)

Variant = Literal["preserve", "delete", "dual"]

SIGNS: Final[dict[Variant, tuple[int, ...]]] = {
    "preserve": (1,),  # show the region: the score must be high
    "delete": (-1,),  # hide the region: the score must be low
    "dual": (1, -1),
}
COLDNESS: Final = 20.0  # of the smooth maximum
MOMENTUM: Final = 0.9
GROWTH: Final = 16.0  # of the area's weight from the first step to the last
TIE: Final = 1e-4  # cells whose masks are closer than this share their places in the ranking


@dataclass(frozen=True, kw_only=True)
class ExtremalPerturbation:
    """Extremal perturbation: a = the mask m, 0 ≤ m ≤ 1, of a given area that keeps s highest.

    It maximises s(Φ(x; m)) − λ mean_u (sort(m)(u) − r(u))², where the template r is 0 but for
    a share of ones, the area; of several ``areas`` a is the mean. *preserve* shows the region
    m, *delete* shows all but m and maximises −s, *dual* maximises the difference of the two.

    m = smooth maximum over ``cells`` (along the shorter side, at most one per pixel), each
    seen through a kernel of radius ``sigma``, so that m has no detail finer than that; see
    `smooth_maximum`. Φ with *blur* as ``infill``: where m is below 1 the image is blurred by
    ``blur`` · (1 − m), interpolated between ``levels`` widths; every other infill is faded
    in. Lengths (``sigma``, ``blur``) are shares of the shorter side. λ grows from ``weight``
    to 16 times that; gradient steps of size ``rate`` with momentum 0.9, damped as much, from
    cells of 1, clipped to [0, 1]. ``flip`` mirrors what the model sees in every other step.
    ``weight`` and ``rate`` suit logits and about a thousand cells: the price of the area moves
    a cell by up to 2 · rate · λ / number of cells in a step.

    Not differentiable: ranks are piecewise constant, and the map is where an optimiser stands
    after ``steps`` steps. Raw shape ``[B,1,h,w]`` with a value per cell in [0, 1], default
    map signed. Cost: ``steps`` forward and backward passes for each area, twice that for
    *dual*. Source: Fong, Patrick & Vedaldi 2019.

    Differences from the paper and its code (TorchRay): 200 steps of 0.04 stand for 800 of
    0.01, with the same growth of λ; the area is that of the cells, without a margin around
    the image; the smooth maximum is taken at the cells and enlarged bilinearly; equal masks
    share the mean of their places in the template (a sort would rank cells by their number);
    the blur mirrors the border and is at most 0.15 of the side, which hides a digit (theirs:
    20 of 224 pixels); their code flips by default.
    """

    about: ClassVar[About] = About(
        family="perturbation",
        year=2019,
        source="Fong, Patrick & Vedaldi 2019, Understanding deep networks via extremal "
        "perturbations and smooth masks",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    variant: Variant = "preserve"
    areas: tuple[float, ...] = (0.1,)
    steps: int = 200
    rate: float = 0.04
    weight: float = 300.0
    cells: int = 32
    sigma: float = 3 / 32
    infill: Infill = "blur"
    blur: float = 0.15
    levels: int = 8
    flip: bool = False
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if not self.areas or not all(0 < area < 1 for area in self.areas):
            raise InvalidInput("areas", f"each must be between 0 and 1, got {self.areas}")
        check_at_least(self, {"steps": 1, "cells": 1, "levels": 2, "weight": 0})
        check_above_zero(self, "rate", "sigma")
        check_infill(self.infill, self.blur)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return learnt(images, targets, ids, partial(self._learn, model))

    def _learn(
        self, model: nn.Module, images: Tensor, targets: Tensor, ids: Sequence[str] | None
    ) -> Tensor:
        count = len(self.areas)
        areas = images.new_tensor(self.areas).repeat_interleave(len(images))
        levels = self._levels(images, ids).repeat(count, 1, 1, 1, 1)
        targets = targets.repeat(count * len(SIGNS[self.variant]))
        cells = images.new_ones(len(levels), 1, *cell_grid(self.cells, images))
        velocity: Tensor | None = None
        for step in range(self.steps):
            weight = self.weight * GROWTH ** (step / self.steps)
            game = partial(self._play, levels, areas, weight, self.flip and step % 2 == 0)
            gradient = slope(model, cells, targets, game, self.score)
            velocity = gradient if velocity is None else gradient.lerp(velocity, MOMENTUM)
            cells = (cells - self.rate * velocity).clamp(0, 1)
        return self._mask(cells).unflatten(0, (count, -1)).mean(0)

    def _play(
        self, levels: Tensor, areas: Tensor, weight: float, flip: bool, cells: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the model sees, the sign of each score, and the price of another area."""
        mask, signs = self._mask(cells), SIGNS[self.variant]
        keep = enlarged(mask, levels[:, 0])
        seen = torch.cat([between(levels, keep if sign > 0 else 1 - keep) for sign in signs])
        descent = -seen.new_tensor(signs).repeat_interleave(len(cells))
        price = weight * area_loss(mask.flatten(1), areas).sum()
        return seen.flip(3) if flip else seen, descent, price

    def _mask(self, cells: Tensor) -> Tensor:
        return smooth_maximum(cells, self.sigma * min(cells.shape[-2:]))

    def _levels(self, images: Tensor, ids: Sequence[str] | None) -> Tensor:
        """From fully hidden to fully shown, ``[B,L,C,H,W]``."""
        if self.infill == "blur":
            hidden = [1 - level / (self.levels - 1) for level in range(self.levels)]
            return torch.stack([blurred(images, self.blur * h) for h in hidden], 1)
        purpose = "extremal_perturbation/infill"
        behind = infill_of(
            images, self.infill, blur=self.blur, ids=ids, seed=self.seed, purpose=purpose
        )
        return torch.stack([behind, images], 1)

    def cost(self) -> Passes:
        passes = self.steps * len(self.areas) * len(SIGNS[self.variant])
        return Passes(passes, passes)


def smooth_maximum(cells: Tensor, sigma: float) -> Tensor:
    """Σ_v f_v e^{20 f_v} / Σ_v e^{20 f_v} with f_v = k(|u − v|/σ) m(v), at every cell u.

    k(z) = exp(−2 max(0, z − ½)²), cut off where it has fallen to 1 %, at 2σ. The outermost
    cells go on beyond the border: were there nothing, a corner would win the ranking by
    having fewer neighbours.
    """
    radius = math.ceil(2 * sigma)
    steps = torch.arange(-radius, radius + 1).to(cells)
    distance = torch.hypot(steps.unsqueeze(1), steps).flatten() / sigma
    kernel = torch.exp(-2 * (distance - 0.5).clamp(min=0).square())
    around = F.pad(cells, (radius,) * 4, mode="replicate")
    near = F.unfold(around, 2 * radius + 1) * kernel.unsqueeze(1)
    return (near * (COLDNESS * near).softmax(1)).sum(1).view_as(cells)


def area_loss(values: Tensor, areas: Tensor) -> Tensor:
    """Mean over places of (sorted value − template)² ``[n]``, for ``[n,N]`` and areas ``[n]``.

    The template is 1 in the top N · area places and 0 below; where that is no whole number,
    the place between gets the fraction.
    """
    with torch.no_grad():
        rank = (values / TIE).round()
        order = rank.sort(1).values
        first = torch.searchsorted(order, rank)
        beyond = torch.searchsorted(order, rank, right=True)
        zeros = values.shape[1] * (1 - areas).unsqueeze(1)
        template = (beyond - torch.maximum(first, zeros)).clamp(min=0) / (beyond - first)
    return (values - template).square().mean(1)


def between(levels: Tensor, keep: Tensor) -> Tensor:
    """``[n,C,H,W]``: each pixel ``keep`` ``[n,1,H,W]`` of the way through ``[n,L,C,H,W]``."""
    last = levels.shape[1] - 1
    depth = keep * last
    below = depth.detach().floor().clamp(max=last - 1)
    index = below.long().unsqueeze(1).expand(-1, -1, *levels.shape[2:])
    low, high = (levels.gather(1, i).squeeze(1) for i in (index, index + 1))
    return torch.lerp(low, high, depth - below)
