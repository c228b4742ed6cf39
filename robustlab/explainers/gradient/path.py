"""Path family: gradients gathered along a line from a baseline to the image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import hessian_vector, logits_of, sum_of_gradients
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.gradient.baselines import check_blur, random_pixels
from robustlab.explainers.gradient.plain import check_beta, smoothed

Rule = Literal["right", "left", "middle", "trapezoid", "gauss_legendre"]
Baseline = float | Literal["mean", "blur", "uniform"]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """Integrated gradients: a = (x − b) ⊙ Σ_j w_j ∂s/∂z at z_j = b + α_j (x − b).

    ``steps`` = m points. With the *right* rule α_j = j/m and w_j = 1/m for j = 1..m, as in
    the paper; *left* takes j = 0..m−1, *middle* α_j = (j − ½)/m, *trapezoid* m equally
    spaced points from 0 to 1 with halved ends, *gauss_legendre* the nodes and weights that
    integrate polynomials up to degree 2m − 1 exactly.

    ``baseline`` b is a constant pixel value (black = 0, white = 1), the image's own *mean*
    per channel, its Gaussian *blur* (``blur_sigma`` pixels), or *uniform* random pixels in
    [0, 1], drawn per image by ``seed`` and id. An attack moves the mean and the blur along
    with the image, and derivatives know it. ``beta`` smooths the activations, as for the
    gradient. Completeness: Σ a → s(x) − s(b) as m grows; see `completeness_gap`.

    Raw shape ``[B,C,H,W]``. Cost: m forward and m backward passes, streamed.
    Sources: Sundararajan et al. 2017; Sturmfels et al. 2020 for baselines.
    """

    about: ClassVar[About] = About(
        family="gradient", year=2017, source="Sundararajan, Taly & Yan 2017, Axiomatic attribution"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    steps: int = 16
    rule: Rule = "right"
    baseline: Baseline = 0.0
    blur_sigma: float = 10.0
    seed: int = 0
    beta: float | None = None
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if self.steps < (2 if self.rule == "trapezoid" else 1):
            raise InvalidInput("steps", f"{self.steps} is too few for the {self.rule} rule")
        check_blur(self.blur_sigma)
        check_beta(self.beta)

    def nodes(self) -> list[tuple[float, float]]:
        """The quadrature: (α_j, w_j) for each point."""
        m = self.steps
        if self.rule == "gauss_legendre":
            places, weights = np.polynomial.legendre.leggauss(m)  # on [-1, 1]
            return list(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
        if self.rule == "trapezoid":
            inner = 1 / (m - 1)
            return [(j * inner, inner / 2 if j in (0, m - 1) else inner) for j in range(m)]
        shift = {"right": 1.0, "left": 0.0, "middle": 0.5}[self.rule]
        return [((j + shift) / m, 1 / m) for j in range(m)]

    def baseline_of(self, images: Tensor, ids: Sequence[str] | None = None) -> Tensor:
        """Where each image's path starts, ``[B,C,H,W]``."""
        if self.baseline == "mean":
            return images.mean((2, 3), keepdim=True).expand_as(images)
        if self.baseline == "blur":
            return gaussian_blur(images, self.blur_sigma)
        if self.baseline == "uniform":
            return random_pixels(images, ids, self.seed, "integrated_gradients/baseline")
        return torch.full_like(images, self.baseline)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        images = images if create_graph else images.detach()
        nodes, start = self.nodes(), self.baseline_of(images, ids)
        mean = sum_of_gradients(
            smoothed(model, self.beta),
            images,
            targets,
            len(nodes),
            lambda part, j, where: start[where] + nodes[j][0] * (part - start[where]),
            lambda j: nodes[j][1],
            score=self.score,
            create_graph=create_graph,
        )
        return (images - start) * mean

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
        """Jᵀv as `path_product` has it, and through the baseline where it follows the image."""
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            start = self.baseline_of(image, ids)
        fixed = start.detach()
        to_image, to_start = path_product(
            smoothed(model, self.beta),
            image.detach(),
            targets,
            cotangent,
            ((fixed, alpha, weight) for alpha, weight in self.nodes()),
            step=step,
            score=self.score,
        )
        return to_image + pulled_back(start, image, to_start)

    def cost(self) -> Passes:
        return Passes(self.steps, self.steps)


def path_product(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    cotangent: Tensor,
    points: Iterable[tuple[Tensor, float | Tensor, float]],
    *,
    step: float,
    score: Score,
) -> tuple[Tensor, Tensor]:
    """∂⟨v, a⟩/∂x and ∂⟨v, a⟩/∂b of a = Σ_j w_j (x − b_j) ⊙ g(z_j), z_j = b_j + α_j (x − b_j).

    ``points`` are the (b_j, α_j, w_j). With u_j = H(z_j) ((x − b_j) ⊙ v) they are
    Σ_j w_j (g(z_j) ⊙ v + α_j u_j) and Σ_j w_j ((1 − α_j) u_j − g(z_j) ⊙ v). The terms in g
    matter: leaving them out (as one published attack does) weakens an attack. They are read
    off the probes of u_j, (g(z + hd) + g(z − hd))/2, at no cost.
    """
    to_image, to_start = torch.zeros_like(images), torch.zeros_like(images)
    for start, alpha, weight in points:
        path = images - start
        curvature, middle = hessian_vector(
            model, start + alpha * path, targets, path * cotangent, step=step, score=score
        )
        direct = middle * cotangent
        to_image += weight * (direct + alpha * curvature)
        to_start += weight * ((1 - alpha) * curvature - direct)
    return to_image, to_start


def pulled_back(start: Tensor, image: Tensor, cotangent: Tensor) -> Tensor:
    """(∂b/∂x)ᵀ v for a baseline ``start`` made from the leaf ``image``; 0 if it was not."""
    if not start.requires_grad:
        return torch.zeros_like(cotangent)
    (found,) = torch.autograd.grad(start, image, cotangent)
    return found


def completeness_gap(
    model: nn.Module,
    explainer: IntegratedGradients,
    images: Tensor,
    targets: Tensor,
    raw: Tensor,
    ids: Sequence[str] | None = None,
) -> Tensor:
    """Σ a − (s(x) − s(b)) per image ``[B]``: 0 for the exact integral. Two forward passes.

    ``ids`` as they were given for ``raw``: a *uniform* baseline is drawn by them.
    """
    model = smoothed(model, explainer.beta)
    scores = [
        score_of(logits_of(model, points), targets, explainer.score)
        for points in (images, explainer.baseline_of(images.detach(), ids))
    ]
    return raw.flatten(1).sum(1) - (scores[0] - scores[1])
