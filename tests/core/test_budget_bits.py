"""Budgets of 8-bit pixels: the answers of a search over all 256 grey levels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput

FEW = settings(derandomize=True, deadline=None, max_examples=40)
DTYPES = [torch.float32, torch.float64]
EDGE = 4e-7  # LEVEL_TOLERANCE of a grey level, in pixel units


def levels(dtype: torch.dtype) -> Tensor:
    """What a reader of 8-bit files gives, by numpy."""
    kind = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    return torch.from_numpy(np.arange(256).astype(np.uint8).astype(kind) / kind(255))


@st.composite
def problems(draw, norm):
    """(budget, candidate, origin): clean pixels on the grid, or anywhere."""
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (2, 3, 4, 5)
    origin = torch.rand(shape, generator=generator, dtype=dtype)
    if draw(st.booleans()):
        origin = levels(dtype)[(255 * origin).round().long()]
    reach = draw(st.sampled_from([0.0, 0.003, 0.02, 1.0]))
    candidate = origin + reach * torch.randn(shape, generator=generator, dtype=dtype)
    radii = {"linf": [0.3 / 255, 1 / 255, 2 / 255, 0.02], "l2": [0.01, 5 / 255, 0.3, 5.0]}
    lower, upper = draw(st.sampled_from([(0.0, 1.0), (0.101, 0.902)]))
    origin, candidate = origin.clamp(lower, upper), candidate.clamp(lower - 0.5, upper + 0.5)
    return Budget(norm, draw(st.sampled_from(radii[norm])), lower, upper, 8), candidate, origin


@FEW
@given(problems("linf"))
def test_linf_takes_the_nearest_level_within_reach(problem):
    budget, candidate, origin = problem
    found, grid = budget.project(candidate, origin), levels(origin.dtype)
    allowed = (grid - origin.unsqueeze(-1)).abs() <= budget.epsilon + EDGE
    allowed &= (grid >= budget.lower - EDGE) & (grid <= budget.upper + EDGE)
    gap = torch.where(allowed, (grid - candidate.unsqueeze(-1)).abs(), torch.inf)
    some = allowed.any(-1)
    assert torch.equal(found[~some], origin[~some]), "no level within reach: it stays"
    assert torch.isin(found[some], grid).all(), "not the value that a file gives"
    ours = (found - candidate).abs()[some]
    torch.testing.assert_close(ours, gap.amin(-1)[some], rtol=0, atol=1e-7)
    assert (budget.radius(found, origin) <= budget.epsilon + EDGE).all()
    assert torch.equal(budget.project(found, origin), found), "a second projection moves it"


@FEW
@given(problems("l2"))
def test_l2_takes_the_last_level_on_the_way(problem):
    budget, candidate, origin = problem
    found, grid = budget.project(candidate, origin), levels(origin.dtype)
    whole = budget.free.project(candidate, origin)
    assert torch.isin(found, torch.cat([grid, origin.flatten()])).all()
    way = (grid - origin.unsqueeze(-1)).abs()
    ahead = (grid - origin.unsqueeze(-1)) * (whole - origin).unsqueeze(-1) > 0
    room = (whole - origin).abs().unsqueeze(-1) - way
    longest = torch.where(ahead & (room >= 0), way, 0).amax(-1)
    clear = ~(ahead & (room.abs() < EDGE)).any(-1)  # where rounding alone decides: see below
    torch.testing.assert_close((found - origin).abs()[clear], longest[clear], rtol=0, atol=2e-7)
    length = (found - origin).double().flatten(1).norm(dim=1)
    assert (length <= budget.epsilon * (1 + 1e-4) + 1e-6).all(), "longer than the judge allows"
    assert torch.equal(budget.project(found, origin), found), "a second projection moves it"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reach", range(1, 9))
def test_a_radius_of_whole_levels_reaches_them(reach, dtype):
    """Without a tolerance, about half of the 256 levels would fall one short in float32."""
    grid = levels(dtype)
    origin = grid.view(1, 1, 16, 16)
    for sign in (-1, 1):
        found = Budget("linf", reach / 255, bits=8).project(origin + sign * 1.0, origin)
        expected = grid[(torch.arange(256) + sign * reach).clamp(0, 255)]
        assert torch.equal(found.flatten(), expected)
    inside = torch.arange(reach, 256 - reach)  # no level beyond white: all move by ``reach``
    budget = Budget("l2", reach / 255 * math.sqrt(len(inside)), bits=8)
    moved = budget.project(grid[inside + reach].view(1, 1, 1, -1), grid[inside].view(1, 1, 1, -1))
    assert torch.equal(moved.flatten(), grid[inside + reach])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_less_than_a_level_leaves_pixels_of_a_file_where_they_are(norm):
    origin = levels(torch.float32).view(1, 1, 16, 16)
    found = Budget(norm, 0.9 / 255, bits=8).project(origin + 1, origin)
    assert torch.equal(found, origin)


def test_a_pixel_between_two_levels_out_of_reach_stays():
    origin = torch.full((1, 1, 1, 1), 0.5 / 255)
    for norm in ("linf", "l2"):
        assert torch.equal(Budget(norm, 0.4 / 255, bits=8).project(origin + 1, origin), origin)
        moved = Budget(norm, 0.6 / 255, bits=8).project(origin + 1, origin)
        assert float(moved) == float(levels(torch.float32)[1])


def test_a_patch_is_filled_with_levels_and_the_rest_stays():
    origin = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    candidate = origin.clone()
    candidate[..., 1:4, 2:5] = 1 - origin[..., 1:4, 2:5]
    found = Budget("patch", 9 / 64, bits=8).project(candidate, origin)
    nearest = (255 * candidate).round().long()
    assert torch.equal(found[..., 1:4, 2:5], levels(torch.float32)[nearest][..., 1:4, 2:5])
    found[..., 1:4, 2:5] = origin[..., 1:4, 2:5]
    assert torch.equal(found, origin)


@pytest.mark.parametrize("norm", ["linf", "l2", "patch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_epsilon_zero_gives_the_origin_bit_for_bit(norm, dtype):
    origin = torch.rand(2, 3, 4, 4, dtype=dtype)
    found = Budget(norm, 0, bits=8).project(torch.full_like(origin, torch.nan), origin)
    assert torch.equal(found, origin) and found is not origin


def test_free_is_the_same_ball_without_the_grid():
    assert Budget("l2", 0.3, 0.1, 0.9, 8).free == Budget("l2", 0.3, 0.1, 0.9)
    origin = torch.rand(1, 3, 4, 4)
    assert Budget("linf", 0.1).finished(origin, origin) is origin


@pytest.mark.parametrize("bits", [0, 1, 7, 16, 8.0, True, "8"])
def test_other_depths_are_refused(bits):
    with pytest.raises(InvalidInput, match="expected 8 or nothing") as caught:
        Budget("linf", 2 / 255, bits=bits)
    assert caught.value.field == "bits"
