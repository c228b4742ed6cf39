"""FIDO against all 2⁸ masks of eight cells, and whole runs by other means."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.randomness import uniform
from robustlab.core.score import score_of
from robustlab.core.streaming import input_gradient
from robustlab.explainers import build
from robustlab.explainers.perturbation.fido import FIDO, log_odds
from robustlab.explainers.perturbation.infill import diffused, infill_of
from tests.nets import ResNetLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
IDS = ("ada", "bob", "cyd")
EXACT = {"rtol": 1e-9, "atol": 1e-11}
MASKS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64)


def test_log_odds_are_those_of_the_targets_probability() -> None:
    net, leaf = seeded(ResNetLike), pictures().requires_grad_()
    chance = score_of(net(leaf), TARGETS, "prob")
    (oracle,) = torch.autograd.grad((chance / (1 - chance)).log().sum(), leaf)
    mine = input_gradient(net, pictures(), TARGETS, start=log_odds)
    torch.testing.assert_close(mine, oracle, **EXACT)


class Cells(nn.Module):
    """Eight pixels; an additive score, or one with two cells that need each other."""

    def __init__(self, together: float) -> None:
        super().__init__()
        effects = torch.tensor([2.0, -1.0, 0.1, 0.8, 0.3, -0.2, 0.05, 1.2], dtype=torch.float64)
        self.effects = nn.Parameter(effects)
        self.together = together

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(1)
        joint = self.together * cells[:, 2] * cells[:, 4]
        score = cells @ self.effects + joint
        return torch.stack([score, -score], 1)


def expectation(net: Cells, kept: Tensor, game: str, penalty: float) -> Tensor:
    """The objective over all masks, each with its probability under ``kept`` ``[8]``."""
    chance = (MASKS * kept + (1 - MASKS) * (1 - kept)).prod(1)
    score = (chance * net(MASKS)[:, 0]).sum()
    if game == "ssr":
        return -score + penalty * kept.mean()
    return score + penalty * (1 - kept).mean()


EIGHT = torch.ones(1, 1, 2, 4, dtype=torch.float64)  # white pixels over black: x = z
BLACK = {"infill": 0.0, "score": "logit", "cells": 2}


@pytest.mark.parametrize("together", [0.0, 0.8])
@pytest.mark.parametrize("game", ["ssr", "sdr"])
def test_the_learnt_region_is_the_best_of_all_256(game: str, together: float) -> None:
    """The exact objective is linear in each probability: some binary mask is optimal.

    Where two cells need each other, keeping both suffices and dropping the better one destroys.
    """
    net, penalty = Cells(together), 3.2  # 0.4 for each cell
    exact = torch.stack([expectation(net, mask, game, penalty) for mask in MASKS])
    best = MASKS[exact.argmin()] if game == "ssr" else 1 - MASKS[exact.argmin()]
    raw = build("fido", game=game, penalty=penalty, steps=150, samples=8, **BLACK).explain(
        net, EIGHT, torch.tensor([0])
    )
    assert torch.equal((raw.flatten() > 0.5).double(), best)
    if not together:
        order = net.effects.detach().argsort()
        ranked = raw.flatten()[order]
        assert (ranked.diff() > -0.02).all(), "cells rank as their effects do"


@pytest.mark.parametrize("game", ["ssr", "sdr"])
def test_sampled_slopes_come_to_the_slope_of_the_exact_expectation(game: str) -> None:
    """At low temperature the relaxation's bias is smaller than the tolerance."""
    net, penalty, samples = Cells(0.0), 1.0, 40_000
    logits = torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 1, 2, 4).requires_grad_()
    exact = expectation(net, logits.sigmoid().flatten(), game, penalty)
    (slope,) = torch.autograd.grad(exact, logits)
    fido = FIDO(game=game, penalty=penalty, samples=samples, temperature=0.1, **BLACK)
    noise = fido._logistic(logits.detach(), None, 0)
    seen, weight, price = fido._play(EIGHT, torch.zeros_like(EIGHT), noise, logits)
    value = (weight * net(seen)[:, 0]).sum() + price
    (sampled,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(value, exact, rtol=0, atol=0.02)
    torch.testing.assert_close(sampled, slope, rtol=0, atol=0.02)
    assert slope.abs().max() > 0.3


def by_other_means(net: nn.Module, images: Tensor, infill: str, game: str) -> Tensor:
    """Three steps with two samples: one graph through masks and model, torch's optimiser."""
    logits = torch.zeros(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    sign = -1 if game == "ssr" else 1
    for step in range(3):
        u = (uniform(torch.empty(3, 2, 1, 4, 4), IDS, 0, f"fido/mask/{step}").double() + 1) / 2
        loss = torch.zeros((), dtype=torch.float64)
        for sample in range(2):
            noise = u[:, sample].log() - (1 - u[:, sample]).log()
            cells = torch.sigmoid((logits + noise) / 0.3)
            keep = F.interpolate(cells, (12, 12), mode="nearest")
            if infill == "diffusion":
                behind = diffused(images, (keep > 0.5).double())
            else:
                purpose = f"fido/infill/{step if infill == 'noise' else 0}"
                behind = infill_of(images, infill, blur=0.15, ids=IDS, seed=0, purpose=purpose)
            chance = score_of(net(keep * images + (1 - keep) * behind), TARGETS, "prob")
            loss = loss + sign * (chance / (1 - chance)).log().sum() / 2
        kept = logits.sigmoid()
        region = kept if game == "ssr" else 1 - kept
        optimiser.zero_grad()
        (loss + 0.1 * region.mean((1, 2, 3)).sum()).backward(inputs=[logits])
        optimiser.step()
    kept = logits.sigmoid().detach()
    return kept if game == "ssr" else 1 - kept


@pytest.mark.parametrize("infill", ["diffusion", "blur", "noise"])
@pytest.mark.parametrize("game", ["ssr", "sdr"])
def test_every_step_equals_one_graph_and_torchs_adam(infill: str, game: str) -> None:
    net, images = seeded(ResNetLike), pictures()
    mine = build(
        "fido", game=game, infill=infill, steps=3, samples=2, rate=0.2, penalty=0.1, cells=4,
        temperature=0.3,
    ).explain(net, images, TARGETS, ids=IDS)  # fmt: skip
    oracle = by_other_means(net, images, infill, game)
    torch.testing.assert_close(mine, oracle, **EXACT)
