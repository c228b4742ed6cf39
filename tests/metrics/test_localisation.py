"""Metrics of one map and a region: against sets, permutations and closed forms."""

import dataclasses
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustlab.core.errors import InvalidInput
from robustlab.core.types import MapMetric, ModelMetric, RegionMetric
from robustlab.metrics import METRICS, build
from tests.metrics.battery import KINDS, maps

NAMES = ("energy_in_region", "pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy")
SHAPE = (3, 5, 6)
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
values = hnp.arrays(np.int64, SHAPE, elements=st.integers(-4, 4)).map(torch.from_numpy)
regions = hnp.arrays(np.bool_, SHAPE).map(torch.from_numpy)


def measured(name, m, inside):
    return build(name).measure(m, inside).tolist()


def by_hand(name, m, inside):
    """One map and region, with Python's own sums, sort and sets."""
    m, inside = m.flatten().tolist(), inside.flatten().tolist()
    order = sorted(range(len(m)), key=lambda i: (-m[i], i))
    if name == "pointing_game":
        return float(inside[order[0]])
    if name == "relevance_rank_accuracy":
        region = {i for i, here in enumerate(inside) if here}
        return len(region & set(order[: len(region)])) / len(region) if region else 0.0
    mass = sum(max(v, 0) for v in m)
    return sum(max(v, 0) for v, here in zip(m, inside, strict=True) if here) / mass if mass else 0.0


@pytest.mark.parametrize("name", NAMES)
def test_class_describes_itself(name):
    cls = METRICS[name]
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert cls.name == name and build(name) == cls() and cls.bounds == (0, 1)
    assert isinstance(cls(), RegionMetric) and cls.higher_is_more_stable
    assert not isinstance(cls(), ModelMetric | MapMetric) and not callable(cls())
    assert all(word in cls.__doc__ for word in ("Chance", "Source:"))


def test_these_are_all():
    assert tuple(n for n, cls in METRICS.items() if "measure" in vars(cls)) == NAMES


@quick
@given(m=values, inside=regions, name=st.sampled_from(NAMES))
def test_values_are_those_of_sets_and_sums(m, inside, name):
    expected = [by_hand(name, *each) for each in zip(m, inside, strict=True)]
    assert measured(name, m, inside) == pytest.approx(expected, abs=1e-15)


@quick
@given(m=values, inside=regions)
def test_mass_accuracy_is_the_energy_under_another_name(m, inside):
    one, other = (measured(n, m, inside) for n in ("energy_in_region", "relevance_mass_accuracy"))
    assert one == other


@quick
@given(m=values, inside=regions, c=st.floats(0.01, 100))
def test_rank_metrics_know_nothing_but_the_order(m, inside, c):
    for name in ("pointing_game", "relevance_rank_accuracy"):
        plain = measured(name, m, inside)
        assert measured(name, c * m.double() - 3, inside) == plain
        assert measured(name, m.double().exp(), inside) == plain
    if bool((m.clamp(min=0) != m).any()):  # a mass is not blind to a shift
        assert measured("energy_in_region", m + 5, inside) == pytest.approx(
            [by_hand("energy_in_region", *each) for each in zip(m + 5, inside, strict=True)]
        )


@quick
@given(m=values, inside=regions)
def test_the_best_map_is_the_region_and_the_worst_its_opposite(m, inside):
    some = inside.flatten(1).any(1).double().tolist()
    for name in NAMES:
        assert measured(name, inside.double(), inside) == some
        most = inside.flatten(1).double().mean(1)
        if bool((most < 0.5).all()):  # else the region's own pixels are needed to fill K
            assert measured(name, (~inside).double(), inside) == [0] * 3


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_the_mean_over_all_orders(name):
    """Exact, by enumeration: all 720 arrangements of six values."""

    def mean(*six):
        orders = torch.tensor(list(permutations(six))).view(-1, 2, 3)
        return build(name).measure(orders, inside.expand(len(orders), 2, 3)).mean().item()

    inside = torch.tensor([[[True, False, True], [False, False, False]]])
    assert build(name).chance_in(inside).tolist() == [pytest.approx(1 / 3)]
    assert mean(3.0, 2.0, 1.0, 0.5, 0.0, -1.0) == pytest.approx(1 / 3, abs=1e-12)
    # ties fall to the first pixels, and here the region lies among them
    biased = mean(*6 * [1.0])
    by_order = name in ("pointing_game", "relevance_rank_accuracy")
    assert biased > 0.4 if by_order else biased == pytest.approx(1 / 3, abs=1e-12)


