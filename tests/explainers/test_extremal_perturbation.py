"""Extremal perturbation: its parts by hand, whole runs by other means, best regions by force."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.blur import gaussian_blur
from robustlab.core.score import score_of
from robustlab.explainers import build
from robustlab.explainers.perturbation.extremal import area_loss, between, smooth_maximum
from tests.nets import ResNetLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.7])
def test_smooth_maximum_cell_by_cell(sigma: float) -> None:
    cells, reach = random(1, 1, 5, 7), math.ceil(2 * sigma)
    expected = torch.zeros_like(cells)
    for i, j in itertools.product(range(5), range(7)):
        above = below = 0.0
        for y, x in itertools.product(range(-reach, reach + 1), repeat=2):
            inside = cells[0, 0, min(max(i + y, 0), 4), min(max(j + x, 0), 6)].item()
            kernel = math.exp(-2 * max(0.0, math.hypot(y, x) / sigma - 0.5) ** 2)
            above += inside * kernel * math.exp(20 * inside * kernel)
            below += math.exp(20 * inside * kernel)
        expected[0, 0, i, j] = above / below
    torch.testing.assert_close(smooth_maximum(cells, sigma), expected, **EXACT)


def test_smooth_maximum_of_a_flat_mask_is_flat() -> None:
    flat = smooth_maximum(torch.ones(1, 1, 6, 6, dtype=torch.float64), 1.5)
    torch.testing.assert_close(flat, flat.mean().expand_as(flat), **EXACT)


def test_area_loss_is_the_distance_of_sorted_values_from_the_template() -> None:
    values, areas = random(3, 40), torch.tensor([0.1, 0.25, 0.8], dtype=torch.float64)
    mine, oracle = (values.clone().requires_grad_() for _ in range(2))
    template = torch.zeros(3, 40, dtype=torch.float64)
    for row, ones in enumerate((4, 10, 32)):
        template[row, 40 - ones :] = 1
    by_sorting = (oracle.sort(1).values - template).square().mean(1)
    torch.testing.assert_close(area_loss(mine, areas), by_sorting, **EXACT)
    area_loss(mine, areas).sum().backward()
    by_sorting.sum().backward()
    torch.testing.assert_close(mine.grad, oracle.grad, **EXACT)


def test_equal_masks_are_treated_equally() -> None:
    """A sort would send the first cells to 0 and keep the last ones."""
    values = torch.ones(1, 10, dtype=torch.float64, requires_grad=True)
    area_loss(values, torch.tensor([0.25], dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(values.grad, torch.full_like(values, 2 * (1 - 0.25) / 10), **EXACT)


def test_between_levels() -> None:
    levels, keep = random(2, 4, 3, 5, 5), random(2, 1, 5, 5, seed=1)
    keep[..., 0, :] = torch.tensor([0.0, 1 / 3, 0.5, 2 / 3, 1.0])
    expected = torch.empty(2, 3, 5, 5, dtype=torch.float64)
    for n, c, y, x in itertools.product(range(2), range(3), range(5), range(5)):
        depth = keep[n, 0, y, x].item() * 3
        low = min(int(depth), 2)
        share = depth - low
        expected[n, c, y, x] = (1 - share) * levels[n, low, c, y, x]
        expected[n, c, y, x] += share * levels[n, low + 1, c, y, x]
    torch.testing.assert_close(between(levels, keep), expected, **EXACT)


# --- the whole --------------------------------------------------------------------------------


def by_other_means(
    net: nn.Module, image: Tensor, target: Tensor, area: float, variant: str, steps: int
) -> Tensor:
    """One image and one area: one graph, a sort, and torch's optimiser."""
    cells = torch.ones(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([cells], lr=0.5, momentum=0.9, dampening=0.9)
    levels = [*(gaussian_blur(image, 0.15 * 12 * share) for share in (1, 2 / 3, 1 / 3)), image]
    template = torch.zeros(36, dtype=torch.float64)
    template[36 - round(36 * area) :] = 1

    def shown(keep: Tensor) -> Tensor:
        """Hats: each level counts by how near the mask is to it."""
        near = [(1 - (3 * keep - level).abs()).clamp(min=0) for level in range(4)]
        return sum(n * level for n, level in zip(near, levels, strict=True))

    for step in range(steps):
        mask = smooth_maximum(cells, 0.1 * 6)
        keep = F.interpolate(mask, (12, 12), mode="bilinear", align_corners=False)
        score = {
            "preserve": lambda: score_of(net(shown(keep)), target),  # noqa: B023
            "delete": lambda: -score_of(net(shown(1 - keep)), target),  # noqa: B023
            "dual": lambda: (
                score_of(net(shown(keep)), target)  # noqa: B023
                - score_of(net(shown(1 - keep)), target)  # noqa: B023
            ),
        }[variant]()
        weight = 0.5 * 16 ** (step / steps)
        values = mask.flatten().sort().values
        near = (values / 1e-4).round()
        aim = torch.stack([template[near == value].mean() for value in near])  # ties share
        optimiser.zero_grad()
        (weight * (values - aim).square().mean() - score.sum()).backward(inputs=[cells])
        optimiser.step()
        with torch.no_grad():
            cells.clamp_(0, 1)
    return smooth_maximum(cells, 0.1 * 6).detach()


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_every_step_equals_one_graph_and_torchs_sgd(variant: str) -> None:
    net, images, areas = seeded(ResNetLike), pictures(), (1 / 9, 0.25, 0.5)
    mine = build(
        "extremal_perturbation",
        variant=variant, areas=areas, steps=5, rate=0.5, weight=0.5, cells=6, sigma=0.1, levels=4,
    ).explain(net, images, TARGETS)  # fmt: skip
    for i in range(3):
        one = slice(i, i + 1)
        oracle = [
            by_other_means(net, images[one], TARGETS[one], area, variant, 5) for area in areas
        ]
        torch.testing.assert_close(mine[one], torch.stack(oracle).mean(0), **EXACT)


def test_flips_come_every_other_step_and_are_flips_of_what_the_model_sees() -> None:
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = seeded(ResNetLike)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return self.net(x)

    options = {"steps": 2, "cells": 6, "weight": 0.0, "rate": 1e-9}
    for flip in (True, False):
        explainer = build("extremal_perturbation", flip=flip, **options)
        explainer.explain(Watching(), pictures(), TARGETS)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(seen[0], seen[2].flip(3), **close)
    torch.testing.assert_close(seen[1], seen[3], **close)
    assert (seen[0] - seen[2]).abs().max() > 0.1


PLAIN = {"sigma": 0.1, "infill": 0.0, "steps": 80, "rate": 0.04, "weight": 3.0}


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("area", [3 / 16, 0.5])
def test_the_region_is_the_best_of_all_regions_of_its_area(variant: str, area: float) -> None:
    """16 cells and an additive score: every region of that many cells is tried."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()
    images, count = pictures(3, 4, 1), round(16 * area)
    regions = torch.zeros(math.comb(16, count), 16, dtype=torch.float64)
    for row, chosen in enumerate(itertools.combinations(range(16), count)):
        regions[row, list(chosen)] = 1
    mine = build("extremal_perturbation", variant=variant, areas=[area], **PLAIN).explain(
        net, images, TARGETS
    )
    for raw, image, target in zip(mine, images, TARGETS, strict=True):
        with torch.no_grad():
            shown = net(regions * image.flatten())[:, target]
            hidden = net((1 - regions) * image.flatten())[:, target]
        value = {"preserve": shown, "delete": -hidden, "dual": shown - hidden}[variant]
        best = regions[value.argmax()].view(1, 4, 4)
        assert torch.equal((raw > 0.5).double(), best)


def test_areas_are_met_and_the_map_averages_them() -> None:
    net, images = seeded(ResNetLike), pictures(3, 16)

    def masks(*areas: float) -> Tensor:
        explainer = build("extremal_perturbation", areas=areas, steps=40, rate=0.04)
        return explainer.explain(net, images, TARGETS)

    small, large = masks(0.1), masks(0.4)
    for raw, area in ((small, 0.1), (large, 0.4)):
        met = raw.mean((1, 2, 3))
        torch.testing.assert_close(met, torch.full_like(met, area), rtol=0, atol=0.05)
        assert ((raw < 0.2) | (raw > 0.8)).double().mean() > 0.7, "nearly inside or outside"
    torch.testing.assert_close(masks(0.1, 0.4), (small + large) / 2, **EXACT)
