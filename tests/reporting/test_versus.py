"""Two runs with known values beside each other: every number has a closed form."""

from dataclasses import replace

import numpy as np
import pytest

from robustlab.core.errors import InvalidInput
from robustlab.records import BudgetSpec, ImageRow, MetricInfo, RunRecord, UnreadableResults
from robustlab.reporting import compare_runs
from robustlab.reporting.significance import holm, sign_flip
from robustlab.reporting.statistics import Interval, interval
from robustlab.reporting.versus import direction, verdict
from robustlab.reporting.versus_table import versus_notes, versus_summary, versus_table
from tests.reporting import fixture

METRIC = "top_k_intersection"
N = 12
COMMON = np.linspace(0.0, 0.9, N)  # what images have in common, far more than any change
STEP = 0.01 + 0.002 * np.cos(np.arange(N))  # a change of each image, all of one sign


def named(values):
    return {f"photo_{i:02d}": float(value) for i, value in enumerate(values)}


def record(values, *, model="small_cnn", attack="pgd", explainer="gradient", seed=0, metric=METRIC):
    """One cell; ``values`` is image id → value."""
    (cell,) = fixture.cells(models=(model,))[:1]
    cell = replace(
        cell,
        ids=tuple(values),
        explainers=(explainer,),
        attack=attack,
        role=fixture.role_of(attack),
        control_of=fixture.control_of(attack),
        budget=BudgetSpec(norm="linf", epsilon=2 / 255),
        seed=seed,
        metrics=(metric,),
    )
    images = tuple(
        ImageRow(
            id=name,
            prediction=0,
            prediction_after=0,
            target=0,
            kept=True,
            outcome="ok",
            values={explainer: {metric: value}},
        )
        for name, value in values.items()
    )
    key = f"{fixture.key_of(cell)}-{explainer}-{metric}"
    return fixture.record(cell, key=key, images=images)


def build(folder, *records, **changes):
    """A results folder of these records."""
    whole = fixture.manifest([one.cell for one in records], **changes)
    for planned, one in zip(whole["plan"], records, strict=True):
        planned["key"] = one.key
    store = fixture.Store(folder)
    store.claim(whole)
    for one in records:
        store.write(one)
    return folder


def pair(tmp_path, a, b, **options):
    """Comparison of two lists of records."""
    return compare_runs(build(tmp_path / "a", *a), build(tmp_path / "b", *b), **options)


def test_the_difference_is_paired_and_exact(tmp_path):
    found = pair(tmp_path, [record(named(COMMON))], [record(named(COMMON + STEP))])
    (row,) = found.rows
    assert (row.n, row.only_a, row.only_b) == (N, 0, 0)
    assert row.mean_a == pytest.approx(COMMON.mean())
    assert row.mean_b == pytest.approx((COMMON + STEP).mean())
    assert row.difference == pytest.approx(STEP.mean())
    assert STEP.min() < row.low < STEP.mean() < row.high < STEP.max()
    assert row.p == row.p_holm == 2 / 2**N  # all images moved the same way
    assert row.verdict == "more stable"
    assert versus_summary(found) == "1 of 1 row changed: 1 more stable"


def test_canary_two_separate_intervals_would_see_nothing(tmp_path):
    a, b = COMMON, COMMON + STEP
    (row,) = pair(tmp_path, [record(named(a))], [record(named(b))]).rows
    assert row.low > 0
    first, second = interval(a), interval(b)
    assert first.low < second.mean < first.high and second.low < first.mean < second.high
    generator = np.random.default_rng(0)
    draws = [generator.choice(b, N).mean() - generator.choice(a, N).mean() for _ in range(2000)]
    low, high = np.percentile(draws, (2.5, 97.5))
    assert low < 0 < high  # an unpaired bootstrap of the same values


def test_a_folder_against_itself_has_the_same_numbers_everywhere(folder):
    found = compare_runs(folder, folder, every=True)
    assert {row.metric for row in found.rows} == set(fixture.METRICS)
    crashed = [row for row in found.rows if row.verdict == "nothing to compare"]
    assert {(row.n, row.p, row.p_holm, row.difference) for row in crashed} == {
        (0, None, None, None)
    }
    others = [row for row in found.rows if row not in crashed]
    assert {(row.verdict, row.difference, row.low, row.high, row.p_holm) for row in others} == {
        ("same numbers", 0.0, 0.0, 0.0, 1.0)
    }
    assert (found.only_a, found.only_b, found.renamed) == ((), (), None)
    assert (found.runs.spec, found.runs.provenance, found.runs.images_a) == ((), (), ())
    assert len(crashed) == len(fixture.METRICS)
    assert [one.reason for one in found.runs.failed_a] == [
        "RuntimeError: out of memory <b>here</b>"
    ]
    assert "small_cnn: top_k (aimed at smooth_grad), ε = 2/255" in found.runs.failed_b[0].what


