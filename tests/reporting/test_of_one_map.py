"""A metric of one map in the report: no drift, no unmoved value, a floor with its own name."""

from dataclasses import replace

import pytest

from robustlab.records import Manifest
from robustlab.reporting import wording
from robustlab.reporting.frame import axis_label
from robustlab.reporting.headline import headlines, verdict
from robustlab.reporting.report import report_html
from robustlab.reporting.report_views import metric_views
from robustlab.reporting.results import measurements
from robustlab.reporting.samples import samples
from robustlab.reporting.sanity import sanity_headlines, sanity_tables
from robustlab.reporting.saved import saved
from robustlab.reporting.statistics import interval
from robustlab.reporting.summary import summarise
from robustlab.reporting.transfer import sentences
from robustlab.reporting.verdicts import flags
from tests.reporting import fixture

OVERLAP = "top_k_intersection"  # the primary metric of the made-up run


def told_as(run, **kind):
    """The same run, its primary metric of another kind."""
    info = replace(run.manifest.metrics[OVERLAP], name="deletion", **kind)
    manifest = replace(run.manifest, metrics={**run.manifest.metrics, OVERLAP: info})
    return replace(run, manifest=manifest)


ASKING = {"of_model": True, "higher_is_more_stable": False}


@pytest.mark.parametrize(
    ("kind", "better", "floor"),
    [
        ({}, "higher is more stable", "unrelated maps"),
        ({"higher_is_more_stable": False}, "lower is more stable", "unrelated maps"),
        ({"of_region": True}, "higher is better aimed", "maps that know nothing"),
        ({"of_model": True}, "higher is more faithful", "random orders"),
        (ASKING, "lower is more faithful", "random orders"),
        ({"of_map_alone": True}, "neither end is better", "shuffled maps"),
    ],
    ids=["drift", "distance", "region", "insertion", "deletion", "alone"],
)
def test_each_kind_has_words_of_its_own(run, kind, better, floor):
    told = told_as(run, **kind)
    info = told.manifest.metrics[OVERLAP]
    assert (wording.better(info), wording.ignorant(info)) == (better, floor)
    assert info.of_one_map == (better.split()[-1] != "stable")
    view = metric_views(told, summarise(told))[0]
    assert view.better == better.capitalize()
    assert view.chance.removeprefix("two ") == f"{floor} score 0.100"
    assert view.chance.startswith("two") == (not info.of_one_map)


def test_a_headline_names_the_floor_and_not_an_unmoved_map(run):
    told = told_as(run, **ASKING)
    (first, *_) = headlines(summarise(told), told.manifest)
    assert "brings top_k_intersection of" in first
    assert ", where random orders have 0.100" in first
    assert "unmoved" not in first
    drift = told_as(run)  # canary: the same numbers as a drift
    assert "where 1 is unmoved" in headlines(summarise(drift), drift.manifest)[0]


@pytest.mark.parametrize("higher", [True, False])
def test_a_row_is_flagged_where_random_does_as_well(run, higher):
    info = told_as(run, of_model=True, higher_is_more_stable=higher).manifest.metrics[OVERLAP]
    sample, drift = _clean(run)
    for mean in (0.02, 0.1, 0.11, 0.6):
        found = flags(sample, replace(drift, mean=mean), "", 0.1, info)
        unfaithful = mean <= 0.1 if higher else mean >= 0.1
        assert ("no more faithful than random" in found) == unfaithful
        assert not {"near chance floor", "past the chance floor", "moves without an attack"} & {
            *found
        }
    as_drift = flags(sample, replace(drift, mean=0.11), "", 0.1, run.manifest.metrics[OVERLAP])
    assert {"near chance floor", "moves without an attack"} <= {*as_drift}  # canary


def _clean(run):
    groups = samples(measurements(run.records))
    sample = next(s for s in groups if s.role == "none" and s.group.metric == OVERLAP)
    return sample, interval([0.5, 0.6, 0.7])


def test_a_disturbed_model_leaves_nothing_of_a_number_about_one_map(run):
    told = told_as(run, **ASKING)
    rows = [
        replace(row, disturbs="model", chance=0.1)
        for row in summarise(told)
        if row.metric == OVERLAP and row.attack == "pgd" and row.epsilon == fixture.EPSILONS[0]
    ]
    (table,) = sanity_tables(rows, told.manifest)
    assert table.floor == "Random orders"
    assert all(entry.left is None for line in table.lines for entry in line.entries)
    said = sanity_headlines([table], told.manifest)
    assert all("former self" not in text and "random orders have 0.100" in text for text in said)
    (drift,) = sanity_tables(rows, run.manifest)  # canary
    assert drift.floor == "Unrelated maps"
    assert all(entry.left is not None for line in drift.lines for entry in line.entries)
    assert "former self" in sanity_headlines([drift], run.manifest)[0]


def test_transfer_has_no_share_of_a_movement(small):
    told = replace(small, info=replace(small.info, of_model=True))
    assert told.caption.endswith("higher is more faithful; random orders have 0.100.")
    assert not any("as far" in text for text in sentences(told))
    assert any("as far" in text for text in sentences(small))  # canary


