"""Earth mover's distance along the axes: against scipy, a linear program, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from robustlab.metrics import build

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
GROUNDS = ("euclidean", "city_block")
drawn = hnp.arrays(np.int64, (1, 5, 6), elements=st.integers(-9, 9)).map(
    lambda m: torch.from_numpy(m).double()
)


def along_the_axes(x, y):
    """W_r and W_c by scipy."""
    found = []
    for axis in (1, 0):
        u, v = (np.abs(m).sum(axis) for m in (x, y))
        place = np.arange(len(u))
        found.append(wasserstein_distance(place, place, u, v))
    return found


def exact(x, y, ground):
    """The two-dimensional distance, as a linear program over all pairs of pixels."""
    p, q = (np.abs(m).ravel() / np.abs(m).sum() for m in (x, y))
    at = np.array([(i, j) for i in range(x.shape[0]) for j in range(x.shape[1])])
    norm = 2 if ground == "euclidean" else 1
    cost = np.linalg.norm(at[:, None] - at[None], ord=norm, axis=2)
    ones, eye = np.ones((1, p.size)), np.eye(p.size)
    leaves, arrives = np.kron(eye, ones), np.kron(ones, eye)
    plan = linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=np.concatenate([p, q]))
    assert plan.success
    return plan.fun


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("shape", [(19, 17), (1, 9), (9, 1), (40, 12)])
def test_each_axis_is_scipys_distance(shape, ground):
    r = np.random.default_rng(1)
    a, b = r.normal(size=(2, 5, *shape)) ** 3
    got = build("emd", ground=ground)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    whole = math.hypot if ground == "euclidean" else lambda u, v: u + v
    expected = [whole(*along_the_axes(x, y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ground", GROUNDS)
def test_never_more_than_the_exact_distance_and_often_close(ground):
    r = np.random.default_rng(2)
    a, b = r.exponential(size=(2, 6, 4, 5)) ** 2
    got = build("emd", ground=ground)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    true = np.array([exact(x, y, ground) for x, y in zip(a, b, strict=True)])
    assert (got <= true + 1e-9).all()
    assert (got > 0.4 * true).all()
    # without dividing by each map's sum it is no distance of distributions, and no bound
    raw = [np.abs((x.sum(1) - y.sum(1)).cumsum()).sum() for x, y in zip(a, b, strict=True)]
    assert (np.array(raw) > true).any()


def test_exact_where_the_map_is_moved_as_a_whole():
    small = np.random.default_rng(3).exponential(size=(3, 3))
    a, b = np.zeros((2, 7, 8))
    a[0:3, 0:3], b[2:5, 4:7] = small, small
    a, b = torch.from_numpy(a)[None], torch.from_numpy(b)[None]
    for ground, far in (("euclidean", math.hypot(2, 4)), ("city_block", 6)):
        assert build("emd", ground=ground)(a, b).item() == pytest.approx(far, abs=1e-12)
        assert exact(a[0].numpy(), b[0].numpy(), ground) == pytest.approx(far, abs=1e-9)


def test_between_two_pixels_it_is_their_distance():
    a, b = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    a[0, 1, 2], b[0, 4, 6] = -3.0, 0.5
    assert build("emd")(a, b).item() == 5.0
    assert build("emd", ground="city_block")(a, b).item() == 7.0


def test_sees_mass_that_spreads_about_its_centre_but_no_diagonals():
    a, b = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)
    a[0, 2, 2], b[0, 2, [0, 4]] = 1.0, 1.0
    assert build("center_shift")(a, b).item() == 0
    assert build("emd")(a, b).item() == 2
    assert build("emd")(torch.eye(5)[None], torch.eye(5).flip(1)[None]).item() == 0


@quick
@given(a=drawn, b=drawn, c=drawn)
def test_a_distance_of_masses(a, b, c):
    for ground in GROUNDS:
        emd = build("emd", ground=ground)
        assert emd(a, c) <= emd(a, b) + emd(b, c) + 1e-12
        assert torch.equal(emd(-a, b), emd(a, b))
        turned = emd(a.transpose(1, 2), b.transpose(1, 2))
        torch.testing.assert_close(turned, emd(a, b), rtol=0, atol=1e-12)
        torch.testing.assert_close(emd(a.flip(1), b.flip(1)), emd(a, b), rtol=0, atol=1e-12)
    assert build("center_shift")(a, b) <= build("emd")(a, b) + 1e-12
    assert build("emd")(a, b) <= build("emd", ground="city_block")(a, b) + 1e-12


def test_an_empty_map_is_a_constant_one():
    corner = torch.zeros(1, 5, 9)
    corner[0, 0, 0] = 1.0
    value = build("emd")(torch.zeros(1, 5, 9), corner)
    assert torch.equal(value, build("emd")(torch.ones(1, 5, 9), corner))
    assert value.item() == pytest.approx(math.hypot(2, 4))  # the mean row and column
