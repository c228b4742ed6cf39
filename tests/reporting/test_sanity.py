"""Disturbed models in the report: what is left of a map, between unrelated and unmoved."""

from dataclasses import replace

import pytest

from robustlab.reporting.sanity import sanity_headlines, sanity_tables
from robustlab.reporting.summary import summarise


@pytest.fixture
def rows(run):
    """Two explainers under two disturbances, on a metric from 0.1 (chance) to 1 (unmoved)."""
    pattern = next(r for r in summarise(run) if r.metric == "top_k_intersection")
    means = {
        ("gradient", "upper half"): 0.55,
        ("gradient", "all layers"): 0.1,
        ("edges", "upper half"): 1.0,
        ("edges", "all layers"): 0.82,
    }
    return [
        replace(pattern, explainer=e, attack=a, mean=m, low=m - 0.05, high=m + 0.05, chance=0.1,
                disturbs="model", role="attack", against="")
        for (e, a), m in means.items()
    ]  # fmt: skip


def test_the_stubborn_come_first_and_bars_run_from_chance_to_unmoved(rows, run):
    (table,) = sanity_tables(rows, run.manifest)
    assert table.columns == ("upper half", "all layers")
    assert [line.explainer for line in table.lines] == ["edges", "gradient"]
    left = [[entry.left for entry in line.entries] for line in table.lines]
    assert left == [pytest.approx([1.0, 0.8]), pytest.approx([0.5, 0.0])]
    assert [line.chance for line in table.lines] == ["0.100", "0.100"]


def test_below_chance_is_an_empty_bar_and_what_was_not_measured_a_gap(rows, run):
    rows[1] = replace(rows[1], mean=0.02)
    (table,) = sanity_tables(rows[:2] + rows[2:3], run.manifest)
    by_name = {line.explainer: line.entries for line in table.lines}
    assert by_name["gradient"][1].left == 0.0
    assert by_name["edges"][1] is None


def test_headlines_name_the_last_disturbance_and_the_floor(rows, run):
    first, second = sanity_headlines(sanity_tables(rows, run.manifest), run.manifest)
    assert "With all layers the map of edges" in first
    assert "0.820 [0.770, 0.870]" in first and "unrelated maps have 0.100" in first
    assert "gradient" in second


def test_attacks_on_images_have_no_place_here(run):
    assert sanity_tables(summarise(run), run.manifest) == []
