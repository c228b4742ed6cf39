"""Gradients of noisy copies, averaged: what is left when the sharpest wiggles cancel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import normal
from robustlab.core.score import Score
from robustlab.core.streaming import (
    hessian_vector,
    sum_of_gradients,
)
from robustlab.core.types import About, Differentiable, Passes


@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """SmoothGrad: a = (1/n) Σ_j ∂s/∂x at x + σ·n_j, n_j standard normal.

    ``sigma`` is in pixel units of [0,1] images (the paper's "noise level" times the range);
    noisy copies are not clipped to the box. The noise of an image depends on ``seed`` and its
    id only, so the map is a fixed, differentiable function of the image: an attack faces the
    very noise that the judge uses. Raw shape ``[B,C,H,W]``. Cost: n forward and n backward
    passes. Source: Smilkov et al. 2017.
    """

    about: ClassVar[About] = About(
        family="gradient", year=2017, source="Smilkov et al. 2017, SmoothGrad"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    samples: int = 16
    sigma: float = 0.15
    seed: int = 0
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InvalidInput("samples", f"must be at least 1, got {self.samples}")
        if not self.sigma >= 0:
            raise InvalidInput("sigma", f"must be at least 0, got {self.sigma}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return sum_of_gradients(
            model,
            images,
            targets,
            self.samples,
            lambda part, j, where: part + self._noise(part, ids, j, where),
            lambda _: 1 / self.samples,
            score=self.score,
            create_graph=create_graph,
        )

    def transpose_product(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        cotangent: Tensor,
        *,
        step: float,
        ids: Sequence[str] | None = None,
    ) -> Tensor:
        """Jᵀv = (1/n) Σ_j H(x + σ·n_j) v."""
        total = torch.zeros_like(images)
        every = slice(0, len(images))
        for j in range(self.samples):
            noisy = images + self._noise(images, ids, j, every)
            total += hessian_vector(model, noisy, targets, cotangent, step=step, score=self.score)[
                0
            ]
        return total / self.samples

    def _noise(self, part: Tensor, ids: Sequence[str] | None, sample: int, where: slice) -> Tensor:
        names = None if ids is None else ids[where]
        return self.sigma * normal(part, names, self.seed, f"smooth_grad/{sample}")

    def cost(self) -> Passes:
        return Passes(self.samples, self.samples)
