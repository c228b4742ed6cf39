"""Gradients of noisy copies: their mean, in which the sharpest wiggles cancel, or their spread."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import normal
from robustlab.core.score import Score
from robustlab.core.streaming import copies, hessian_vector, input_gradient, sum_of_gradients
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.gradient.plain import check_beta, smoothed


@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """SmoothGrad: a = (1/n) Σ_j ∂s/∂x at x + σ·n_j, n_j standard normal.

    ``sigma`` is in pixel units of [0,1] images (the paper's "noise level" times the range);
    noisy copies are not clipped to the box. The noise of an image depends on ``seed`` and its
    id only, so the map is a fixed, differentiable function of the image: an attack faces the
    very noise that the judge uses. ``beta`` smooths the activations too, as for the gradient.
    Raw shape ``[B,C,H,W]``. Cost: n forward and n backward passes.
    Source: Smilkov et al. 2017.
    """

    about: ClassVar[About] = About(
        family="gradient", year=2017, source="Smilkov et al. 2017, SmoothGrad"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    samples: int = 16
    sigma: float = 0.15
    seed: int = 0
    beta: float | None = None
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        _check_noise(self.samples, 1, self.sigma)
        check_beta(self.beta)

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
            smoothed(model, self.beta),
            images,
            targets,
            self.samples,
            noisy(self.sigma, self.seed, ids),
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
        model, images = smoothed(model, self.beta), images.detach()
        total = torch.zeros_like(images)
        every, copy = slice(0, len(images)), noisy(self.sigma, self.seed, ids)
        for j in range(self.samples):
            total += hessian_vector(
                model, copy(images, j, every), targets, cotangent, step=step, score=self.score
            )[0]
        return total / self.samples

    def cost(self) -> Passes:
        return Passes(self.samples, self.samples)


@dataclass(frozen=True, kw_only=True)
class VarGrad:
    """VarGrad: a = (1/n) Σ_j g_j² − ((1/n) Σ_j g_j)², pixel by pixel, g_j = ∂s/∂x at x + σ·n_j.

    The variance of the n gradients themselves (divided by n, as the authors do; n − 1 would
    scale every map alike). The noise is that of SmoothGrad: the same ``seed``, id and sample
    give the same n_j. Computed in one pass by Welford's updates, since the formula above
    subtracts two large numbers; memory does not grow with n.

    Raw shape ``[B,C,H,W]``, never negative; default map Σ_c a. On a ReLU net only kinks that
    the noise crosses make it differ from 0. Cost: n forward and n backward passes.
    Sources: Adebayo et al. 2018, Local explanation methods; Seo et al. 2018.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2018,
        source="Adebayo et al. 2018, Local explanation methods for deep neural networks",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    samples: int = 16
    sigma: float = 0.15
    seed: int = 0
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        _check_noise(self.samples, 2, self.sigma)
        if self.sigma == 0:
            raise InvalidInput("sigma", "without noise nothing varies", "give a sigma above 0")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        spreads: dict[int, _Spread] = defaultdict(_Spread)
        for js, where, stack in copies(images, self.samples, noisy(self.sigma, self.seed, ids)):
            gradients = input_gradient(
                model,
                stack,
                targets[where].repeat(len(js)),
                score=self.score,
                create_graph=create_graph,
            )
            for gradient in gradients.view(len(js), -1, *images.shape[1:]):
                spreads[where.start].add(gradient)
        return torch.cat([spreads[start].variance() for start in sorted(spreads)])

    def cost(self) -> Passes:
        return Passes(self.samples, self.samples)


class _Spread:
    """Mean and sum of squared deviations of the tensors seen so far (Welford 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, value: Tensor) -> None:
        self.count += 1
        before = value - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (value - self.mean)

    def variance(self) -> Tensor:
        return self.squares / self.count


def noisy(
    sigma: float, seed: int, ids: Sequence[str] | None
) -> Callable[[Tensor, int, slice], Tensor]:
    """Makes copy j of images: x + σ·n_j, the same n_j in every method of this file."""

    def copy(part: Tensor, sample: int, where: slice) -> Tensor:
        names = None if ids is None else ids[where]
        return part + sigma * normal(part, names, seed, f"smooth_grad/{sample}")

    return copy


def _check_noise(samples: int, least: int, sigma: float) -> None:
    if samples < least:
        raise InvalidInput("samples", f"must be at least {least}, got {samples}")
    if not sigma >= 0:
        raise InvalidInput("sigma", f"must be at least 0, got {sigma}")
