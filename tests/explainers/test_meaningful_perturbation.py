"""Meaningful perturbation: exact optima of additive models, and the whole run by other means."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.blur import gaussian_blur
from robustlab.core.randomness import uniform
from robustlab.core.score import score_of
from robustlab.explainers import build
from robustlab.explainers.perturbation.infill import infill_of
from robustlab.explainers.perturbation.meaningful import DISCS, shifted, variation
from tests.nets import ResNetLike, Softplus, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
IDS = ("ada", "bob", "cyd")
EXACT = {"rtol": 1e-9, "atol": 1e-11}
PIXELWISE = {"smooth": 0.0, "jitter": 0.0, "infill": 0.0, "score": "logit"}


def additive(size: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 5)).double()
    net[1].weight.data *= 4
    return net


def effects(net: nn.Module, images: Tensor) -> Tensor:
    """What each pixel adds to the explained logit, ``[B,H,W]``; the infill is black."""
    return (net[1].weight.detach()[TARGETS] * images.flatten(1)).view_as(images).squeeze(1)


@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_the_mask_is_the_best_of_all_binary_masks_of_an_additive_model(game: str) -> None:
    """Without variation the problem is linear in the mask, so that a corner is optimal."""
    net, images, l1 = additive(3), pictures(3, 3, 1), 0.08
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9)), dtype=torch.float64)
    score = corners @ effects(net, images).flatten(1).T
    if game == "deletion":
        objective, kept = score + l1 * (1 - corners).sum(1, keepdim=True), 1 - corners
    else:
        objective, kept = -score + l1 * corners.sum(1, keepdim=True), corners
    best = kept[objective.argmin(0)].view(3, 1, 3, 3)
    mine = build(
        "meaningful_perturbation", game=game, l1=l1, tv=0.0, steps=60, **PIXELWISE
    ).explain(net, images, TARGETS)
    assert torch.equal(mine, best)
    assert 0 < best.mean() < 1, "the price must matter"


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_with_variation_it_comes_to_what_scipy_finds(power: float) -> None:
    net, images, l1, tv = additive(4), pictures(3, 4, 1), 0.05, 0.3

    def objective(mask: np.ndarray, effect: np.ndarray) -> float:
        m = mask.reshape(4, 4)
        steep = (abs(np.diff(m, axis=0)) ** power).sum() + (abs(np.diff(m, axis=1)) ** power).sum()
        return (m * effect).sum() + l1 * (1 - m).sum() + tv * steep

    raw = build(
        "meaningful_perturbation", l1=l1, tv=tv, power=power, steps=200, rate=0.03, **PIXELWISE
    ).explain(net, images, TARGETS)
    for mine, effect in zip(1 - raw[:, 0].numpy(), effects(net, images).numpy(), strict=True):
        found = minimize(
            objective, np.full(16, 0.5), effect, bounds=[(0, 1)] * 16, options={"ftol": 1e-14}
        )
        assert objective(mine, effect) == pytest.approx(found.fun, abs=1e-3)
        np.testing.assert_allclose(mine.flatten(), found.x, atol=0.05)
        assert objective(np.ones(16), effect) > found.fun + 0.05, "there is something to find"
        assert ((found.x > 0.1) & (found.x < 0.9)).any(), "variation keeps it from the corners"


def by_other_means(
    net: nn.Module, images: Tensor, steps: int, cells: int, infill: str, sign: int
) -> Tensor:
    """One graph through mask and model, and torch's optimiser."""
    mask = start(net, images, cells, infill, sign).requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=0.1)
    for step in range(steps):
        number = step if infill == "noise" else 0
        behind = fill(images, infill, number)
        offsets = draw(images, step)
        full = at_pixels(mask, images)
        seen = full * images + (1 - full) * behind
        padded = F.pad(seen, (0, 2, 0, 2), mode="reflect")
        seen = torch.stack(
            [p[:, d : d + 12, r : r + 12] for p, (d, r) in zip(padded, offsets, strict=True)]
        )
        hidden = 1 - mask if sign > 0 else mask
        rough = ((mask[..., 1:, :] - mask[..., :-1, :]).abs() ** 3).sum() + (
            (mask[..., 1:] - mask[..., :-1]).abs() ** 3
        ).sum()
        scores = score_of(net(seen), TARGETS, "prob")
        optimiser.zero_grad()
        (sign * scores.sum() + 1e-3 * hidden.sum() + 0.01 * rough).backward(inputs=[mask])
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return (1 - mask if sign > 0 else mask).detach()


