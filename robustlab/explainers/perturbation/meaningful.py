"""Meaningful perturbation: the smallest smooth mask that takes the evidence away."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.randomness import uniform
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.perturbation.blends import blended_scores
from robustlab.explainers.perturbation.infill import Infill, blurred, infill_of
from robustlab.explainers.perturbation.masks import Adam, cell_grid, enlarged, learnt, slope
from robustlab.explainers.perturbation.options import (
    check_above_zero,
    check_at_least,
    check_infill,
)

DISCS: Final = 10  # starts to choose from
ENOUGH: Final = 0.99  # of what the largest disc does to the score


@dataclass(frozen=True, kw_only=True)
class MeaningfulPerturbation:
    """Meaningful perturbation: a = 1 − m, m the mask that hides least and lowers s most.

    *deletion*: m minimises s(Φ(x; m)) + λ₁ Σ_u |1 − m(u)| + λ₂ Σ_u ‖∇m(u)‖_β^β over
    0 ≤ m ≤ 1. *preservation*: a = m, which minimises −s(Φ(x; m)) + λ₁ Σ_u |m(u)| + the same.

    m has ``cells`` along the shorter side (at most one per pixel) and is brought to the
    pixels bilinearly and through a Gaussian (``smooth``). Φ shows x where m is 1 and the
    ``infill`` where it is 0: *blur*, *noise* (drawn anew in each step), the *mean* colour or
    a constant. With ``jitter`` each step moves what the model sees down and to the right by
    a random distance up to that, mirrored at the border. Lengths (``blur``, ``smooth``,
    ``jitter``) are shares of the shorter side. λ₁ = ``l1``, λ₂ = ``tv`` and β = ``power``
    apply to the cells; ‖∇m‖ is made of the differences to the cell below and to the right.
    Adam with step size ``rate``, clipped to [0, 1], from the smallest of 10 central discs
    that does 99 % of what hiding (showing) the whole image does to the score. Each image has
    its own mask, optimiser and randomness (from ``seed`` and its id).

    Not differentiable: the map is where an optimiser stands after ``steps`` steps, which is
    no minimum with a derivative, and a graph through all steps would hold every one of them.
    Raw shape ``[B,1,h,w]`` with a value per cell, default map signed. Cost: 10 + ``steps``
    forward and ``steps`` backward passes. Source: Fong & Vedaldi 2017.

    The defaults are theirs for 224 × 224 images (28 cells, rate 0.1, λ₁ = 1e-4, λ₂ = 1e-2,
    β = 3, smoothing 5 and jitter 4 pixels) except for half of their 300 steps and a blur
    three times as wide as their 10 pixels: a digit is still read through that. Their discs
    have soft edges.
    """

    about: ClassVar[About] = About(
        family="perturbation",
        year=2017,
        source="Fong & Vedaldi 2017, Interpretable explanations by meaningful perturbation",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    game: Literal["deletion", "preservation"] = "deletion"
    steps: int = 150
    rate: float = 0.1
    cells: int = 28
    l1: float = 1e-4
    tv: float = 1e-2
    power: float = 3.0
    infill: Infill = "blur"
    blur: float = 0.15
    smooth: float = 5 / 224
    jitter: float = 4 / 224
    seed: int = 0
    score: Score = "prob"
    post: Post = "signed"

    def __post_init__(self) -> None:
        bounds = {"steps": 1, "cells": 1, "power": 1, "l1": 0, "tv": 0, "smooth": 0, "jitter": 0}
        check_at_least(self, bounds)
        check_above_zero(self, "rate")
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
        adam, behind = Adam(self.rate), self._behind(images, ids, 0)
        mask = self._start(model, images, behind, targets)
        for step in range(self.steps):
            if self.infill == "noise":
                behind = self._behind(images, ids, step)
            game = partial(self._play, images, behind, self._offsets(images, ids, step))
            mask = adam(mask, slope(model, mask, targets, game, self.score)).clamp(0, 1)
        return 1 - mask if self._deletes else mask

    def _start(self, model: nn.Module, images: Tensor, behind: Tensor, targets: Tensor) -> Tensor:
        """The smallest central disc, hidden or shown, that does enough, ``[B,1,h,w]``."""
        masks = _discs(cell_grid(self.cells, images)).to(images)
        masks = 1 - masks if self._deletes else masks
        full = self._at_pixels(masks, images)
        scores = blended_scores(
            model, images, behind, targets, DISCS, lambda js, _: full[js, None],
            score=self.score, create_graph=False,
        )  # fmt: skip
        change = scores - scores[0]
        enough = change * change[-1].sign() >= ENOUGH * change[-1].abs()
        return masks[enough.long().argmax(0)]

    def _play(
        self, images: Tensor, behind: Tensor, offsets: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The image under the mask, the sign of its score, and the price of the mask."""
        seen = torch.lerp(behind, images, self._at_pixels(mask, images))
        sign = images.new_full((len(images),), 1.0 if self._deletes else -1.0)
        used = 1 - mask if self._deletes else mask
        # masks lie in [0, 1], where |·| is linear; its kink at 0 would let idle cells chatter
        price = self.l1 * used.sum() + self.tv * variation(mask, self.power)
        return shifted(seen, offsets), sign, price

    def _at_pixels(self, mask: Tensor, images: Tensor) -> Tensor:
        return blurred(enlarged(mask, images), self.smooth)

    def _behind(self, images: Tensor, ids: Sequence[str] | None, step: int) -> Tensor:
        purpose = f"meaningful_perturbation/infill/{step}"
        return infill_of(
            images, self.infill, blur=self.blur, ids=ids, seed=self.seed, purpose=purpose
        )

    def _offsets(self, images: Tensor, ids: Sequence[str] | None, step: int) -> Tensor:
        """Pixels down and to the right for each image in this step, ``[B,2]``."""
        longest = round(self.jitter * min(images.shape[-2:]))
        like = images.new_empty((len(images), 2), dtype=torch.float32)
        share = (uniform(like, ids, self.seed, f"meaningful_perturbation/jitter/{step}") + 1) / 2
        return (share * (longest + 1)).long()

    @property
    def _deletes(self) -> bool:
        return self.game == "deletion"

    def cost(self) -> Passes:
        return Passes(DISCS + self.steps, self.steps)


def _discs(cells: tuple[int, int]) -> Tensor:
    """Central discs from none of the cells to all of them, 1 inside, ``[DISCS,1,h,w]``."""
    rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in cells)
    distance = torch.hypot(rows.unsqueeze(1), columns)
    radius = (distance.max() + 1) * torch.arange(DISCS) / (DISCS - 1)
    return (distance < radius.view(-1, 1, 1, 1)).double()


def variation(mask: Tensor, power: float) -> Tensor:
    """Σ_u ‖∇m(u)‖_β^β over the cells of all masks."""
    below, right = mask.diff(dim=2), mask.diff(dim=3)
    return below.abs().pow(power).sum() + right.abs().pow(power).sum()


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """What comes ``offsets`` ``[B,2]`` pixels further down and right, the border mirrored."""
    for axis, offset in ((2, offsets[:, 0]), (3, offsets[:, 1])):
        side = images.shape[axis]
        place = torch.arange(side, device=images.device) + offset.unsqueeze(1)
        place = torch.where(place < side, place, 2 * (side - 1) - place)
        shape = [len(images), 1, 1, 1]
        shape[axis] = side
        images = images.gather(axis, place.view(shape).expand_as(images))
    return images
