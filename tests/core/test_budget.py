"""Projection and distance: feasible, idempotent, nearest, and honest about bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.core.budget import Budget, parse_number
from robustlab.core.errors import InvalidInput

FEW = settings(derandomize=True, deadline=None, max_examples=30)
DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def problems(draw, norms=("linf", "l2")):
    """(budget, candidate, origin): from a hair's breadth to far outside the ball and box."""
    norm, dtype = draw(st.sampled_from(norms)), draw(DTYPES)
    largest = 1.0 if norm == "linf" else 20.0
    epsilon = draw(st.one_of(st.just(0.0), st.floats(1e-4, largest)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (3, draw(st.sampled_from([1, 3])), 4, 5)
    origin = torch.rand(shape, generator=generator, dtype=dtype)
    origin[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5])  # pixels on the walls of the box
    reach = draw(st.sampled_from([0.0, 1e-6, 0.01, 1.0, 1e3]))
    candidate = origin + reach * torch.randn(shape, generator=generator, dtype=dtype)
    return Budget(norm, epsilon), candidate, origin


def slack(budget: Budget, like: Tensor) -> float:
    """A few roundings of a number of the size of a pixel, or of a whole image's length."""
    size = 1.0 if budget.norm == "linf" else math.sqrt(like[0].numel()) + budget.epsilon
    return 4 * size * torch.finfo(like.dtype).eps


@FEW
@given(problems())
def test_projection_is_feasible(problem):
    budget, candidate, origin = problem
    found = budget.project(candidate, origin)
    assert found.shape == origin.shape and found.dtype == origin.dtype
    assert (budget.radius(found, origin) <= budget.epsilon + slack(budget, origin)).all()
    assert found.min() >= 0 and found.max() <= 1, "the box holds exactly"


@FEW
@given(problems())
def test_projection_is_idempotent(problem):
    budget, candidate, origin = problem
    once = budget.project(candidate, origin)
    twice = budget.project(once, origin)
    if budget.norm == "linf":
        assert torch.equal(twice, once)
    else:
        torch.testing.assert_close(twice, once, rtol=0, atol=slack(budget, origin))


@FEW
@given(problems())
def test_a_feasible_candidate_stays_where_it_is(problem):
    budget, candidate, origin = problem
    inside = budget.project(candidate, origin)
    shrunk = origin + 0.9 * (inside - origin)
    atol = 0.0 if budget.norm == "linf" else slack(budget, origin)
    torch.testing.assert_close(budget.project(shrunk, origin), shrunk, rtol=0, atol=atol)


@FEW
@given(problems(norms=("linf",)), st.integers(0, 10**6))
def test_linf_projection_is_the_nearest_feasible_image(problem, seed):
    budget, candidate, origin = problem
    found = (budget.project(candidate, origin) - candidate).abs()
    low = (origin - budget.epsilon).clamp(min=0)
    high = (origin + budget.epsilon).clamp(max=1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        share = torch.rand(origin.shape, generator=generator, dtype=origin.dtype)
        share = share.round() if seed % 2 else share  # corners, or anywhere inside
        other = (low + share * (high - low) - candidate).abs()
        assert (found <= other + slack(budget, origin)).all(), "a nearer pixel is feasible"


@FEW
@given(problems(norms=("l2",)), st.integers(0, 10**6))
def test_l2_projection_is_nearest_where_the_box_does_not_bind(problem, seed):
    budget, candidate, origin = problem
    wide = Budget("l2", budget.epsilon, lower=-1e6, upper=1e6)
    found = wide.radius(wide.project(candidate, origin), candidate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        step = torch.randn(origin.shape, generator=generator, dtype=origin.dtype)
        other = wide.project(origin + step, origin)
        room = 1e-5 * (1 + wide.radius(candidate, origin))  # float32 distances of far images
        assert (found <= wide.radius(other, candidate) + room).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_epsilon_zero_gives_the_origin_bit_for_bit(norm, dtype):
    origin = torch.rand(2, 3, 4, 4, dtype=dtype)
    found = Budget(norm, 0).project(torch.full_like(origin, torch.nan), origin)
    assert torch.equal(found, origin)
    assert found is not origin, "an attack may write into its proposal"


def test_radius_is_measured_per_image_in_the_budgets_norm():
    origin = torch.zeros(2, 1, 1, 2)
    candidate = torch.tensor([[3.0, -4.0], [0.0, 0.5]]).view(2, 1, 1, 2)
    assert Budget("linf").radius(candidate, origin).tolist() == [4.0, 0.5]
    assert Budget("l2", 1).radius(candidate, origin).tolist() == [5.0, 0.5]


def test_l2_projection_by_hand():
    origin = torch.full((1, 1, 1, 2), 0.5)
    candidate = origin + torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    found = Budget("l2", 0.5).project(candidate, origin)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.8, 0.1]))
    clipped = Budget("l2", 2.0).project(candidate, origin)  # (1.7, -1.1) before the box
    torch.testing.assert_close(clipped.flatten(), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e25])