def test_ties_fall_in_reading_order():
    flat = torch.full((2, 2, 4), 7.0)
    inside = torch.zeros(2, 2, 4, dtype=torch.bool)
    inside[0, 0, :3] = True  # exactly the first K
    inside[1, 1, 1:] = True  # exactly the last K
    assert measured("relevance_rank_accuracy", flat, inside) == [1, 0]
    assert measured("pointing_game", flat, inside) == [1, 0]
    canary = flat + torch.arange(8.0).view(2, 4)  # as if the last came first
    assert measured("relevance_rank_accuracy", canary, inside) == [0, 1]


def test_minus_zero_and_zero_are_a_tie():
    m = torch.tensor([[[-0.0, 0.0, -1.0]]])
    inside = torch.tensor([[[True, False, False]]])
    assert measured("relevance_rank_accuracy", m, inside) == [1]
    assert measured("pointing_game", m, inside) == [1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_maps(name, kind):
    m = maps(kind)
    inside = maps("normal") > 0.5
    value = build(name).measure(m.clone().requires_grad_(), inside)
    assert value.dtype == torch.float64 and value.shape == (3,) and not value.requires_grad
    assert ((value >= 0) & (value <= 1)).all()  # NaN is refused as well
    if kind == "zero":
        expected = [by_hand(name, *each) for each in zip(m, inside, strict=True)]
        assert value.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [5e-324, 1e-305, 1e305])
def test_mass_at_the_ends_of_float64(scale):
    m = torch.tensor([[[3.0, 1.0, -7.0, 4.0]]], dtype=torch.float64) * scale
    inside = torch.tensor([[[True, False, True, False]]])
    assert measured("energy_in_region", m, inside) == [pytest.approx(3 / 8)]
    canary = (m.clamp(min=0) * inside).sum() / m.clamp(min=0).sum().clamp(min=1e-300)
    assert scale > 1 or canary.item() < 0.01  # what a floor under the sum would make of it


def test_mass_is_not_lost_under_a_larger_negative_value():
    m = torch.tensor([[[-1e308, 1e-300, 1e-300]]], dtype=torch.float64)
    inside = torch.tensor([[[False, True, False]]])
    assert measured("relevance_mass_accuracy", m, inside) == [0.5]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_knows_nothing_of_its_neighbours(name):
    m, inside = torch.cat([maps("normal"), maps("tied")]), torch.cat([maps("sparse")] * 2) > 0
    m[1], inside[4] = 0.0, False
    whole = build(name).measure(m, inside)
    parts = [build(name).measure(m[i : i + 1], inside[i : i + 1]) for i in range(6)]
    assert torch.equal(whole, torch.cat(parts))
    assert whole[4] == 0 == build(name).chance_in(inside)[4]
    assert build(name).measure(m[:0], inside[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("spoil", "field", "words"),
    [
        (lambda m, r: (m[:, :-1], r), "regions", "does not fit"),
        (lambda m, r: (m[0], r[0]), "regions", "does not fit"),
        (lambda m, r: (m, r[:2]), "regions", "does not fit"),
        (lambda m, r: (m, r.double()), "regions", "true or false"),
        (lambda m, r: (m * math.nan, r), "maps", "NaN"),
        (lambda m, r: (m * math.inf, r), "maps", "NaN or infinite"),
    ],
)
def test_what_is_refused(name, spoil, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name).measure(*spoil(maps("normal"), maps("normal") > 0))
    assert caught.value.field == field
