"""Metrics of one map: against scipy's entropy, quantus' formula, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import entropy

from robustlab.core.errors import InvalidInput
from robustlab.metrics import METRICS, build
from robustlab.metrics.concentration import Complexity, Sparseness
from tests.metrics.battery import DESCRIBING, KINDS, maps

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
drawn = hnp.arrays(np.int64, (3, 8, 9), elements=st.integers(-50, 50)).map(
    lambda m: torch.from_numpy(m).double()
)
MAPS = np.random.default_rng(1).normal(size=(6, 12, 11)) ** 3


def quantus_gini(m, shift=1e-7):
    a = np.sort(np.abs(m).ravel() + shift)
    weight = 2 * np.arange(1, a.shape[0] + 1) - a.shape[0] - 1
    return (weight * a).sum() / (a.shape[0] * a.sum())


@pytest.mark.parametrize("name", DESCRIBING)
def test_class_describes_itself_and_any_map(name):
    cls = METRICS[name]
    assert cls.name == name and build(name) == cls() and hash(build(name)) == hash(cls())
    assert all(word in cls.__doc__ for word in ("[B,H,W]", "float64", "ies", "Source:"))
    assert "constant" in cls.__doc__
    low, high = cls.bounds
    for kind in KINDS:
        value = build(name).describe(maps(kind).requires_grad_())
        assert value.dtype == torch.float64 and value.shape == (3,)
        assert torch.isfinite(value).all() and not value.requires_grad
        assert ((low <= value) & (value <= high)).all()


def test_both_metrics_are_in_the_table():
    assert DESCRIBING == ["sparseness", "complexity"]


def test_formulas_of_the_peer():
    gini = Sparseness().describe(torch.from_numpy(MAPS)).numpy()
    np.testing.assert_allclose(gini, [quantus_gini(m, 0) for m in MAPS], rtol=0, atol=1e-12)
    np.testing.assert_allclose(gini, [quantus_gini(m) for m in MAPS], rtol=0, atol=1e-6)
    bits = Complexity().describe(torch.from_numpy(MAPS)).numpy()
    expected = [entropy(pk=np.abs(m).ravel() / np.abs(m).sum()) for m in MAPS]
    np.testing.assert_allclose(bits, expected, rtol=0, atol=1e-12)


def test_gini_is_half_the_mean_difference_over_the_mean():
    for m in MAPS:
        a = np.abs(m).ravel()
        gini = np.abs(a[:, None] - a[None]).mean() / (2 * a.mean())
        assert Sparseness().describe(torch.from_numpy(m)[None]).item() == pytest.approx(gini)


@pytest.mark.parametrize("value", [0.0, -3.0, 5e-324, 1.7e308])
def test_a_constant_map(value):
    m = torch.full((1, 4, 5), value, dtype=torch.float64)
    assert Sparseness().describe(m).item() == pytest.approx(0, abs=1e-15)
    assert Complexity().describe(m).item() == pytest.approx(math.log(20))


def test_m_pixels_of_n():
    m = torch.zeros(1, 4, 5)
    m[0, 1, :3] = torch.tensor([2.0, -2.0, 2.0])
    assert Sparseness().describe(m).item() == pytest.approx(1 - 3 / 20)
    assert Complexity().describe(m).item() == pytest.approx(math.log(3))
    assert Sparseness().describe(torch.ones(1, 1, 1)).item() == 0
    assert Complexity().describe(torch.ones(1, 1, 1)).item() == 0


@quick
@given(m=drawn, c=st.floats(0.01, 100), order=st.permutations(range(72)))
def test_blind_to_scale_sign_and_place(m, c, order):
    for metric in (Sparseness(), Complexity()):
        value = metric.describe(m)
        low, high = metric.bounds
        assert value.dtype == torch.float64 and value.shape == (3,)
        assert ((low <= value) & (value <= high)).all()
        moved = (-c * m).flatten(1)[:, list(order)].view_as(m)
        torch.testing.assert_close(metric.describe(moved), value, rtol=0, atol=1e-10)
        torch.testing.assert_close(metric.describe(m[1:2]), value[1:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", [Sparseness(), Complexity()], ids=["sparseness", "complexity"])
def test_what_is_refused(metric):
    for bad in (math.nan, math.inf):
        with pytest.raises(InvalidInput, match="NaN or infinite"):
            metric.describe(torch.full((1, 3, 3), bad))
    with pytest.raises(InvalidInput, match=r"\[B,H,W\]"):
        metric.describe(torch.ones(3, 3))
    assert metric.describe(torch.ones(0, 3, 3)).shape == (0,)