def test_the_order_of_images_and_cells_changes_nothing(tmp_path):
    generator = np.random.default_rng(4)
    values = {name: generator.uniform(0, 1, (2, 30)) for name in ("gradient", "smooth_grad")}

    def cells(side, order):
        return [
            record({k: named(both[side])[k] for k in order}, explainer=name)
            for name, both in values.items()
        ]

    order = sorted(named(range(30)))
    mixed = [order[i] for i in generator.permutation(30)]
    plain = pair(tmp_path / "1", cells(0, order), cells(1, order))
    other = pair(tmp_path / "2", cells(0, mixed), cells(1, order)[::-1])
    assert plain.rows == other.rows


def test_seeds_are_averaged_within_an_image_first(tmp_path):
    shifts = np.array([0.3, -0.1])
    a = [record(named(COMMON + s), seed=i) for i, s in enumerate(shifts)]
    b = [record(named(COMMON + STEP + 2 * s), seed=i) for i, s in enumerate(shifts)]
    (row,) = pair(tmp_path, a, b).rows
    expected = STEP + shifts.mean()
    assert row.n == N  # and not 2 N
    assert row.difference == pytest.approx(expected.mean())
    assert row.low == pytest.approx(interval(expected).low)
    assert row.p == 2 / 2**N


def test_only_shared_images_count_and_the_others_are_told(tmp_path):
    a = named(COMMON)
    b = {**named(COMMON), "extra": 0.0}
    b.pop("photo_00")
    found = pair(tmp_path, [record(a)], [record(b)])
    (row,) = found.rows
    assert (row.n, row.only_a, row.only_b) == (N - 1, 1, 1)
    assert row.mean_a == row.mean_b == pytest.approx(COMMON[1:].mean())
    assert row.verdict == "same numbers"
    assert (found.runs.images_a, found.runs.images_b) == (("photo_00",), ("extra",))
    notes = "\n".join(versus_notes(found))
    assert "only A has 1 image: photo_00" in notes and "only B has 1 image: extra" in notes


def test_a_value_that_is_no_drift_within_the_budget_is_left_out(tmp_path):
    whole = record(named(COMMON + STEP))
    first, second, *rest = whole.images
    odd = replace(first, outcome="budget_violated"), replace(second, outcome="infeasible")
    b = replace(whole, images=(*odd, *rest))
    (row,) = pair(tmp_path / "1", [record(named(COMMON))], [b]).rows
    assert (row.n, row.only_a, row.only_b) == (N - 1, 1, 0)
    assert row.difference == pytest.approx(STEP[1:].mean())
    (row,) = pair(tmp_path / "2", [b], [record(named(COMMON))]).rows
    assert (row.n, row.only_a, row.only_b) == (N - 1, 0, 1)
    assert row.difference == pytest.approx(-STEP[1:].mean())


def test_holm_is_over_all_rows_and_the_clearest_comes_first(tmp_path):
    generator = np.random.default_rng(7)
    changes = {
        "gradient": generator.normal(0.0, 0.1, N),
        "smooth_grad": -STEP,
        "grad_cam": np.zeros(N),
    }
    a = [record(named(COMMON), explainer=name) for name in changes]
    b = [record(named(COMMON + change), explainer=name) for name, change in changes.items()]
    found = pair(tmp_path, a, b)
    rows = {row.explainer: row for row in found.rows}
    assert [row.explainer for row in found.rows] == ["smooth_grad", "gradient", "grad_cam"]
    values = sign_flip([(COMMON + change) - COMMON for change in changes.values()])
    assert [rows[name].p for name in changes] == values
    assert [rows[name].p_holm for name in changes] == holm(values)
    assert rows["smooth_grad"].p_holm == 3 * 2 / 2**N
    verdicts = [rows[name].verdict for name in changes]
    assert verdicts == ["no clear difference", "less stable", "same numbers"]
    assert versus_summary(found) == (
        "1 of 3 rows changed: 1 less stable; 1 with no clear difference; "
        "1 with the very same numbers"
    )


