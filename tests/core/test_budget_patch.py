"""Patch budgets: a square of free pixels, found and measured as brute force does it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput

FEW = settings(derandomize=True, deadline=None, max_examples=40)


@st.composite
def problems(draw):
    """(budget, candidate, origin): changes at a few places, in a block, or everywhere."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    shape = (2, draw(st.sampled_from([1, 3])), height, width)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    origin = torch.rand(shape, generator=generator, dtype=dtype)
    share = draw(st.sampled_from([0.05, 0.3, 1.0]))
    where = torch.rand((2, 1, height, width), generator=generator) < share
    if draw(st.booleans()):  # a block that a small square may cover
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        where &= (rows > height // 2) & (columns < width // 2)
    noise = 2 * torch.randn(shape, generator=generator, dtype=dtype)
    return Budget("patch", draw(st.floats(0.01, 1.0))), torch.where(where, noise, origin), origin


def covering_side(candidate: Tensor, origin: Tensor) -> int:
    """By trying every side and every place, also beyond the picture where it must be."""
    changed = [tuple(p) for p in (candidate != origin).any(0).nonzero().tolist()]
    height, width = origin.shape[-2:]
    for side in range(max(height, width) + 1):
        for top in range(height):
            for left in range(width):
                if all(0 <= r - top < side and 0 <= c - left < side for r, c in changed):
                    return side
    raise AssertionError("unreachable")


def by_brute_force(candidate: Tensor, origin: Tensor, budget: Budget) -> Tensor:
    """One image ``[C,H,W]``: the best window by trying all."""
    height, width = origin.shape[-2:]
    wanted = torch.where(candidate == origin, origin, candidate.clamp(0, 1))
    largest = max(s for s in range(99) if s * s <= budget.epsilon * height * width + 1e-6)
    if covering_side(wanted, origin) <= largest:
        return wanted
    side, best, chosen = min(largest, height, width), -1.0, origin
    for top in range(height - side + 1):
        for left in range(width - side + 1):
            window = (..., slice(top, top + side), slice(left, left + side))
            total = float((wanted - origin)[window].double().square().sum())
            if total > best * (1 + 1e-12):
                best, chosen = total, origin.clone()
                chosen[window] = wanted[window]
    return chosen


@FEW
@given(problems())
def test_radius_is_the_share_of_the_smallest_covering_square(problem):
    budget, candidate, origin = problem
    area = origin.shape[-2] * origin.shape[-1]
    expected = [covering_side(c, o) ** 2 / area for c, o in zip(candidate, origin, strict=True)]
    assert budget.radius(candidate, origin).tolist() == pytest.approx(expected, rel=1e-6)
    assert budget.radius(origin, origin).tolist() == [0.0, 0.0]


@FEW
@given(problems())
def test_projection_keeps_what_brute_force_keeps(problem):
    budget, candidate, origin = problem
    found = budget.project(candidate, origin)
    for i in range(2):
        assert torch.equal(found[i], by_brute_force(candidate[i], origin[i], budget))
    assert found.dtype == origin.dtype and found.min() >= 0 and found.max() <= 1
    assert (budget.radius(found, origin) <= budget.epsilon + 1e-6).all()
    assert torch.equal(budget.project(found, origin), found), "a second projection moves it"


def test_the_first_of_equal_windows_counts():
    origin = torch.zeros(1, 1, 6, 6)
    candidate = origin.clone()
    candidate[0, 0, 1, 4] = candidate[0, 0, 4, 1] = 1.0  # too far apart for a side of 3
    found = Budget("patch", 9 / 36).project(candidate, origin)
    assert found.nonzero().tolist() == [[0, 0, 1, 4]]


def test_a_share_that_is_a_whole_square_allows_that_square():
    for pixels in (12, 28, 32, 224, 299):
        images = torch.zeros(1, 1, pixels, pixels)
        for side in range(1, pixels + 1):
            assert Budget("patch", side**2 / pixels**2).side(images) == side


def test_other_pixels_stay_bit_for_bit_even_outside_the_box():
    """Clamping a clean pixel that the box does not hold would be the largest change of all."""
    origin = torch.rand(1, 3, 8, 8) * 9 + 2
    origin[..., 2:4, 5:7] = 0.5
    candidate = origin.clone()
    candidate[..., 2:4, 5:7] = 0.69
    for bits in (None, 8):
        found = Budget("patch", 4 / 64, bits=bits).project(candidate, origin)
        expected = 0.69 if bits is None else 176 / 255  # 0.69 is 175.95 levels
        assert found[..., 2:4, 5:7].unique().tolist() == pytest.approx([expected], abs=1e-6)
        found[..., 2:4, 5:7] = origin[..., 2:4, 5:7]
        assert torch.equal(found, origin)


def test_a_patch_smaller_than_a_pixel_leaves_nothing():
    origin = torch.rand(2, 3, 5, 5)
    found = Budget("patch", 0.03).project(1 - origin, origin)
    assert torch.equal(found, origin) and found is not origin


def test_epsilon_zero_gives_the_origin_bit_for_bit():
    origin = torch.rand(2, 3, 4, 4)
    found = Budget("patch", 0).project(torch.full_like(origin, torch.nan), origin)
    assert torch.equal(found, origin) and found is not origin


def test_steepest_is_the_sign():
    gradient = torch.tensor([3.0, -1e-9, 0.0]).view(1, 1, 1, 3)
    assert Budget("patch", 0.1).steepest(gradient).flatten().tolist() == [1, -1, 0]


@pytest.mark.parametrize("epsilon", [1.01, math.inf, "3/2"])
def test_more_than_the_picture_is_refused(epsilon):
    with pytest.raises(InvalidInput, match="share of the area") as caught:
        Budget("patch", epsilon)
    assert caught.value.field == "epsilon"
