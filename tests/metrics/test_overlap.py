"""Overlap of areas, and neighbourhoods: against sets, scipy's dilation and scikit-image."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import dilation
from sklearn.metrics import jaccard_score

from robustlab.metrics import build

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
H, W = 13, 11
drawn = hnp.arrays(np.int64, (2, 8, 9), elements=st.integers(-5, 5)).map(
    lambda m: torch.from_numpy(m).double()
)


def make(seed, tied=False):
    a, b = np.random.default_rng(seed).normal(size=(2, 6, H, W))
    b = a + b
    return (np.round(a), np.round(b)) if tied else (a, b)


def top(m, k):
    mask = np.zeros(m.size, bool)
    mask[np.argsort(-m.ravel(), kind="stable")[:k]] = True
    return mask.reshape(m.shape)


def assert_equals_oracle(metric, oracle, a, b):
    got = metric(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    expected = [oracle(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)
    return np.array(expected)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("share", "k"), [(0.1, 14), (0.25, 36), (1e-9, 1), (1.0, H * W)])
def test_iou_of_the_highest_share(share, k, tied):
    def oracle(x, y):
        return jaccard_score(top(x, k).ravel(), top(y, k).ravel())

    assert_equals_oracle(build("iou", share=share), oracle, *make(1, tied))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_iou_of_each_maps_own_maximum(threshold):
    def oracle(x, y):
        x, y = x >= threshold * x.max(), y >= threshold * y.max()
        return (x & y).sum() / (x | y).sum()

    def of_the_joint_maximum(x, y):
        cut = threshold * max(x.max(), y.max())
        return ((x >= cut) & (y >= cut)).sum() / ((x >= cut) | (y >= cut)).sum()

    a, b = make(2)
    right = assert_equals_oracle(build("iou", threshold=threshold), oracle, a, 7 * b)
    broken = [of_the_joint_maximum(x, 7 * y) for x, y in zip(a, b, strict=True)]
    assert np.abs(right - broken).max() > 0.05


def test_iou_of_maps_without_a_positive_value():
    iou = build("iou", threshold=0.5)
    zero, one = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
    for one_way, other, value in ((zero, zero, 1), (-one, zero, 1), (-one, one, 0), (one, zero, 0)):
        assert iou(one_way, other).item() == value
    assert iou(one, 3 * one).item() == 1


@quick
@given(a=drawn, b=drawn, share=st.floats(0.01, 1))
def test_iou_is_top_k_intersection_on_another_scale(a, b, share):
    k = max(1, math.floor(share * 72 + 0.5))
    common = build("top_k_intersection", k=k)(a, b) * k
    value = build("iou", share=share)(a, b)
    torch.testing.assert_close(value, common / (2 * k - common), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("share", "pixels"), [(0.25, 16), (0.8, 10), (1.0, 7), (0.1, 144)])
def test_iou_chance_by_counting_whole_numbers(share, pixels):
    k = max(1, math.floor(share * pixels + 0.5))
    exact = sum(
        Fraction(math.comb(k, i) * math.comb(pixels - k, k - i), math.comb(pixels, k))
        * Fraction(i, 2 * k - i)
        for i in range(max(0, 2 * k - pixels), k + 1)
    )
    assert build("iou", share=share).chance(pixels) == pytest.approx(float(exact), abs=1e-10)
    assert build("iou", share=share, threshold=0.5).chance(pixels) is None


def test_iou_chance_floor():
    a, b = torch.rand(2, 2000, 12, 12, generator=torch.Generator().manual_seed(5))
    value = build("iou")(a, b)
    error = value.std().item() / math.sqrt(2000)
    assert abs(value.mean().item() - build("iou").chance(144)) < 3.5 * error
    assert 0.05 < build("iou").chance(224 * 224) < 0.06


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("k", "window"), [(1, 1), (15, 0), (15, 1), (15, 2), (60, 1), (3, 40)])
def test_lens_is_a_dilation_and_an_intersection(k, window, tied):
    square = np.ones((2 * window + 1,) * 2, bool)

    def near(m):
        return ndimage.binary_dilation(top(m, k), square)

    def recall(x, y):
        return (near(x) & top(y, k)).sum() / k

    def precision(x, y):
        return (top(x, k) & near(y)).sum() / k

    a, b = make(3, tied)
    assert_equals_oracle(build("lens_recall", k=k, window=window), recall, a, b)
    assert_equals_oracle(build("lens_precision", k=k, window=window), precision, a, b)
    wide = dilation(top(a[0], k).astype(np.uint8), square.astype(np.uint8)).astype(bool)
    assert (wide == near(a[0])).all()


def flat_recall(x, y, k):
    """As if the map were one long line: the window runs over the border into the next row."""
    offsets = [row * x.shape[1] + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    places = np.flatnonzero(top(x, k))
    near = {p + d for p in places for d in offsets}
    return len(near & set(np.flatnonzero(top(y, k)))) / k


def test_lens_does_not_look_round_the_border():
    clean, perturbed = torch.zeros(2, 1, 4, 5)
    clean[0, 1, 4] = perturbed[0, 2, 0] = 1.0  # neighbours only in reading order
    assert build("lens_recall", k=1)(clean, perturbed).item() == 0
    assert flat_recall(clean[0].numpy(), perturbed[0].numpy(), 1) == 1
    a, b = make(4)
    right = build("lens_recall", k=30)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert (right != [flat_recall(x, y, 30) for x, y in zip(a, b, strict=True)]).any()


def test_lens_keeps_the_first_pixel():
    corner = torch.zeros(1, 4, 5)
    corner[0, 0, 0] = 1.0
    assert build("lens_recall", k=1)(corner, corner.roll((1, 1), (1, 2))).item() == 1
    assert build("lens_precision", k=1)(corner, corner.roll((0, 2), (1, 2))).item() == 0


@quick
@given(a=drawn, b=drawn, k=st.integers(1, 72), window=st.integers(0, 4))
def test_lens_properties(a, b, k, window):
    recall = build("lens_recall", k=k, window=window)
    value = recall(a, b)
    assert torch.equal(value, build("lens_precision", k=k, window=window)(b, a))
    assert (value >= build("top_k_intersection", k=k)(a, b)).all()
    assert (build("lens_recall", k=k, window=window + 1)(a, b) >= value).all()
    if window == 0:
        assert torch.equal(value, build("top_k_intersection", k=k)(a, b))


def test_lens_chance_is_the_formula_of_its_docstring():
    k, height, width, count = 9, 12, 10, 3000
    g = torch.Generator().manual_seed(6)
    a, b = torch.rand(2, count, height, width, generator=g)
    value = build("lens_recall", k=k)(a, b)
    window = ndimage.convolve(np.ones((height, width)), np.ones((3, 3)), mode="constant")
    n = height * width
    missed = [math.comb(n - int(m), k) / math.comb(n, k) for m in window.ravel()]
    error = value.std().item() / math.sqrt(count)
    assert abs(value.mean().item() - (1 - np.mean(missed))) < 3.5 * error
