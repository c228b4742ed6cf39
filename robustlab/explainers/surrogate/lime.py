"""LIME: a linear model of the classifier, true near one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import generator
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.surrogate.coalitions import Baseline, coalition_scores, painted
from robustlab.explainers.surrogate.superpixels import (
    Superpixels,
    check_samples,
    counts,
    segment,
)


@dataclass(frozen=True, kw_only=True)
class Lime:
    """LIME: a pixel gets the weight β_m of its superpixel m in a local linear model.

    Row j of Z says which of the M superpixels a copy x_j shows, the others take ``baseline``;
    Z_jm is 0 or 1 with equal chance, and the first copy is the image itself. Then

        β = argmin Σ_j w_j (s(x_j) − β_0 − Z_j·β)² + alpha·‖β‖²,   w_j = exp(−d_j² / 2κ²),

    with κ = ``kernel_width`` and d_j = 1 − √(Σ_m Z_jm / M), the cosine distance of Z_j from
    all ones. Raw shape ``[B,1,H,W]``, constant on superpixels; default map signed. Cost:
    ``samples`` forward passes. Source: Ribeiro, Singh & Guestrin 2016.

    Not differentiable: superpixels come from a discrete search, and the map jumps where a
    pixel changes sides. Attack it with ``black_box``.

    Follows the authors' code (`lime_image`, alpha 1, κ 0.25, all superpixels kept) where the
    paper has K-LASSO and distances between images. ``baseline`` is its ``hide_color``: "mean"
    colours a superpixel by its mean, so that one of a single colour cannot matter; a number
    is a pixel value. Deviations: SLIC where the code has quick-shift, which is ten times
    slower; 256 samples where it has 1000; rows drawn from the image's id.

    Raises:
        InvalidInput: an image with one superpixel, or with as many as samples.
    """

    about: ClassVar[About] = About(
        family="surrogate",
        year=2016,
        source="Ribeiro, Singh & Guestrin 2016, Why should I trust you?",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    superpixels: Superpixels = "slic"
    segments: int = 50
    samples: int = 256
    baseline: Baseline = "mean"
    kernel_width: float = 0.25
    alpha: float = 1.0
    seed: int = 0
    score: Score = "prob"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.segments < 2:
            raise InvalidInput("segments", f"must be at least 2, got {self.segments}")
        if self.samples < 3:
            raise InvalidInput("samples", f"must be at least 3, got {self.samples}")
        for field in ("kernel_width", "alpha"):
            if not getattr(self, field) > 0:
                raise InvalidInput(field, f"must be above 0, got {getattr(self, field)}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        regions = segment(images, self.superpixels, self.segments)
        check_samples(regions, self.samples, self.samples - 1)
        names = [""] * len(images) if ids is None else ids
        rows = [self._draw(m, name) for m, name in zip(counts(regions), names, strict=True)]
        scores = coalition_scores(model, images, targets, regions, rows, self.baseline, self.score)
        effects = [self._fit(z, s) for z, s in zip(rows, scores, strict=True)]
        return painted(regions, effects, images)

    def _draw(self, count: int, name: str) -> Tensor:
        source = generator(self.seed, name, "lime")
        rows = torch.randint(0, 2, (self.samples, count), generator=source, device="cpu").bool()
        rows[0] = True
        return rows

    def _fit(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Weighted ridge regression with a free intercept, by its normal equations."""
        z = rows.to(scores)
        distance = 1 - z.mean(1).sqrt()
        weight = torch.exp(-distance.square() / (2 * self.kernel_width**2))
        centred = z - (weight @ z) / weight.sum()
        weighted = centred.T * weight
        penalty = self.alpha * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return torch.linalg.solve(weighted @ centred + penalty, weighted @ scores)

    def cost(self) -> Passes:
        return Passes(self.samples, 0)