def test_steepest_is_a_unit_step_for_gradients_of_any_size(scale):
    gradient = scale * torch.tensor([[3.0, -4.0], [0.0, -1.0], [0.0, 0.0]]).view(3, 1, 1, 2)
    signs = Budget("linf").steepest(gradient)
    assert signs.flatten(1).tolist() == [[1, -1], [0, -1], [0, 0]]
    unit = Budget("l2", 1).steepest(gradient)
    torch.testing.assert_close(
        unit.flatten(1), torch.tensor([[0.6, -0.8], [0.0, -1.0], [0.0, 0.0]])
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        (" 8 / 255 ", 8 / 255),
        ("0.03", 0.03),
        ("1e-2", 0.01),
        (0.5, 0.5),
        (1, 1.0),
        ("0", 0.0),
    ],
)
def test_numbers_and_fractions_are_understood(text, value):
    assert parse_number("epsilon", text) == value
    assert Budget("linf", text).epsilon == value
    assert isinstance(Budget("linf", text).epsilon, float)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"epsilon": "eight"}, "epsilon", "8/255"),
        ({"epsilon": "1/0"}, "epsilon", "not a number or fraction"),
        ({"epsilon": "8/255/2"}, "epsilon", "not a number or fraction"),
        ({"epsilon": ""}, "epsilon", "not a number or fraction"),
        ({"epsilon": True}, "epsilon", "True"),
        ({"epsilon": None}, "epsilon", "None"),
        ({"epsilon": -0.1}, "epsilon", "at least 0"),
        ({"epsilon": math.nan}, "epsilon", "nan"),
        ({"epsilon": "nan"}, "epsilon", "nan"),
        ({"epsilon": 8}, "epsilon", "write 8/255, not 8"),
        ({"epsilon": "inf"}, "epsilon", "wider than the pixel box"),
        ({"norm": "l1"}, "norm", "linf, l2"),
        ({"norm": "L2"}, "norm", "linf, l2"),
        ({"lower": 1.0, "upper": 0.0}, "lower", "empty"),
        ({"lower": 0.5, "upper": 0.5}, "lower", "empty"),
        ({"lower": math.nan}, "lower", "empty"),
        ({"upper": math.nan}, "lower", "empty"),
        ({"norm": "l2", "epsilon": math.nan}, "epsilon", "nan"),
    ],
    ids=str,
)
def test_impossible_budgets_are_refused(options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        Budget(**options)
    assert caught.value.field == field


def test_a_long_l2_budget_is_no_mistake():
    origin = torch.rand(1, 3, 4, 4)
    target = torch.rand(1, 3, 4, 4)
    assert (
        torch.equal(Budget("l2", math.inf).project(target, origin).clamp(0, 1), target)
        or (Budget("l2", 1e3).project(target, origin) - target).abs().max() < 1e-6
    )
