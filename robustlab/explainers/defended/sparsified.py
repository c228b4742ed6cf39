"""Sparsified SmoothGrad: a smoothed map bounded in [0, 1], so that its ranks can be certified."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import TINY, Post
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import Start, copies, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.gradient.smoothed import noisy

ROUNDING: Final = 1e-9  # a share of the pixels that is a whole number stays that number


@dataclass(frozen=True, kw_only=True)
class SparsifiedSmoothGrad:
    """Sparsified SmoothGrad: a = (1/n) Σ_j b(x + σ·n_j), n_j standard normal.

    b is |∂s/∂x|, summed over the channels of each of the d pixels, divided by its ⌈γd⌉-th
    largest value and clipped at 1; all but the ⌈τd⌉ largest are set to 0 (equal ones stay
    together). So 0 ≤ b ≤ 1, and how far an attack of L2 radius ρ can move the mean is known:
    `certificate.certified_overlap`. ``gamma`` = ``tau`` is the paper's first version, where
    b is 0 or 1, a smaller γ its relaxed one.

    ``explained``: the *target*, as every explainer here, or for each noisy copy the class
    that it is given itself (*prediction*, as in the paper). The certificate holds for both.
    ``samples`` = n, ``sigma`` = σ in pixel units; the noise is SmoothGrad's, by ``seed`` and
    the image's id. Sums of channels, where the authors' script ranks every channel's value
    on its own, make the certificate one about the map's pixels.

    Between the jumps where pixels trade places at the thresholds the derivative is exact; on
    ReLU nets it is that of a piecewise constant map for scores linear in the logits.
    Raw shape ``[B,1,H,W]`` in [0, 1]. Cost: n forward and n backward passes; the paper takes
    n = 8192. Source: Levine, Singla & Feizi 2019.
    """

    about: ClassVar[About] = About(
        family="defended",
        year=2019,
        source="Levine, Singla & Feizi 2019, Certifiably robust interpretation in deep learning",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    samples: int = 64
    sigma: float = 0.2
    gamma: float = 0.01
    tau: float = 0.1
    explained: Literal["target", "prediction"] = "target"
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InvalidInput("samples", f"must be at least 1, got {self.samples}")
        if not self.sigma > 0:
            raise InvalidInput("sigma", f"must be above 0, got {self.sigma}")
        if not 0 < self.tau <= 1:
            raise InvalidInput("tau", f"must be above 0 and at most 1, got {self.tau}")
        if not 0 < self.gamma <= self.tau:
            raise InvalidInput("gamma", f"must be above 0 and at most tau, got {self.gamma}")

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
        sums: dict[int, Tensor] = {}
        for js, where, stack in copies(images, self.samples, noisy(self.sigma, self.seed, ids)):
            gradients = input_gradient(
                model,
                stack,
                targets[where].repeat(len(js)),
                score=self.score,
                create_graph=create_graph,
                start=_own_class(self.score) if self.explained == "prediction" else None,
            )
            for sparse in self.sparsified(gradients).split(len(images[where])):
                sums[where.start] = sums[where.start] + sparse if where.start in sums else sparse
        return torch.cat([sums[start] for start in sorted(sums)]) / self.samples

    def sparsified(self, gradients: Tensor) -> Tensor:
        """b ``[n,1,H,W]`` of gradients ``[n,C,H,W]``."""
        importance = gradients.abs().sum(1, keepdim=True)
        flat = importance.flatten(1)
        top = flat.topk(_share(self.tau, flat.shape[1])).values
        full = top[:, _share(self.gamma, flat.shape[1]) - 1].view(-1, 1, 1, 1)
        least = top[:, -1].view(-1, 1, 1, 1)
        scaled = (importance / full.clamp(min=TINY)).clamp(max=1)
        return torch.where(importance >= least, scaled, 0)

    def cost(self) -> Passes:
        return Passes(self.samples, self.samples)


def _share(share: float, pixels: int) -> int:
    """⌈share · pixels⌉."""
    return math.ceil(share * pixels - ROUNDING)


def _own_class(score: Score) -> Start:
    """Starts the backward pass at the score of the class that each image is given itself."""

    def start(logits: Tensor, _: Tensor) -> Tensor:
        if not logits.requires_grad:
            return torch.zeros_like(logits)  # the caller has words for such a model
        scores = score_of(logits, logits.argmax(1), score)
        return torch.autograd.grad(scores.sum(), logits, create_graph=True)[0]

    return start
