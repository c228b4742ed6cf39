"""The summary against a second derivation in plain Python, read from the record files."""

import csv
import json
import math
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from robustlab.records import BudgetSpec, ImageRow, Store
from robustlab.reporting import Run, SummaryRow, controls, summarise
from robustlab.reporting.statistics import Interval
from robustlab.reporting.verdicts import beats_control
from tests.reporting import fixture

Key = tuple[Any, ...]


def by_hand(folder: Path) -> dict[Key, dict[str, Any]]:
    """Every number of the summary that needs no resampling, from the JSON files alone."""
    found: dict[Key, dict[str, Any]] = {}
    values: dict[Key, dict[tuple[str, int], dict[str, Any]]] = {}
    for path in (folder / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        cell = record["cell"]
        for image in record["images"]:
            for explainer in cell["explainers"]:
                for metric in cell["metrics"]:
                    place = (cell["model"], explainer, cell["against"], cell["attack"])
                    key = (*place, cell["budget"]["epsilon"], metric)
                    value = image["values"].get(explainer, {}).get(metric)
                    item = {"value": value, "kept": image["kept"], "outcome": image["outcome"]}
                    values.setdefault(key, {})[image["id"], cell["seed"]] = item
    for key, items in values.items():
        model, explainer, against, attack, epsilon, metric = key
        control = (model, explainer, against, f"random_sign ({attack})", epsilon, metric)
        good = {where: item for where, item in items.items() if counts(item)}
        floor = {where: i for where, i in values.get(control, {}).items() if counts(i)}
        both = [where for where in good if where in floor]
        found[key] = {
            "n": len({image for image, _ in good}),
            "mean": average(good),
            "mean_dropped": average({w: i for w, i in good.items() if i["outcome"] == "ok"}),
            "mean_kept": average({w: i for w, i in good.items() if i["kept"]}),
            "mean_changed": average({w: i for w, i in good.items() if not i["kept"]}),
            "n_kept": sum(item["kept"] for item in good.values()),
            "n_changed": sum(not item["kept"] for item in good.values()),
            "control": average(floor),
            "difference": average(
                {w: {"value": good[w]["value"] - floor[w]["value"]} for w in both}
            ),
            "n_crashed": sum(item["outcome"] == "crashed" for item in items.values()),
            "n_diverged": sum(item["outcome"] == "diverged" for item in items.values()),
            "n_infeasible": sum(item["outcome"] == "infeasible" for item in items.values()),
        }
    return found


def counts(item: dict[str, Any]) -> bool:
    return item["outcome"] in ("ok", "infeasible") and item["value"] is not None


def average(items: dict[tuple[str, int], dict[str, Any]]) -> float | None:
    """Mean over images of the mean over seeds."""
    images = {image for image, _ in items}
    means = []
    for image in images:
        own = [item["value"] for (name, _), item in items.items() if name == image]
        means.append(math.fsum(own) / len(own))
    return math.fsum(means) / len(means) if means else None


def check(folder: Path) -> None:
    table = summarise(reporting.load(folder))
    expected = by_hand(folder)
    for row in table:
        against = row.against or None
        key = (row.model, row.explainer, against, row.attack, row.epsilon, row.metric)
        for name, value in expected[key].items():
            ours = getattr(row, name)
            assert ours == (value if value is None else pytest.approx(value, abs=1e-12)), name
    assert len(table) == len(expected)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeded")
    fixture.build(path, fixture.cells(seeds=(0, 1, 2), models=("plain", "robust")))
    return path


def test_every_number_again_by_hand(folder: Path) -> None:
    check(folder)


def test_every_number_again_with_seeds_and_models(seeded: Path) -> None:
    check(seeded)


def _swapped(sample: Any, control: Any) -> Any:
    return controls.paired_difference([0.0, 0.1], [0.3, 0.5])


@pytest.mark.parametrize(
    ("target", "broken"),
    [
        ("controls.advantage", _swapped),
        ("samples.COUNTED", ("ok",)),
        ("samples.mean", lambda values: values[0]),
    ],
)
def test_canary_a_broken_formula_is_seen(
    seeded: Path, monkeypatch: pytest.MonkeyPatch, target: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(f"robustlab.reporting.{target}", broken)
    with pytest.raises(AssertionError):
        check(seeded)


def of(table: list[SummaryRow], **wanted: Any) -> SummaryRow:
    (row,) = [r for r in table if all(getattr(r, k) == v for k, v in wanted.items())]
    return row


def test_the_file_says_what_the_rows_say(folder: Path, run: Run) -> None:
    shown = list(csv.DictReader(StringIO((folder / "summary.csv").read_text())))
    for text, row in zip(shown, summarise(run), strict=True):
        for name in ("mean", "low", "high", "control", "difference", "kept_rate", "epsilon"):
            value = getattr(row, name)
            assert text[name] == ("" if value is None else repr(value))
        assert text["flags"] == "; ".join(row.flags)
        assert text["beats_control"] == row.beats_control


def test_infeasible_images_count_as_unmoved_and_are_also_left_out(run: Run) -> None:
    row = of(
        summarise(run),
        attack="top_k",
        explainer="grad_cam",
        epsilon=fixture.EPSILONS[1],
        metric="top_k_intersection",
    )
    assert (row.n, row.n_dropped, row.n_infeasible, row.n_diverged) == (3, 2, 1, 1)
    assert row.mean is not None
    assert row.mean_dropped is not None
    assert row.mean == pytest.approx((2 * row.mean_dropped + 1.0) / 3)


def test_a_crashed_cell_is_a_row(run: Run) -> None:
    row = of(
        summarise(run),
        attack="top_k",
        explainer="smooth_grad",
        epsilon=fixture.EPSILONS[1],
        metric="spearman",
    )
    assert (row.n, row.mean, row.n_crashed) == (0, None, 4)
    assert row.flags == ("4 crashed, left out",)
    assert row.control is not None


def test_verdicts_respect_the_direction_of_the_metric(run: Run) -> None:
    table = summarise(run)
    for metric in ("top_k_intersection", "center_shift"):
        row = of(
            table,
            attack="top_k",
            explainer="gradient",
            epsilon=fixture.EPSILONS[1],
            metric=metric,
        )
        assert row.beats_control == "yes"
    assert (
        of(
            table,
            attack="top_k",
            explainer="gradient",
            metric="center_shift",
            epsilon=fixture.EPSILONS[1],
        ).difference
        > 0
    )  # type: ignore[operator]


def test_costs_are_per_image(run: Run) -> None:
    row = summarise(run)[0]
    assert (row.forwards_per_image, row.backwards_per_image) == (21, 20)
    paths = {row.path for row in summarise(run) if row.role == "attack" and row.n}
    assert paths == {"hessian-vector product"}


def _constant(cell: Any, value: float) -> tuple[ImageRow, ...]:
    images = fixture.record(cell).images
    table = {name: dict.fromkeys(fixture.METRICS, value) for name in cell.explainers}
    return tuple(ImageRow(**{**vars(image), "values": table}) for image in images)


def flags_when(tmp_path: Path, values: dict[str, float], **wanted: Any) -> tuple[str, ...]:
    """Flags of one row when every image of each attack has one value."""
    plan = fixture.cells(images=12)
    store = Store(tmp_path)
    store.claim(fixture.manifest(plan))
    for cell in plan:
        value = values.get(cell.attack, 0.9)
        store.write(fixture.record(cell, images=_constant(cell, value)))
    place = {"explainer": "gradient", "epsilon": fixture.EPSILONS[0], "metric": "spearman"}
    return of(summarise(reporting.load(tmp_path)), **{**place, "attack": "top_k", **wanted}).flags


def test_an_attack_no_better_than_noise_is_flagged(tmp_path: Path) -> None:
    values = {"top_k": 0.5, "random_sign (top_k)": 0.5}
    assert flags_when(tmp_path, values) == ("does not beat random sign",)


def test_a_good_attack_has_no_flag(tmp_path: Path) -> None:
    assert flags_when(tmp_path, {"top_k": 0.5}) == ()


@pytest.mark.parametrize(
    ("value", "flag"), [(0.05, "near chance floor"), (-0.2, "past the chance floor")]
)
def test_the_chance_floor_is_flagged(tmp_path: Path, value: float, flag: str) -> None:
    assert flags_when(tmp_path, {"top_k": value}) == (flag,)


def test_an_explainer_that_does_not_repeat_itself_is_flagged(tmp_path: Path) -> None:
    flags = flags_when(tmp_path, {"none": 0.97}, attack="none")
    assert flags == ("moves without an attack",)


def test_a_transferred_attack_is_compared_with_its_own_control(tmp_path: Path) -> None:
    """Aimed at one explainer, measured on another: the floor must have had the same aim."""
    store, plan = Store(tmp_path), []
    for attack, against in (
        ("random_sign (top_k)", "gradient"),
        ("random_sign (top_k)", "grad_cam"),
        ("top_k", "gradient"),
    ):
        (cell,) = [
            c
            for c in fixture.cells()
            if (c.attack, c.against) == (attack, against) and c.budget.epsilon < 0.003
        ]
        plan.append(type(cell)(**{**vars(cell), "explainers": ("gradient", "grad_cam")}))
    store.claim(fixture.manifest(plan))
    for cell, value in zip(plan, (0.8, 0.3, 0.5), strict=True):
        store.write(fixture.record(cell, images=_constant(cell, value)))
    row = of(
        summarise(reporting.load(tmp_path)),
        attack="top_k",
        explainer="grad_cam",
        metric="spearman",
    )
    assert (row.against, row.control) == ("gradient", 0.8)
    assert row.difference == pytest.approx(-0.3)


def test_another_budget_is_another_row(tmp_path: Path) -> None:
    cell = fixture.cells()[0]
    ball = type(cell)(
        **{**vars(cell), "budget": BudgetSpec(norm="l2", epsilon=cell.budget.epsilon)}
    )
    store = Store(tmp_path)
    manifest = fixture.manifest([cell, ball])
    manifest["plan"][1]["key"] = "l2"
    store.claim(manifest)
    store.write(fixture.record(cell))
    store.write(fixture.record(ball, key="l2"))
    norms = [row.norm for row in summarise(reporting.load(tmp_path))]
    assert norms.count("l2") == norms.count("linf") == 9


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)])
def test_an_attack_that_keeps_maps_beats_noise_by_keeping_them(run, low, high) -> None:
    difference = Interval(2, (low + high) / 2, low, high)
    for metric in run.manifest.metrics.values():
        moving = beats_control(difference, metric)
        keeping = beats_control(difference, metric, keeps_maps=True)
        assert {moving, keeping} in ({"yes", "no"}, {"undecided"})
