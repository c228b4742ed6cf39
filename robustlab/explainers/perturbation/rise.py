"""RISE: the average of random masks, each weighted by the score of what it lets through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import uniform
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.perturbation.blends import blended_scores, chunks
from robustlab.explainers.perturbation.infill import Infill, infill_of
from robustlab.explainers.perturbation.options import check_at_least, check_infill

Norm = Literal["expected", "coverage", "centred"]


@dataclass(frozen=True, kw_only=True)
class RISE:
    """RISE: a(u) = 1/(N p) Σ_j s(x ⊙ M_j) M_j(u) over N random masks.

    A mask is a grid of ``cells`` × ``cells``, each open with probability p = ``keep``,
    enlarged bilinearly to (cells + 1) · C pixels, C = ⌈side / cells⌉, and cropped to the
    image at a random offset in {0..C−1}²; E M_j(u) = p everywhere. As in the authors' code,
    pixels lie at half-integer positions (``align_corners=False``); beyond the outermost
    cells' centres ours is constant where theirs is mirrored. An image's masks depend on
    ``seed`` and its id; ``shared`` masks depend on the seed only, as in the authors' code.

    ``norm``: *expected* divides by N p as above. *coverage* divides by Σ_j M_j(u), the mask
    that pixel u really got: the mean score where u is open, with less noise. *centred* is
    1/(N p) Σ_j (s_j − mean s) M_j(u): the part of the score that all masks share says nothing
    about pixels and brings most of the noise; it is taken away.

    ``infill`` is seen where a mask is closed; 0 is the x ⊙ M of the paper. The authors' code
    masks normalised images, for which it is the data set's mean colour: *mean* is closest.
    Raw shape ``[B,1,H,W]``, default map signed. Cost: N forward passes (the paper takes 4000
    to 8000). Memory: one micro-batch and the grids, with ``create_graph`` too.
    Source: Petsiuk, Das & Saenko 2018.
    """

    about: ClassVar[About] = About(
        family="perturbation",
        year=2018,
        source="Petsiuk, Das & Saenko 2018, RISE",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    masks: int = 500
    cells: int = 7
    keep: float = 0.5
    norm: Norm = "expected"
    shared: bool = False
    infill: Infill = 0.0
    blur: float = 0.15
    seed: int = 0
    score: Score = "prob"
    post: Post = "signed"

    def __post_init__(self) -> None:
        check_at_least(self, {"masks": 1, "cells": 2})
        if not 0 < self.keep <= 1:
            raise InvalidInput("keep", f"a probability in (0, 1] is needed, got {self.keep}")
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
        with torch.set_grad_enabled(create_graph):
            images = images if create_graph else images.detach()
            masks = _draw(images, ids, self)
            behind = infill_of(
                images, self.infill, blur=self.blur, ids=ids, seed=self.seed, purpose="rise/infill"
            )
            scores = blended_scores(
                model, images, behind, targets, self.masks, masks.pixels,
                score=self.score, create_graph=create_graph,
            )  # fmt: skip
            if self.norm == "centred":
                scores = scores - scores.mean(0)
            total = masks.weighted_sum(images, scores)
            if self.norm == "coverage":
                covered = masks.weighted_sum(images, torch.ones_like(scores))
                return total / covered.clamp(min=torch.finfo(covered.dtype).tiny)
            return total / (self.masks * self.keep)

    def cost(self) -> Passes:
        return Passes(self.masks, 0)


@dataclass(frozen=True, eq=False)
class _Masks:
    """Masks M = R G Cᵀ: a grid G between two interpolations, one for each offset.

    Kept as grids and offsets; a mask, and a sum of masks, is a product of thin matrices.

    Attributes:
        grids: ``[N,B,cells,cells]`` open or not. down, right: offsets ``[N,B]``.
        rows, columns: interpolation for each offset, ``[C,H,cells]`` and ``[C,W,cells]``.
    """

    grids: Tensor
    down: Tensor
    right: Tensor
    rows: Tensor
    columns: Tensor

    def pixels(self, js: range, where: slice) -> Tensor:
        """``[n,b,1,H,W]``, b = 1 where the images share their masks."""
        left, right = self._factors(js, where)
        return (left @ right.transpose(-1, -2)).unsqueeze(2)

    def weighted_sum(self, images: Tensor, weights: Tensor) -> Tensor:
        """Σ_j weights_j M_j ``[B,1,H,W]`` for ``weights`` ``[N,B]``."""
        sums: dict[int, Tensor] = {}
        for js, where in chunks(images, len(weights)):
            left, right = self._factors(js, where)
            some = weights[js.start : js.stop, where]
            part = torch.einsum("nb,nbhk,nbwk->bhw", some, left, right)
            sums[where.start] = sums[where.start] + part if where.start in sums else part
        return torch.cat([sums[start] for start in sorted(sums)]).unsqueeze(1)

    def _factors(self, js: range, where: slice) -> tuple[Tensor, Tensor]:
        """R G ``[n,b,H,cells]`` and C ``[n,b,W,cells]``."""
        some = slice(js.start, js.stop)
        images = slice(None) if self.grids.shape[1] == 1 else where
        left = self.rows[self.down[some, images]] @ self.grids[some, images]
        return left, self.columns[self.right[some, images]]


def _draw(images: Tensor, ids: Sequence[str] | None, settings: RISE) -> _Masks:
    names = [""] if settings.shared else [""] * len(images) if ids is None else ids
    count, cells, seed = settings.masks, settings.cells, settings.seed

    def drawn(purpose: str, *shape: int) -> Tensor:
        like = images.new_empty((len(names), count, *shape), dtype=torch.float32)
        return (uniform(like, names, seed, f"rise/{purpose}").transpose(0, 1) + 1) / 2

    rows, columns = (_interpolations(side, cells).to(images) for side in images.shape[-2:])
    offsets = drawn("offset", 2)
    return _Masks(
        grids=(drawn("grid", cells, cells) < settings.keep).to(images),
        down=(offsets[..., 0] * len(rows)).long(),
        right=(offsets[..., 1] * len(columns)).long(),
        rows=rows,
        columns=columns,
    )


def _interpolations(side: int, cells: int) -> Tensor:
    """``[C,side,cells]``: what each cell gives each pixel, for every offset of the crop."""
    step = math.ceil(side / cells)
    cell = torch.eye(cells, dtype=torch.float64).unsqueeze(1)
    line = F.interpolate(cell, (cells + 1) * step, mode="linear", align_corners=False)
    return line.squeeze(1).unfold(1, side, 1)[:, :step].permute(1, 2, 0)