def test_a_row_that_holm_rejects_has_not_changed(tmp_path):
    few = 6  # all moved one way: p = 2/64, below 0.05 alone and above among two rows
    a, b = named(COMMON[:few]), named((COMMON + STEP)[:few])
    alone = pair(tmp_path / "1", [record(a)], [record(b)]).rows
    names = ("gradient", "grad_cam")
    two = pair(
        tmp_path / "2",
        [record(a, explainer=name) for name in names],
        [record(b, explainer=name) for name in names],
    )
    assert [row.verdict for row in alone] == ["more stable"]
    assert [row.verdict for row in two.rows] == ["no clear difference"] * 2
    assert all(row.low > 0 and row.p < 0.05 < row.p_holm for row in two.rows)
    assert any(note.startswith("too few: 6 images cannot") for note in versus_notes(two))


@pytest.mark.parametrize(
    ("flags", "rising", "falling"),
    [
        ({}, "more stable", "less stable"),
        ({"higher_is_more_stable": False}, "less stable", "more stable"),
        ({"of_map_alone": True}, "higher", "lower"),
        ({"of_map_alone": True, "higher_is_more_stable": False}, "higher", "lower"),
        ({"of_model": True}, "more faithful", "less faithful"),
        ({"of_region": True, "higher_is_more_stable": False}, "worse aimed", "better aimed"),
    ],
    ids=["up", "down", "alone", "alone down", "model", "region"],
)
def test_words_follow_the_metric(flags, rising, falling):
    whole = {"higher_is_more_stable": True, **flags}
    info = MetricInfo(name="m", bounds=(0.0, 1.0), summary="", options={}, **whole)
    assert (direction(info, rises=True), direction(info, rises=False)) == (rising, falling)


@pytest.mark.parametrize(
    ("bounds", "p", "same", "expected"),
    [
        ((0.1, 0.3), 0.049, False, "more stable"),
        ((-0.3, -0.1), 0.049, False, "less stable"),
        ((0.1, 0.3), 0.05, False, "no clear difference"),
        ((-0.01, 0.3), 0.001, False, "no clear difference"),  # the interval must agree
        ((0.0, 0.3), 0.001, False, "no clear difference"),
        ((None, None), 0.001, False, "no clear difference"),
        ((0.0, 0.0), 1.0, True, "same numbers"),
    ],
)
def test_a_verdict_needs_the_test_and_the_interval(bounds, p, same, expected):
    info = MetricInfo(
        name="m", higher_is_more_stable=True, bounds=(0.0, 1.0), summary="", options={}
    )
    low, high = bounds
    middle = 0.2 if low is None else (low + high) / 2
    assert verdict(Interval(9, middle, low, high), p, info, same=same) == expected


def test_less_drift_is_more_stable(tmp_path):
    a = [record(named(COMMON), metric="center_shift")]
    b = [record(named(COMMON - STEP), metric="center_shift")]
    (row,) = pair(tmp_path, a, b, metric="center_shift").rows
    assert row.difference < 0 and row.verdict == "more stable"


def test_one_model_in_each_is_compared_whatever_its_label(tmp_path):
    a = [record(named(COMMON), model="natural")]
    b = [record(named(COMMON + STEP), model="defended")]
    found = pair(tmp_path, a, b)
    (row,) = found.rows
    assert (row.model, row.model_b, row.verdict) == ("natural", "defended", "more stable")
    assert found.renamed == ("natural", "defended")
    note = "one model in each: natural of A is compared with defended of B"
    assert versus_notes(found).count(note) == 1


def test_with_several_models_only_the_shared_ones_are_compared(tmp_path):
    a = [record(named(COMMON), model=name) for name in ("natural", "old")]
    b = [record(named(COMMON), model=name) for name in ("natural", "new")]
    found = pair(tmp_path, a, b)
    assert [row.model for row in found.rows] == ["natural"]
    assert [place.model for place in found.only_a] == ["old"]
    assert [place.model for place in found.only_b] == ["new"]
    notes = "\n".join(versus_notes(found))
    assert "only A has 1 row: old, gradient, pgd, ε = 2/255, top_k_intersection" in notes


