"""Tangent-space projection: the part of a gradient that stays among the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robustlab import data
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import each_micro_batch, hessian_vector, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.defended.neighbours import projected, tangent_bases


@dataclass(frozen=True, kw_only=True)
class TangentProjected:
    """Tangent-space projection (TSP): a = P(x) g, or a = x ⊙ P(x) g, g = ∂s/∂x.

    P(x) = V Vᵀ projects onto the ``dims`` leading directions V of the ``neighbours`` images
    that are nearest to x (Euclidean) among the training images of the explained class,
    centred on their mean. What a manipulated model shows off the data's manifold is gone;
    so is whatever an honest model knows there. ``base``: *gradient*, or *input_x_gradient*,
    where the projection comes before the product.

    ``data`` is a labelled data set that ``robustlab.data.load`` reads by its name alone; its
    training split is used where it has one. Its labels must count the model's classes.
    Where the neighbours span fewer directions, fewer are used.

    The class is the target that is explained. The authors' code takes the image's true
    label, which nobody knows at test time. Their code defaults to 30 to 32 neighbours
    and 16 to 30 directions, and can centre on x instead; the decoder variant is left out.

    V depends on x only through who the neighbours are, so P is piecewise constant, and the
    derivative P H, or diag(P g) + diag(x) P H, is exact between its jumps.
    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. Cost: 1 forward and 1 backward pass, and one
    distance to every training image of the class. Source: Anders et al. 2020.

    Raises:
        InvalidInput: a data set that is unknown, unlabelled, not found, made of images of
            another shape, or without ``neighbours`` images of the class.
    """

    about: ClassVar[About] = About(
        family="defended",
        year=2020,
        source="Anders et al. 2020, Fairwashing explanations with off-manifold detergent",
        needs="labelled training images of the same shape",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    data: str = "mnist_5k"
    base: Literal["gradient", "input_x_gradient"] = "gradient"
    neighbours: int = 32
    dims: int = 16
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if self.data not in data.DATASETS:
            raise InvalidInput(
                "data", f"unknown data set {self.data!r}", nearest(self.data, data.DATASETS)
            )
        if self.neighbours < 2:
            raise InvalidInput("neighbours", f"must be at least 2, got {self.neighbours}")
        if not 1 <= self.dims < self.neighbours:
            problem = f"must lie in 1..{self.neighbours - 1}, got {self.dims}"
            raise InvalidInput("dims", problem, "centred neighbours span one dimension less")

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
            gradient = input_gradient(
                model, part, labels, score=self.score, create_graph=create_graph
            )
            found = projected(self._bases(part, labels), gradient)
            if self.base == "gradient":
                return found
            return (part if create_graph else part.detach()) * found

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
        """P and H are symmetric: Jᵀv = H P v, or Pg ⊙ v + H P (x ⊙ v)."""
        images = images.detach()
        bases = self._bases(images, targets)
        times_input = self.base == "input_x_gradient"
        probe = projected(bases, images * cotangent if times_input else cotangent)
        curvature, gradient = hessian_vector(
            model, images, targets, probe, step=step, score=self.score
        )
        return curvature + projected(bases, gradient) * cotangent if times_input else curvature

    def _bases(self, images: Tensor, targets: Tensor) -> Tensor:
        return tangent_bases(self.data, images, targets, self.neighbours, self.dims)

    def cost(self) -> Passes:
        return Passes(1, 1)
