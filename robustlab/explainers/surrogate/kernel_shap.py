"""KernelSHAP: Shapley values of superpixels, by regression over coalitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

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
class KernelSHAP:
    """KernelSHAP: a pixel gets the Shapley value φ_m of its superpixel m.

    v(z) is the score of the image with the superpixels of coalition z shown and ``baseline``
    in place of the others ("mean": the superpixel's own mean colour; or a pixel value). With
    all M shown or none, Σ_m φ_m = v(1) − v(0) holds exactly; under this constraint

        φ = argmin Σ_z π(z) (v(z) − v(0) − z·φ)²,   π(z) = (M−1) / (C(M,|z|) |z| (M−|z|)),

    over all coalitions 0 < |z| < M. If all 2^M fit into ``samples``, φ are the Shapley values
    themselves. Otherwise coalitions are drawn in proportion to π, each followed by its
    complement, and count alike; where they leave φ open, it is the shortest solution.

    Raw shape ``[B,1,H,W]``, constant on superpixels; default map signed. Cost: ``samples``
    forward passes, or 2^M if that is less. Source: Lundberg & Lee 2017; complements as in
    their code (and Covert & Lee 2021).

    Not differentiable: superpixels come from a discrete search, and the map jumps where a
    pixel changes sides. Attack it with ``black_box``.

    Deviations: the paper's missing features take values of other images, here one
    ``baseline``; their code enumerates small and large coalitions first when it cannot take
    all, here all or none are enumerated.

    Raises:
        InvalidInput: an image with one superpixel, or with more than half as many as samples.
    """

    about: ClassVar[About] = About(
        family="surrogate",
        year=2017,
        source="Lundberg & Lee 2017, A unified approach to interpreting model predictions",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    superpixels: Superpixels = "slic"
    segments: int = 50
    samples: int = 256
    baseline: Baseline = "mean"
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.segments < 2:
            raise InvalidInput("segments", f"must be at least 2, got {self.segments}")
        if self.samples < 4:
            raise InvalidInput("samples", f"must be at least 4, got {self.samples}")

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
        check_samples(regions, self.samples, self.samples // 2)
        names = [""] * len(images) if ids is None else ids
        rows = [self._coalitions(m, name) for m, name in zip(counts(regions), names, strict=True)]
        scores = coalition_scores(model, images, targets, regions, rows, self.baseline, self.score)
        effects = [self._fit(z, v) for z, v in zip(rows, scores, strict=True)]
        return painted(regions, effects, images)

    def _coalitions(self, count: int, name: str) -> Tensor:
        """Rows ``[n,M]``: none first, all last, and in between those that are compared."""
        if self._takes_all(count):
            numbers = torch.arange(2**count, device="cpu")
            return numbers[:, None] >> torch.arange(count, device="cpu") & 1 == 1
        on_cpu: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        source = generator(self.seed, name, "kernel_shap")
        size = torch.arange(1, count, **on_cpu)
        pairs = (self.samples - 1) // 2
        drawn = 1 + torch.multinomial(1 / (size * (count - size)), pairs, True, generator=source)
        places = torch.rand(pairs, count, **on_cpu, generator=source).argsort(1).argsort(1)
        chosen = places < drawn[:, None]
        both = torch.stack([chosen, ~chosen], 1).flatten(0, 1)[: self.samples - 2]
        none = torch.zeros_like(both[:1])
        return torch.cat([none, both, ~none])

    def _fit(self, rows: Tensor, scores: Tensor) -> Tensor:
        """With Δ = v(1) − v(0), φ = Δ/M + ψ and Σψ = 0: a regression for ψ alone.

        Its rows are centred, so that they say nothing of the direction of all ones, and the
        pseudo-inverse leaves ψ none of it: the constraint holds by construction.
        """
        count = rows.shape[1]
        share = (scores[-1] - scores[0]) / count
        inner = rows[1:-1].to(scores)
        size = inner.sum(1)
        centred = inner - size[:, None] / count
        weighted = centred.T * self._kernel(size, count)
        rest = scores[1:-1] - scores[0] - size * share
        inverse = torch.linalg.pinv(weighted @ centred, rtol=1e-11, hermitian=True)
        return share + inverse @ (weighted @ rest)

    def _kernel(self, size: Tensor, count: int) -> Tensor:
        """π where all coalitions are there; those drawn in proportion to π count alike."""
        if not self._takes_all(count):
            return torch.ones_like(size)
        ways = [comb(count, k) for k in range(count + 1)]
        return (count - 1) / (size.new_tensor(ways)[size.long()] * size * (count - size))

    def _takes_all(self, count: int) -> bool:
        return 2**count <= self.samples

    def cost(self) -> Passes:
        return Passes(self.samples, 0)
