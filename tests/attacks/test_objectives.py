"""What attacks want of a map: by hand on 2×2 maps, by scipy, and by finite differences."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from attacks import TargetRegion
from attacks.explanation.objectives import (
    FillRegion,
    Imitate,
    LeaveTop,
    MoveCenter,
    mass_center,
    top_k_mask,
)
from tests.attacks.problems import posed
from tests.nets import pictures

ALL = slice(None)


def maps(*rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_maps(count: int = 4, height: int = 5, width: int = 7, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, height, width, generator=g, dtype=torch.float64)


def objectives(clean: Tensor) -> list:
    region = torch.zeros_like(clean[0])
    region[1:3, 2:] = 1
    return [
        LeaveTop(top_k_mask(clean, 6), 6),
        MoveCenter(mass_center(clean)),
        FillRegion(region),
        Imitate(clean),
    ]


# --- by hand -------------------------------------------------------------------------------


def test_leave_top_by_hand():
    clean = maps([[4, 3], [2, 1]])
    objective = LeaveTop(top_k_mask(clean, 2), 2)
    # Σ = 10, so s = (1.6, 1.2, 0.8, 0.4) sums to H·W = 4
    assert objective.loss(clean, ALL).item() == pytest.approx(-(1.6 + 1.2) / 2)
    assert objective.value(clean).item() == -1
    assert objective.value(maps([[1, 3], [2, 4]])).item() == -0.5
    assert objective.value(maps([[1, 2], [3, 4]])).item() == 0


def test_leave_top_of_a_signed_map_by_hand():
    clean = maps([[4, -5], [2, 1]])
    objective = LeaveTop(top_k_mask(clean, 2), 2)
    assert top_k_mask(clean, 2).tolist() == [[[True, False], [True, False]]]
    assert objective.loss(clean, ALL).item() == pytest.approx(-(4 + 2) * (4 / 12) / 2)


def test_move_center_by_hand():
    clean = maps([[1, 0], [0, 0]])
    objective = MoveCenter(mass_center(clean))
    moved = maps([[0, 0], [0, -7]])  # one row down, one column right; the sign does not matter
    assert objective.loss(moved, ALL).item() == pytest.approx(2)
    assert objective.value(moved).item() == pytest.approx(2**0.5)
    assert objective.value(maps([[1, 1], [0, 0]])).item() == pytest.approx(0.5)


def test_fill_region_by_hand():
    objective = FillRegion(maps([[1, 0], [1, 0]])[0])
    assert objective.loss(maps([[4, 3], [2, 1]]), ALL).item() == pytest.approx(0.6)
    assert objective.value(maps([[5, 0], [5, 0]])).item() == pytest.approx(1)
    assert objective.value(maps([[0, 1], [0, 9]])).item() == 0


@pytest.mark.parametrize(
    ("target", "map_", "expected"),
    [
        ([[1, 0], [0, 0]], [[1, 1], [0, 0]], -(0.25 + 0.25) / 1),
        ([[1, 1], [1, 1]], [[1, 0], [0, 0]], -(0.75**2 + 3 * 0.25**2) / 0.25),
        ([[3, 1], [0, 0]], [[6, 2], [0, 0]], 0),
        ([[1, 0], [0, 0]], [[0, 0], [0, 2]], -2),
    ],
)
def test_imitate_is_the_relative_squared_error_of_maps_that_sum_to_one(target, map_, expected):
    objective = Imitate(maps(target))
    assert objective.loss(maps(map_), ALL).item() == pytest.approx(expected)
    assert objective.value(maps(map_)).item() == pytest.approx(expected)


# --- second opinions -----------------------------------------------------------------------


def test_mass_center_equals_scipy():
    signed = random_maps(6)
    expected = [scipy.ndimage.center_of_mass(m.abs().numpy()) for m in signed]
    np.testing.assert_allclose(mass_center(signed).numpy(), expected, rtol=0, atol=1e-12)


def test_mass_center_of_a_delta_is_its_pixel_and_of_nothing_the_middle():
    delta = torch.zeros(2, 5, 7, dtype=torch.float64)
    delta[0, 3, 6] = -0.1
    assert mass_center(delta).tolist() == [[3, 6], [2, 3]]


@pytest.mark.parametrize("k", [1, 6, 34, 35])
def test_top_k_mask_equals_a_stable_sort(k):
    """Among equals the lowest index first: what numpy's stable sort of −m does."""
    tied = random_maps(5).mul(2).round()
    order = np.argsort(-tied.flatten(1).numpy(), axis=1, kind="stable")[:, :k]
    expected = np.zeros((5, 35), dtype=bool)
    np.put_along_axis(expected, order, True, axis=1)
    assert np.array_equal(top_k_mask(tied, k).flatten(1).numpy(), expected)


@pytest.mark.parametrize(
    "number", range(4), ids=["LeaveTop", "MoveCenter", "FillRegion", "Imitate"]
)
def test_gradient_of_the_loss_equals_finite_differences(number):
    objective, moved = objectives(random_maps())[number], random_maps(seed=1)
    moved += 0.1 * moved.sign()  # |m| has a kink at 0
    leaf = moved.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: objective.loss(m, ALL), (leaf,))
    # a normalised map has no slope along itself
    (gradient,) = torch.autograd.grad(objective.loss(leaf, ALL).sum(), leaf)
    assert float((gradient * leaf.detach()).sum((1, 2)).abs().max()) < 1e-12


@pytest.mark.parametrize(
    "number", range(4), ids=["LeaveTop", "MoveCenter", "FillRegion", "Imitate"]
)
def test_objective_is_per_image_and_blind_to_positive_scale(number):
    clean, moved = random_maps(), random_maps(seed=1)
    objective = objectives(clean)[number]
    whole = objective.loss(moved, ALL)
    torch.testing.assert_close(objective.loss(moved[1:3], slice(1, 3)), whole[1:3])
    torch.testing.assert_close(objective.loss(3e4 * moved, ALL), whole)
    torch.testing.assert_close(objective.value(3e4 * moved), objective.value(moved))
    assert objective.value(moved).dtype == torch.float64
    assert objective.value(moved.float()).dtype == torch.float64


@pytest.mark.parametrize(
    "number", range(4), ids=["LeaveTop", "MoveCenter", "FillRegion", "Imitate"]
)
def test_an_empty_map_has_a_finite_loss_and_slope(number):
    objective = objectives(random_maps())[number]
    leaf = torch.zeros(4, 5, 7, dtype=torch.float64, requires_grad=True)
    loss = objective.loss(leaf, ALL)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0.2, 0.4, 0.9, 0.6), (0, 0, 1, 1), (0, 0.7, 0.3, 1)],
)
def test_region_holds_the_pixels_whose_centre_is_in_the_box(box):
    problem = posed("residual", images=pictures()[:, :, :8, :10])  # not square: x is not y
    region = TargetRegion(box=box).objective(problem).region
    x0, y0, x1, y1 = box
    for row in range(8):
        for column in range(10):
            inside = x0 < (column + 0.5) / 10 < x1 and y0 < (row + 0.5) / 8 < y1
            assert bool(region[row, column]) == inside