def test_what_differs_between_the_runs(tmp_path):
    spec = {"images": 4, "explainers": [{"name": "gradient"}, {"name": "lrp", "rule": "z"}]}
    other = {"images": 5, "explainers": [{"name": "gradient"}, {"name": "lrp", "rule": "w"}]}
    facts = {"versions": {"torch": "2.1", "numpy": "2.0"}, "commit": "aaa"}
    newer = {"versions": {"torch": "2.2", "numpy": "2.0"}, "commit": None}
    one = replace(record(named(COMMON)), provenance=facts)
    a = build(tmp_path / "a", one, spec=spec)
    b = build(tmp_path / "b", replace(one, provenance=newer), spec={**other, "new": True})
    found = compare_runs(a, b)
    told = [(c.key, c.a, c.b) for c in found.runs.spec]
    assert told == [
        ("images", "4", "5"), ("explainers.1.rule", "z", "w"), ("new", None, "true"),
    ]  # fmt: skip
    told = [(c.key, c.a, c.b) for c in found.runs.provenance]
    assert told == [("versions.torch", "2.1", "2.2"), ("commit", "aaa", "null")]
    assert "experiment: images 4 → 5; explainers.1.rule z → w; new – → true" in versus_notes(found)


def test_a_crashed_and_a_missing_cell_are_told(tmp_path):
    one, two = record(named(COMMON)), record(named(COMMON), explainer="grad_cam")
    a = build(tmp_path / "a", one, two)
    b = build(tmp_path / "b", RunRecord.crashed(one.key, one.cell, "ValueError: no"), two)
    found = compare_runs(a, b)
    verdicts = {row.explainer: row.verdict for row in found.rows}
    assert verdicts == {"gradient": "nothing to compare", "grad_cam": "same numbers"}
    assert [failure.reason for failure in found.runs.failed_b] == ["ValueError: no"]
    assert versus_summary(found).endswith("1 with nothing to compare")
    (b / "cells" / f"{one.key}.json").write_text("{")
    (failure,) = compare_runs(a, b).runs.failed_b
    assert failure.what == f"{one.key}.json" and "not a run record" in failure.reason
    (b / "cells" / f"{one.key}.json").unlink()
    found = compare_runs(a, b)
    assert found.runs.unfinished_b == 1
    assert [place.explainer for place in found.only_a] == ["gradient"]
    assert "B is not finished: 1 cell without a record" in versus_notes(found)


def test_the_table(tmp_path):
    found = pair(tmp_path, [record(named(COMMON))], [record(named(COMMON + STEP))])
    header, line = versus_table(found)
    cells = dict(zip(header, line, strict=True))
    assert cells["explainer"] == "gradient" and cells["attack"] == "pgd" and cells["n"] == str(N)
    assert cells["A"] == "0.450" and cells["verdict"] == "more stable"
    assert cells["B − A"].startswith(f"+{STEP.mean():.3f} [+0.0")


def test_refusals(tmp_path):
    a = build(tmp_path / "a", record(named(COMMON)))
    with pytest.raises(UnreadableResults, match=r"holds no experiment\.json"):
        compare_runs(a, tmp_path / "nowhere")
    empty = build(tmp_path / "empty", record(named(COMMON)))
    for path in (empty / "cells").iterdir():
        path.unlink()
    with pytest.raises(UnreadableResults, match="empty: holds a plan but no results"):
        compare_runs(a, empty)
    with pytest.raises(InvalidInput, match="did you mean 'spearman'"):
        compare_runs(a, a, metric="spearmen")
    with pytest.raises(InvalidInput, match="one metric and all of them"):
        compare_runs(a, a, metric="spearman", every=True)
    (next((build(tmp_path / "torn", record(named(COMMON))) / "cells").iterdir())).write_text("{")
    with pytest.raises(UnreadableResults, match=r"no results .*\.json: not a run record"):
        compare_runs(tmp_path / "torn", a)
    b = build(tmp_path / "b", record(named(COMMON), attack="top_k", explainer="grad_cam"))
    expected = (
        "a and .*b: no row in common: explainers gradient against grad_cam; "
        "attacks pgd against top_k"
    )
    with pytest.raises(InvalidInput, match=expected):
        compare_runs(a, b)


def test_means_are_those_of_the_summary(folder, run):
    from robustlab.reporting import summarise

    summary = {
        (r.explainer, r.against, r.attack, r.epsilon, r.metric): r.mean for r in summarise(run)
    }
    for row in compare_runs(folder, folder, every=True).rows:
        expected = summary[row.explainer, row.against, row.attack, row.epsilon, row.metric]
        assert row.mean_a == row.mean_b == (expected and pytest.approx(expected))