def test_survival_in_a_file_is_by_a_metric_of_two_maps(rich):
    assert saved(rich).metric == OVERLAP
    assert saved(told_as(rich, of_model=True)).metric == "spearman"


# --- a metric of which neither end is better ------------------------------------------------


def without_chance(run):
    """The same run, the primary metric describing a map; shuffled it would score the same."""
    told = told_as(run, of_map_alone=True)
    records = tuple(
        replace(r, images=tuple(replace(image, chance={}) for image in r.images))
        for r in run.records
    )
    return replace(told, records=records)


@pytest.mark.parametrize("higher", [True, False])
def test_nobody_wins_by_a_metric_without_a_better_end(run, higher):
    told = without_chance(run)
    info = replace(told.manifest.metrics[OVERLAP], higher_is_more_stable=higher)
    manifest = replace(told.manifest, metrics={**told.manifest.metrics, OVERLAP: info})
    rows = [row for row in summarise(replace(told, manifest=manifest)) if row.metric == OVERLAP]
    assert info.perfect is None
    assert {row.beats_control for row in rows} == {""}
    assert any(row.difference for row in rows), "the difference itself is still told"
    verdicts = ("random", "chance", "moves without", "faithful", "past")
    assert not [f for row in rows for f in row.flags if any(word in f for word in verdicts)]
    assert "no better end" in verdict(rows, manifest)
    assert axis_label("sparseness", info) == "sparseness"
    drift = [row for row in summarise(run) if row.metric == OVERLAP]  # canaries
    assert "yes" in {row.beats_control for row in drift}
    assert "went further" in verdict(drift, run.manifest)
    assert axis_label("overlap", run.manifest.metrics[OVERLAP]) == "overlap (higher = more stable)"


def test_a_headline_without_a_better_end_keeps_the_plans_order(run):
    told = without_chance(run)
    said = headlines(summarise(told), told.manifest)
    order = [text.partition(f"{OVERLAP} of ")[2].partition(" ")[0] for text in said]
    assert order == list(fixture.EXPLAINERS)
    assert all("pgd attack brings" in text for text in said), "the first of the plan"
    words = ("no stronger than noise", "told apart", "unmoved", "random orders", "where ")
    assert not [text for text in said if any(word in text for word in words)]
    drift = told_as(run)  # canary: the strongest, not the first
    assert any("top_k attack" in text for text in headlines(summarise(drift), drift.manifest))


def test_a_disturbed_model_is_told_without_a_floor(run):
    told = without_chance(run)
    rows = [
        replace(row, disturbs="model")
        for row in summarise(told)
        if row.metric == OVERLAP and row.attack == "pgd" and row.epsilon == fixture.EPSILONS[0]
    ]
    (table,) = sanity_tables(rows, told.manifest)
    assert all(entry.left is None for line in table.lines for entry in line.entries)
    said = sanity_headlines([table], told.manifest)
    assert said and not any("have" in text or "former self" in text for text in said)


def test_a_view_and_a_matrix_without_a_better_end(run, small):
    told = without_chance(run)
    view = metric_views(told, summarise(told))[0]
    assert (view.better, view.chance) == (
        "Neither end is better",
        "a shuffled map scores the same",
    )
    matrix = replace(small, info=replace(small.info, of_map_alone=True), chance=None)
    assert matrix.caption.endswith("; neither end is better.")
    assert {matrix.moved(v) for _, line in matrix.lines for v in line} == {None}
    assert not any("as far" in text for text in sentences(matrix))
    assert saved(told) is None or saved(told).metric != OVERLAP


def test_the_page_of_such_a_metric_has_no_arrow(run):
    html = report_html(without_chance(run))
    assert "no better end" in html
    for metric, marked in ((OVERLAP, False), ("center_shift", True)):  # the second: a canary
        figures = [part for part in html.split("<figure") if f"<h3>{metric}</h3>" in part]
        assert figures
        assert any("more stable" in part for part in figures) == marked


def test_a_manifest_from_before_knows_only_drifts():
    whole = fixture.manifest(fixture.cells())
    assert all("of_model" not in info for info in whole["metrics"].values())
    read = Manifest.from_dict(whole)
    assert not any(info.of_one_map for info in read.metrics.values())
    whole["metrics"]["spearman"]["of_model"] = True
    assert Manifest.from_dict(whole).metrics["spearman"].of_one_map
    whole["metrics"]["spearman"]["of_model"] = "yes"
    with pytest.raises(ValueError, match="of_model"):
        Manifest.from_dict(whole)
    whole["metrics"]["spearman"]["of_model"] = False
    whole["metrics"]["spearman"]["of_map_alone"] = True
    assert Manifest.from_dict(whole).metrics["spearman"].of_one_map
    whole["metrics"]["spearman"]["of_map_alone"] = 1
    with pytest.raises(ValueError, match="of_map_alone"):
        Manifest.from_dict(whole)
