"""Gradient family: what a small change of each pixel would do to the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Interposition, Phase, route
from robustlab.core.maps import Post
from robustlab.core.randomness import normal
from robustlab.core.score import Score
from robustlab.core.streaming import (
    each_micro_batch,
    hessian_vector,
    input_gradient,
    sum_of_gradients,
)
from robustlab.core.types import Differentiable, Passes
from robustlab.core.wrapping import Smoothed


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Vanilla backpropagation: a = ∂s/∂x.

    With ``beta``, β-smoothing: the gradient of the same weights with softplus_β in place of
    ReLU, a defence of the explanation that needs no retraining (smaller β, smoother map).

    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. Cost: 1 forward and 1 backward pass.
    Sources: Simonyan, Vedaldi & Zisserman 2014 (their map takes max_c |a|: ``post: max_abs``);
    Dombrowski et al. 2019 for β-smoothing.
    """

    differentiable: ClassVar[Differentiable] = "exact"
    beta: float | None = None
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if self.beta is not None and not self.beta > 0:
            raise InvalidInput("beta", f"must be above 0, got {self.beta}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        model = self._smoothed(model)

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            return input_gradient(model, part, labels, score=self.score, create_graph=create_graph)

        return each_micro_batch(images, targets, run)

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
        """The Jacobian is the Hessian H of the score, which is symmetric: Jᵀv = Hv."""
        model = self._smoothed(model)
        return hessian_vector(model, images, targets, cotangent, step=step, score=self.score)[0]

    def _smoothed(self, model: nn.Module) -> nn.Module:
        return model if self.beta is None else Smoothed(model, self.beta)

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class InputXGradient:
    """Input times gradient: a = x ⊙ ∂s/∂x.

    Raw shape ``[B,C,H,W]`` with x in pixel units, before the model's own normalisation.
    Default map Σ_c |a|, as for the gradient. Cost: 1 forward and 1
    backward pass. Source: Shrikumar et al. 2016.
    """

    differentiable: ClassVar[Differentiable] = "exact"
    score: Score = "logit"
    post: Post = "abs_sum"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        gradient = self._gradient.explain(model, images, targets, create_graph=create_graph)
        return (images if create_graph else images.detach()) * gradient

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
        """Since a = x ⊙ g(x), Jᵀv = g ⊙ v + H (x ⊙ v)."""
        images = images.detach()
        curvature, gradient = hessian_vector(
            model, images, targets, images * cotangent, step=step, score=self.score
        )
        return gradient * cotangent + curvature

    @property
    def _gradient(self) -> Gradient:
        return Gradient(score=self.score)

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop:
    """Guided backpropagation: at every ReLU, R_in = max(0, R_out) ⊙ φ'(z).

    φ is the activation as it runs (ReLU, ReLU6 or their softplus stand-in), so the usual
    mask 1[z > 0] is φ' for ReLU. Modules and functions alike; other activations keep their
    gradient. Raw shape ``[B,C,H,W]``. Cost: 1 forward and 1 backward pass.
    Source: Springenberg et al. 2015.
    """

    differentiable: ClassVar[Differentiable] = "exact"
    score: Score = "logit"
    post: Post = "abs_sum"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            phase = Phase()

            def guided(call: Call) -> Tensor:
                # clamp what arrives, then let the activation's own derivative act on it
                return route(phase, call.native(), lambda r: (r.clamp(min=0),))

            names = ("relu", "relu6", "smooth_activation")
            return input_gradient(
                model,
                part,
                labels,
                score=self.score,
                create_graph=create_graph,
                mode=Interposition(dict.fromkeys(names, guided)),
                phase=phase,
            )

        return each_micro_batch(images, targets, run)

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """SmoothGrad: a = (1/n) Σ_j ∂s/∂x at x + σ·n_j, n_j standard normal.

    ``sigma`` is in pixel units of [0,1] images (the paper's "noise level" times the range);
    noisy copies are not clipped to the box. The noise of an image depends on ``seed`` and its
    id only, so the map is a fixed, differentiable function of the image: an attack faces the
    very noise that the judge uses. Raw shape ``[B,C,H,W]``. Cost: n forward and n backward
    passes. Source: Smilkov et al. 2017.
    """

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
