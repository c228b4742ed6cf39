"""Agreement on the strongest features: against lists and sets, and the first paper's examples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustlab.metrics import build

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
drawn = hnp.arrays(np.int64, (2, 8, 9), elements=st.integers(-5, 5)).map(
    lambda m: torch.from_numpy(m).double()
)


def strongest(m, k):
    """Features of largest |value|, strongest first, of equals the first."""
    return sorted(range(m.size), key=lambda i: (-abs(m.flat[i]), i))[:k]


def sign_agreement(x, y, k):
    shared = set(strongest(x, k)) & set(strongest(y, k))
    return sum(np.sign(x.flat[i]) == np.sign(y.flat[i]) for i in shared) / k


def rank_agreement(x, y, k):
    return sum(i == j for i, j in zip(strongest(x, k), strongest(y, k), strict=True)) / k


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40, 63])
def test_both_by_their_definition(k, tied):
    a, b = np.random.default_rng(1).normal(size=(2, 8, 7, 9))
    b = a + 0.05 * b
    b[::2] *= -1
    if tied:
        a, b = np.round(2 * a), np.round(2 * b)
    for name, oracle in (("sign_agreement", sign_agreement), ("rank_agreement", rank_agreement)):
        got = build(name, k=k)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        expected = [oracle(x, y, k) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)
        assert name == "sign_agreement" or k == 63 or got.max() > 0, "nothing is tested"


def test_two_explanations_of_two_features():
    # The strongest of one is the weakest of the other, and both signs differ.
    a, b = torch.tensor([[[0.2, 0.1]]]), torch.tensor([[[-0.1, -0.2]]])
    assert build("top_k_intersection", k=2)(a, b).item() == 1
    assert build("sign_agreement", k=2)(a, b).item() == 0
    assert build("rank_agreement", k=2)(a, b).item() == 0
    assert build("rank_agreement", k=2)(a, -a).item() == 1
    assert build("sign_agreement", k=2)(a, b.abs()).item() == 1


def test_the_strongest_are_told_by_absolute_value():
    a = torch.tensor([[[-9.0, 1.0, 2.0]]])
    b = torch.tensor([[[-9.0, 2.0, 1.0]]])
    assert build("sign_agreement", k=1)(a, b).item() == 1
    assert build("rank_agreement", k=1)(a, b).item() == 1
    assert build("top_k_intersection", k=1)(a, b).item() == 0  # by value: the positive ones


@quick
@given(a=drawn, b=drawn, k=st.integers(1, 72))
def test_what_holds_between_them(a, b, k):
    signs, top = build("sign_agreement", k=k), build("top_k_intersection", k=k)
    assert (signs(a, b) <= top(a.abs(), b.abs())).all()
    assert torch.equal(signs(a.abs() + 1, b.abs() + 1), top(a.abs() + 1, b.abs() + 1))
    assert torch.equal(signs(-a, -b), signs(a, b))
    ranks = build("rank_agreement", k=k)
    assert torch.equal(ranks(-a, b), ranks(a, b))
    assert (ranks(a, b) <= top(a.abs(), b.abs())).all()


def test_rank_agreement_chance_floor():
    a, b = torch.rand(2, 4000, 5, 5, generator=torch.Generator().manual_seed(2))
    value = build("rank_agreement", k=10)(a, b)
    error = value.std().item() / math.sqrt(4000)
    assert abs(value.mean().item() - build("rank_agreement", k=10).chance(25)) < 3.5 * error
    assert build("rank_agreement").chance(50176) == 1 / 50176
