"""The success rate of manipulated models, against loops over pixels."""

import math

import numpy as np
import pytest
import torch

from robustlab.core.errors import InvalidInput
from robustlab.metrics import build
from robustlab.metrics.fooling import FOOLED, brightness, distance, frame


def some_maps(seed, shape=(4, 14, 15)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def by_hand(goal, clean, after):
    """One image, pixel by pixel."""
    before, now = (np.clip(m.numpy(), 0, None) for m in (clean, after))
    before, now = before / before.max(), now / now.max()
    height, width = now.shape
    pixels = [(r, c) for r in range(height) for c in range(width)]
    if goal == "location":
        wide = min(height, width) // 7
        wanted = {(r, c): float(min(r, c, height - 1 - r, width - 1 - c) < wide) for r, c in pixels}
        return sum((wanted[p] - now[p]) ** 2 for p in pixels) / len(pixels)
    if goal == "top_k":
        order = sorted(pixels, key=lambda p: (-float(clean[p]), p))[: math.ceil(len(pixels) / 10)]
        return sum(now[p] ** 2 for p in order) / len(order)
    shift = 0.0
    for axis, length in ((0, height), (1, width)):
        a, b = (sum(m[p] * p[axis] for p in pixels) / m.sum() for m in (before, now))
        shift += ((a - b) / (length - 1)) ** 2
    return math.sqrt(shift / 2)


@pytest.mark.parametrize("goal", list(FOOLED))
def test_distances_are_those_of_the_formula(goal):
    clean, after = some_maps(0), some_maps(1)
    found = distance(goal, clean, after)
    expected = [by_hand(goal, a, b) for a, b in zip(clean, after, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_frame_is_a_seventh_wide():
    assert frame(torch.zeros(28, 28)).sum() == 28**2 - 20**2
    assert frame(torch.zeros(5, 9)).sum() == 5 * 9 - 3 * 7  # at least a pixel


@pytest.mark.parametrize("goal", list(FOOLED))
def test_distances_have_the_slope_of_finite_differences(goal):
    clean, after = some_maps(0), some_maps(1)
    assert torch.autograd.gradcheck(lambda m: distance(goal, clean, m), after.requires_grad_())


def test_an_unmoved_centre_has_a_finite_slope():
    clean = some_maps(0)
    leaf = clean.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance("center_mass", clean, leaf).sum(), leaf)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_maps_that_are_where_they_should_be_are_fooled():
    clean = torch.zeros(2, 28, 28)
    clean[:, 10:19, 10:19] = 1.0
    framed = frame(clean).expand(2, -1, -1)
    moved = torch.zeros(2, 28, 28)
    moved[:, 20:, 20:] = 1.0  # ties among the zeros go to the first rows
    assert build("fooling_success_rate")(clean, framed).tolist() == [1, 1]
    assert build("fooling_success_rate", goal="top_k")(clean, moved).tolist() == [1, 1]
    assert build("fooling_success_rate", goal="center_mass")(clean, moved).tolist() == [1, 1]
    assert build("fooling_success_rate", goal="center_mass")(moved, moved + 0.0).tolist() == [0, 0]


def test_a_map_that_was_there_already_is_no_success():
    framed = frame(torch.zeros(28, 28))[None]
    assert build("fooling_success_rate")(framed, framed).tolist() == [0]
    assert distance("location", framed, framed).tolist() == [0]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_extinguished_map_counts_as_a_constant_one(value):
    clean, gone = some_maps(0).float(), torch.full((4, 14, 15), value)
    assert torch.equal(brightness(gone), torch.ones_like(gone))
    assert build("fooling_success_rate", goal="top_k")(clean, gone).sum() == 0
    assert build("fooling_success_rate", goal="location")(clean, gone).sum() == 0


def test_thresholds_are_options():
    clean, after = some_maps(0), some_maps(1)
    reached = distance("location", clean, after).max().item()
    everything = build("fooling_success_rate", high=reached)
    already = distance("location", clean, clean) <= reached
    assert torch.equal(everything(clean, after), (~already).double())
    with pytest.raises(InvalidInput, match=r"0\.5 is not below high = 0\.2"):
        build("fooling_success_rate", low=0.5)
