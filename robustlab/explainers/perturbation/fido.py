"""FIDO: how likely each cell may drop out, learnt from random masks and an infill."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.maps import Post
from robustlab.core.randomness import uniform
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.perturbation.infill import diffused, infill_of
from robustlab.explainers.perturbation.masks import Adam, cell_grid, learnt, slope
from robustlab.explainers.perturbation.options import (
    check_above_zero,
    check_at_least,
    check_infill,
)

EDGE: Final = 1e-6  # keeps the logistic noise finite


@dataclass(frozen=True, kw_only=True)
class FIDO:
    """FIDO: a = θ, the probability that a cell is needed, learnt through random masks.

    *ssr* (smallest sufficient region) minimises E_z[−s(Φ(x, z))] + λ mean θ, θ the probability
    of keeping a cell;
    *sdr* (smallest destroying region) minimises E_z[s(Φ(x, z))] + λ mean θ, θ the probability
    of dropping it. Φ = z ⊙ x + (1 − z) ⊙ infill, where z keeps each cell by its own draw,
    relaxed to z = σ((logit P(keep) + log u − log(1 − u)) / ``temperature``), u uniform on
    (0, 1): the Concrete distribution. s is the log-odds log p_t − log(1 − p_t) or any other score.

    ``cells`` along the shorter side (at most one per pixel), each kept or dropped as a whole.
    ``infill``: *diffusion* spreads the kept pixels' colours into the holes of each sample
    (z rounded, no gradient through the infill, as in the authors' code; see `diffused`);
    *blur*, *noise* (drawn anew in each step), the image's *mean* colour, or a constant.
    Adam with step size ``rate`` on the logits from θ = ½, ``samples`` masks in each step. An
    image's masks depend on ``seed`` and its id.

    Not differentiable: the map is where a stochastic optimiser stands after ``steps`` steps.
    Raw shape ``[B,1,h,w]`` with a probability per cell, default map signed. Cost: ``steps`` ·
    ``samples`` forward and as many backward passes. Source: Chang et al. 2019.

    Differences from the paper: its best infill is a generative network (CA-GAN), for which
    diffusion stands in without weights, the classical way to paint a hole from around it;
    their code has 56 × 56 probabilities, enlarged, with an independent draw for every pixel,
    which an infill that knows the neighbours simply undoes; λ multiplies a mean over cells
    instead of their sum over the pixels (their 1e-3 is 50 here, at 224 × 224).
    """

    about: ClassVar[About] = About(
        family="perturbation",
        year=2019,
        source="Chang, Creager, Goldenberg & Duvenaud 2019, Explaining image classifiers by "
        "counterfactual generation",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    game: Literal["ssr", "sdr"] = "ssr"
    steps: int = 50
    samples: int = 4
    rate: float = 0.1
    penalty: float = 50.0
    temperature: float = 0.1
    cells: int = 28
    infill: Literal["mean", "blur", "noise", "diffusion"] | float = "diffusion"
    blur: float = 0.15
    seed: int = 0
    score: Score | Literal["log_odds"] = "log_odds"
    post: Post = "signed"

    def __post_init__(self) -> None:
        check_at_least(self, {"steps": 1, "samples": 1, "cells": 1, "penalty": 0})
        check_above_zero(self, "rate", "temperature")
        check_infill(self.infill, self.blur)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return learnt(images, targets, ids, partial(self._learn, model))

    def _learn(
        self, model: nn.Module, images: Tensor, targets: Tensor, ids: Sequence[str] | None
    ) -> Tensor:
        logits = images.new_zeros(len(images), 1, *cell_grid(self.cells, images))
        adam, targets = Adam(self.rate), targets.repeat(self.samples)
        score = log_odds if self.score == "log_odds" else self.score
        behind = self._behind(images, ids, 0)
        for step in range(self.steps):
            if self.infill == "noise":
                behind = self._behind(images, ids, step)
            game = partial(self._play, images, behind, self._logistic(logits, ids, step))
            logits = adam(logits, slope(model, logits, targets, game, score))
        return self._counted(logits)

    def _play(
        self, images: Tensor, behind: Tensor | None, noise: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The samples that the model sees, the weight of each, and the price of the region."""
        cells = ((logits + noise) / self.temperature).sigmoid().flatten(0, 1)
        keep = F.interpolate(cells, images.shape[-2:], mode="nearest")
        images = images.repeat(self.samples, 1, 1, 1)
        if behind is None:
            behind = diffused(images, keep.detach().round())
        else:
            behind = behind.repeat(self.samples, 1, 1, 1)
        sign = -1.0 if self.game == "ssr" else 1.0
        weight = images.new_full((len(images),), sign / self.samples)
        price = self.penalty * self._counted(logits).mean((1, 2, 3)).sum()
        return torch.lerp(behind, images, keep), weight, price

    def _counted(self, logits: Tensor) -> Tensor:
        """The probability of being in the region: kept to suffice, or dropped to destroy."""
        return (logits if self.game == "ssr" else -logits).sigmoid()

    def _logistic(self, logits: Tensor, ids: Sequence[str] | None, step: int) -> Tensor:
        """log u − log(1 − u), ``[samples,B,1,h,w]``."""
        like = logits.unsqueeze(1).expand(-1, self.samples, -1, -1, -1)
        sided = uniform(like, ids, self.seed, f"fido/mask/{step}")  # 2u − 1
        return 2 * sided.clamp(EDGE - 1, 1 - EDGE).atanh().transpose(0, 1)

    def _behind(self, images: Tensor, ids: Sequence[str] | None, step: int) -> Tensor | None:
        """What hidden cells show; None if that depends on which cells are hidden."""
        if self.infill == "diffusion":
            return None
        purpose = f"fido/infill/{step}"
        return infill_of(
            images, self.infill, blur=self.blur, ids=ids, seed=self.seed, purpose=purpose
        )

    def cost(self) -> Passes:
        passes = self.steps * self.samples
        return Passes(passes, passes)


def log_odds(logits: Tensor, targets: Tensor) -> Tensor:
    """What the backward pass of log p_t − log(1 − p_t) = f_t − log Σ_{j≠t} e^{f_j} starts with."""
    index = targets.unsqueeze(1)
    others = logits.scatter(1, index, -torch.inf).softmax(1)
    return torch.zeros_like(logits).scatter(1, index, 1.0) - others