def fill(images: Tensor, kind: str, number: int) -> Tensor:
    purpose = f"meaningful_perturbation/infill/{number}"
    return infill_of(images, kind, blur=0.15, ids=IDS, seed=0, purpose=purpose)


def draw(images: Tensor, step: int) -> list[list[int]]:
    u = uniform(torch.empty(3, 2), IDS, 0, f"meaningful_perturbation/jitter/{step}")
    return ((u + 1) / 2 * 3).int().tolist()  # 0.2 of 12 pixels: up to 2


def at_pixels(mask: Tensor, images: Tensor) -> Tensor:
    full = F.interpolate(mask, images.shape[-2:], mode="bilinear", align_corners=False)
    return gaussian_blur(full, 0.1 * 12)


def start(net: nn.Module, images: Tensor, cells: int, infill: str, sign: int) -> Tensor:
    """Disc by disc, until one does enough."""
    place = torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2
    distance = (place[:, None] ** 2 + place**2).sqrt()
    radii = (distance.max() + 1) * torch.arange(DISCS) / (DISCS - 1)
    discs = [(distance < r).double() for r in radii]
    discs = [1 - disc if sign > 0 else disc for disc in discs]
    chosen = []
    for image, target, behind in zip(images, TARGETS, fill(images, infill, 0), strict=True):
        scores = []
        for disc in discs:
            full = at_pixels(disc[None, None], images)[0]
            seen = full * image + (1 - full) * behind
            scores.append(score_of(net(seen[None]), target[None], "prob").item())
        shares = [(score - scores[0]) / (scores[-1] - scores[0]) for score in scores]
        chosen.append(next(d for d, share in zip(discs, shares, strict=True) if share >= 0.99))
    return torch.stack(chosen).unsqueeze(1)


@pytest.mark.parametrize("infill", ["blur", "noise"])
@pytest.mark.parametrize(("game", "sign"), [("deletion", 1), ("preservation", -1)])
def test_every_step_equals_one_graph_and_torchs_adam(infill: str, game: str, sign: int) -> None:
    net, images = seeded(ResNetLike), pictures()
    mine = build(
        "meaningful_perturbation",
        game=game, infill=infill, steps=6, cells=5, l1=1e-3, smooth=0.1, jitter=0.2,
    ).explain(net, images, TARGETS, ids=IDS)  # fmt: skip
    oracle = by_other_means(net, images, 6, 5, infill, sign)
    torch.testing.assert_close(mine, oracle, **EXACT)


def test_the_start_is_not_always_the_same_disc() -> None:
    """Otherwise the trajectories above would not test the choice."""
    net, images = seeded(Softplus), pictures()
    sizes = {float(m.sum()) for m in start(net, images, 5, "blur", 1)}
    assert len(sizes) > 1 or sizes.isdisjoint({0.0, 25.0})


def test_shifts_are_crops_of_a_mirrored_image() -> None:
    images = pictures()
    offsets = torch.tensor([[0, 0], [2, 1], [0, 3]])
    padded = F.pad(images, (0, 3, 0, 3), mode="reflect")
    for mine, image, (down, right) in zip(shifted(images, offsets), padded, offsets, strict=True):
        assert torch.equal(mine, image[:, down : down + 12, right : right + 12])


def test_variation_of_a_step_and_of_nothing() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    assert variation(mask, 3.0) == 0
    mask[..., 2:] = 0.5
    torch.testing.assert_close(variation(mask, 3.0), torch.tensor(4 * 0.5**3).double())
