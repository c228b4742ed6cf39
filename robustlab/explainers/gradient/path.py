"""Path family: gradients gathered along a line from a baseline to the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import hessian_vector, logits_of, sum_of_gradients
from robustlab.core.types import About, Differentiable, Passes

Rule = Literal["right", "left", "middle", "trapezoid"]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """Integrated gradients: a = (x − b) ⊙ Σ_j w_j ∂s/∂z at z_j = b + α_j (x − b).

    ``steps`` = m points. With the *right* rule α_j = j/m and w_j = 1/m for j = 1..m, as in
    the paper; *left* takes j = 0..m−1, *middle* α_j = (j − ½)/m, *trapezoid* m equally
    spaced points from 0 to 1 with halved ends. ``baseline`` is a constant pixel value
    (black = 0). Completeness: Σ a → s(x) − s(b) as m grows; see `completeness_gap`.
    Raw shape ``[B,C,H,W]``. Cost: m forward and m backward passes, streamed.
    Source: Sundararajan et al. 2017.
    """

    about: ClassVar[About] = About(
        family="gradient", year=2017, source="Sundararajan, Taly & Yan 2017, Axiomatic attribution"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    steps: int = 16
    rule: Rule = "right"
    baseline: float = 0.0
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if self.steps < (2 if self.rule == "trapezoid" else 1):
            raise InvalidInput("steps", f"{self.steps} is too few for the {self.rule} rule")

    def nodes(self) -> list[tuple[float, float]]:
        """The quadrature: (α_j, w_j) for each point."""
        m = self.steps
        if self.rule == "trapezoid":
            inner = 1 / (m - 1)
            return [(j * inner, inner / 2 if j in (0, m - 1) else inner) for j in range(m)]
        shift = {"right": 1.0, "left": 0.0, "middle": 0.5}[self.rule]
        return [((j + shift) / m, 1 / m) for j in range(m)]

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        nodes = self.nodes()
        mean = sum_of_gradients(
            model,
            images,
            targets,
            len(nodes),
            lambda part, j, _: self._point(part, nodes[j][0]),
            lambda j: nodes[j][1],
            score=self.score,
            create_graph=create_graph,
        )
        return ((images if create_graph else images.detach()) - self.baseline) * mean

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
        """Jᵀv = ḡ ⊙ v + Σ_j w_j α_j H(z_j) ((x − b) ⊙ v), with ḡ the weighted mean gradient.

        Both terms matter: leaving out the first (as one published attack does) weakens it.
        The mean gradient is read off the same probes, (g(z+hu) + g(z−hu))/2, at no cost.
        """
        nodes, images = self.nodes(), images.detach()
        direction = (images - self.baseline) * cotangent
        total = torch.zeros_like(images)
        for alpha, weight in nodes:
            point = self._point(images, alpha)
            curvature, middle = hessian_vector(
                model, point, targets, direction, step=step, score=self.score
            )
            total += weight * (middle * cotangent + alpha * curvature)
        return total

    def _point(self, images: Tensor, alpha: float) -> Tensor:
        return self.baseline + alpha * (images - self.baseline)

    def cost(self) -> Passes:
        return Passes(self.steps, self.steps)


def completeness_gap(
    model: nn.Module, explainer: IntegratedGradients, images: Tensor, targets: Tensor, raw: Tensor
) -> Tensor:
    """Σ a − (s(x) − s(b)) per image ``[B]``: 0 for the exact integral. Two forward passes."""
    baseline = torch.full_like(images, explainer.baseline)
    scores = [
        score_of(logits_of(model, points), targets, explainer.score)
        for points in (images, baseline)
    ]
    return raw.flatten(1).sum(1) - (scores[0] - scores[1])
