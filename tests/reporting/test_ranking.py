"""Places of explainers: by hand, against a closed form, and by how often they are wrong."""

import numpy as np
import pytest

from robustlab.records import MetricInfo
from robustlab.reporting import Run
from robustlab.reporting.ranking import (
    Arena,
    Ranking,
    arenas,
    compared,
    power_warning,
    ranking,
    rankings,
)
from robustlab.reporting.results import measurements
from robustlab.reporting.samples import samples
from robustlab.reporting.significance import least
from tests.reporting.page import Node

UP = MetricInfo(name="m", higher_is_more_stable=True, bounds=(0, 1), summary="", options={})
DOWN = MetricInfo(name="m", higher_is_more_stable=False, bounds=(0, 1), summary="", options={})
ARENA = Arena("net", "photos", "top_k", "linf", 0.1, "m", "")


def named(table: np.ndarray) -> dict[str, dict[str, float]]:
    """Columns are explainers, rows are images."""
    return {
        f"e{j}": {f"image {i}": float(v) for i, v in enumerate(table[:, j])}
        for j in range(table.shape[1])
    }


def made(table: np.ndarray, metric: MetricInfo = UP) -> Ranking:
    return ranking(ARENA, named(table), metric)


def places(found: Ranking) -> dict[str, tuple[int, int]]:
    return {row.explainer: (row.best, row.worst) for row in found.standings}


def test_clear_steps_get_one_place_each_in_the_direction_of_the_metric() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (30, 3))
    table = noise + np.array([0.5, 0.9, 0.1])
    assert places(made(table)) == {"e1": (1, 1), "e0": (2, 2), "e2": (3, 3)}
    assert [row.explainer for row in made(table, DOWN).standings] == ["e2", "e0", "e1"]
    assert places(made(table, DOWN)) == {"e2": (1, 1), "e0": (2, 2), "e1": (3, 3)}


def test_what_cannot_be_told_apart_shares_its_places() -> None:
    draws = np.random.default_rng(1)
    twins = draws.normal(0.5, 0.1, (40, 1)) + draws.normal(0, 0.05, (40, 2))
    found = made(np.column_stack([twins, draws.normal(0.1, 0.02, 40)]))
    assert places(found) == {"e0": (1, 2), "e1": (1, 2), "e2": (3, 3)}
    assert found.told == 2


def test_places_hold_the_truth_as_often_as_they_say_and_canary_without_holm_they_do_not() -> None:
    draws, wrong, careless = np.random.default_rng(2), 0, 0
    for _ in range(200):
        table = draws.beta(0.5, 2.0, (12, 5))  # five equals: every place is every one's
        pairs = compared(named(table))
        wrong += any(row.best > 1 or row.worst < 5 for row in made(table).standings)
        careless += any(pair.p < 0.05 for pair in pairs)
    assert wrong / 200 <= 0.08
    assert careless / 200 > 0.2


def test_only_images_of_both_are_compared() -> None:
    values = {"a": {"1": 0.0, "2": 1.0, "3": 0.5}, "b": {"2": 0.5, "3": 0.25, "4": 9.0}}
    (pair,) = compared(values)
    assert (pair.difference.n, pair.difference.mean) == (2, 0.375)
    assert ranking(ARENA, values, UP).images == 2


def test_the_detectable_difference_is_found_in_four_of_five_experiments() -> None:
    draws = np.random.default_rng(3)
    spread, images = 0.1, 30
    tables = [draws.normal(0, spread / np.sqrt(2), (images, 2)) for _ in range(120)]
    typical = float(np.median([made(table).detectable for table in tables]))
    assert typical == pytest.approx((1.959964 + 0.841621) * spread / np.sqrt(images), rel=0.03)
    found = [made(table + np.array([typical, 0.0])).told for table in tables]
    assert 0.7 <= np.mean(found) <= 0.9


def test_too_few_images_are_said_to_be_too_few() -> None:
    apart = np.arange(4)[:, None] * 0.001 + np.array([0.1, 0.5, 0.9])
    found = made(apart)
    assert found.told == 0
    assert power_warning(found) == (
        "4 images cannot tell even one of 3 pairs apart, whatever they show: at least 7 are needed."
    )
    assert least(7) * 3 < 0.05 <= least(6) * 3
    more = np.arange(7)[:, None] * 0.001 + np.array([0.1, 0.5, 0.9])
    assert made(more).told == 3
    assert power_warning(made(more)) == ""


def test_no_more_than_the_images_can_say_is_said_of_power() -> None:
    table = np.random.default_rng(4).normal(0.5, 0.1, (20, 3))
    found = made(table)
    assert found.detectable is not None
    assert f"a difference of {found.detectable:.2g} is missed" in power_warning(found)


def test_explainers_meet_on_their_own_terms(rich: Run) -> None:
    groups = samples(measurements(rich.records))
    for arena, values in arenas(groups).items():
        for explainer in values:
            (sample,) = [
                s
                for s in groups
                if s.group.explainer == explainer
                and s.group.against in ("", explainer)
                and Arena(*(getattr(s.group, name) for name in Arena._fields)) == arena
            ]
            assert sample.role == "attack"
    primary = rich.manifest.primary_metric
    assert {found.arena.metric for found in rankings(groups, rich.manifest)} <= {primary}


def test_the_page_shows_every_standing(rich: Run, rich_page: Node) -> None:
    section = rich_page.section("ranking")
    found = rankings(samples(measurements(rich.records)), rich.manifest)
    assert (section is None) == (not found)
    for one in found:
        for row in one.standings:
            assert section is not None
            assert row.explainer in section.text
            assert row.place in section.text
