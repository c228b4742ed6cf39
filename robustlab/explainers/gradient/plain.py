"""Vanilla gradients: what a small change of each pixel would do to the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import each_micro_batch, hessian_vector, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.core.wrapping import Smoothed


def check_beta(beta: float | None) -> None:
    """Refuse a β that smooths nothing or the wrong way round."""
    if beta is not None and not beta > 0:
        raise InvalidInput("beta", f"must be above 0, got {beta}")


def smoothed(model: nn.Module, beta: float | None) -> nn.Module:
    """The model, or under β-smoothing the same weights with softplus_β in place of ReLU."""
    return model if beta is None else Smoothed(model, beta)


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Vanilla backpropagation: a = ∂s/∂x.

    With ``beta``, β-smoothing: the gradient of the same weights with softplus_β in place of
    ReLU, a defence of the explanation that needs no retraining (smaller β, smoother map).

    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. Cost: 1 forward and 1 backward pass.
    Sources: Simonyan, Vedaldi & Zisserman 2014 (their map takes max_c |a|: ``post: max_abs``);
    Dombrowski et al. 2019 for β-smoothing.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2014,
        source="Simonyan, Vedaldi & Zisserman 2014, Deep inside convolutional networks",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    beta: float | None = None
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
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
        model = smoothed(model, self.beta)

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
        model = smoothed(model, self.beta)
        return hessian_vector(model, images, targets, cotangent, step=step, score=self.score)[0]

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class InputXGradient:
    """Input times gradient: a = x ⊙ ∂s/∂x.

    Raw shape ``[B,C,H,W]`` with x in pixel units, before the model's own normalisation.
    Default map Σ_c |a| and ``beta``, as for the gradient. Cost: 1 forward and 1
    backward pass. Source: Shrikumar et al. 2016.
    """

    about: ClassVar[About] = About(
        family="gradient", year=2016, source="Shrikumar et al. 2016, Not just a black box"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    beta: float | None = None
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
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
        model, images = smoothed(model, self.beta), images.detach()
        curvature, gradient = hessian_vector(
            model, images, targets, images * cotangent, step=step, score=self.score
        )
        return gradient * cotangent + curvature

    @property
    def _gradient(self) -> Gradient:
        return Gradient(beta=self.beta, score=self.score)

    def cost(self) -> Passes:
        return Passes(1, 1)
