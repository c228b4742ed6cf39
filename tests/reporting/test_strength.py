"""Strength against time: seconds from the records, means from the summary, lines that say whose."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from robustlab.records import CellSpec, RunRecord, Store
from robustlab.reporting import Run, summarise
from robustlab.reporting.strength import Strength, seconds_per_image, strengths
from robustlab.reporting.strength_plot import StrengthPlot
from robustlab.reporting.wording import number
from tests.reporting import fixture, richer
from tests.reporting.page import Node, parse

TIMED = ("top_k on gradient", "quick", "thorough", "search")


def found(run: Run) -> list[Strength]:
    return strengths(summarise(run), run)


def by_hand(folder: Path, attack: str, epsilon: float) -> float:
    """Seconds of all chunks over images of all chunks, from the files."""
    seconds = images = 0.0
    for path in (folder / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        cell = record["cell"]
        ball = cell["budget"]["norm"], cell["budget"]["epsilon"]
        if (cell["model"], cell["attack"], ball) == ("small_cnn", attack, ("linf", epsilon)):
            seconds += record["attack_seconds"]
            images += len(record["images"])
    return seconds / images


def test_one_per_model_and_budget_with_enough_attacks(rich: Run) -> None:
    places = [(s.model, s.explainer, s.norm, s.epsilon) for s in found(rich)]
    assert sorted(places) == sorted(
        (model, "gradient", "linf", epsilon)
        for model in richer.MODELS
        for epsilon in fixture.EPSILONS
    )  # at L2 there is one attack only


def test_points_are_seconds_per_image_and_means(rich: Run, rich_folder: Path) -> None:
    strength = next(
        s for s in found(rich) if (s.model, s.epsilon) == ("small_cnn", fixture.EPSILONS[1])
    )
    lines = {(line.attack, line.path): line.points for line in strength.lines}
    assert list(lines) == [("top_k", "hessian_vector"), ("black_box", "black_box")]
    top_k = lines["top_k", "hessian_vector"]
    assert [(p.label, p.effort) for p in top_k] == [
        ("quick", 5),
        ("top_k on gradient", 20),
        ("thorough", 80),
    ]
    rows = {
        row.attack: row
        for row in summarise(rich)
        if (row.model, row.explainer, row.norm, row.epsilon, row.metric, row.made_on)
        == ("small_cnn", "gradient", "linf", fixture.EPSILONS[1], "top_k_intersection", "")
    }
    for point in (*top_k, *lines["black_box", "black_box"]):
        assert point.seconds == pytest.approx(by_hand(rich_folder, point.label, strength.epsilon))
        assert point.mean == rows[point.label].mean
        control = f"random_sign ({point.label})"
        assert point.control == (
            pytest.approx(by_hand(rich_folder, control, strength.epsilon)),
            rows[control].mean,
        )


def test_seconds_per_image_weigh_chunks_by_their_images() -> None:
    plan = [c for c in richer.cells(("small_cnn",)) if c.attack == "quick"][:2]
    records = [richer.record(c, attack_seconds=s) for c, s in zip(plan, (8.0, 1.0), strict=True)]
    crashed = RunRecord.crashed("x", plan[0], "boom", seconds=99.0)
    (value,) = seconds_per_image([*records, crashed]).values()
    assert value == pytest.approx(9 / 6)


def only(
    tmp_path: Path,
    labels: tuple[str, ...] = TIMED,
    change: Callable[[CellSpec], dict[str, Any]] = lambda cell: {},
    **manifest: Any,
) -> Run:
    """A small run with these attacks and their controls at one budget."""
    names = (*labels, *(f"random_sign ({label})" for label in labels))
    plan = [
        c for c in richer.cells(("small_cnn",)) if c.attack in names and c.budget == richer.BALLS[1]
    ]
    store = Store(tmp_path)
    store.claim(richer.manifest(plan, **manifest))
    for cell in plan:
        store.write(richer.record(cell, **change(cell)))
    return reporting.load(tmp_path)


def test_three_that_differ_are_enough_and_two_are_not(tmp_path: Path) -> None:
    assert found(only(tmp_path / "a", TIMED[:2])) == []
    (strength,) = found(only(tmp_path / "b", TIMED[1:]))
    assert [len(line.points) for line in strength.lines] == [2, 1]


def test_three_that_differ_in_nothing_that_costs_are_not(tmp_path: Path) -> None:
    run = only(tmp_path, TIMED[:3])
    alike = {
        name: replace(info, options={**info.options, "steps": 20})
        for name, info in run.manifest.attacks.items()
    }
    assert found(replace(run, manifest=replace(run.manifest, attacks=alike))) == []
    assert len(found(run)) == 1


def test_records_without_a_time_make_no_point(tmp_path: Path) -> None:
    """Those of version 0.1 have none: a logarithmic axis has no place for 0."""
    run = only(tmp_path, change=lambda c: {"attack_seconds": 0.0} if c.attack == "search" else {})
    (strength,) = found(run)
    assert [line.attack for line in strength.lines] == ["top_k"]
    timeless = tuple(replace(record, attack_seconds=0.0) for record in run.records)
    assert found(replace(run, records=timeless)) == []


def test_without_controls_there_are_no_hollow_marks(tmp_path: Path) -> None:
    run = only(tmp_path)
    alone = tuple(record for record in run.records if record.cell.role == "attack")
    (strength,) = found(replace(run, records=alone))
    assert {point.control for line in strength.lines for point in line.points} == {None}
    drawing = StrengthPlot("s", strength).draw(5.6, "wide")
    assert "random sign" not in drawing


def test_time_is_in_the_report_and_in_no_table(tmp_path: Path) -> None:
    written = {}
    for name, factor in (("a", 1.0), ("b", 3.0)):
        only(tmp_path / name, change=lambda c, f=factor: {"attack_seconds": f * len(c.attack)})  # type: ignore[misc]
        reporting.write_results(tmp_path / name)
        reporting.write_summary(tmp_path / name)
        reporting.write_report(tmp_path / name)
        written[name] = {
            file: (tmp_path / name / file).read_bytes()
            for file in ("results.csv", "summary.csv", "saved.csv", "report.html")
        }
    differing = [file for file in written["a"] if written["a"][file] != written["b"][file]]
    assert differing == ["report.html"]
    pages = [parse(written[name]["report.html"].decode()) for name in "ab"]
    for section in ("table", "saved", "transfer", "drift", "cautions", "run", "reading"):
        one, other = (page.section(section) for page in pages)
        assert (one and one.text) == (other and other.text), section


def test_the_page_says_whose_time_it_is_and_every_number(rich_page: Node, rich: Run) -> None:
    section = rich_page.section("strength")
    assert section is not None
    assert "Timings are of this machine and this run." in section.text
    point = next(s for s in found(rich) if s.epsilon == fixture.EPSILONS[1]).lines[0].points[0]
    row = section.all("table", "plain")[0].all("tbody")[0].all("tr")[0]
    assert [row.all("th")[0].text, *(cell.text for cell in row.all("td"))] == [
        *(point.label, "hessian_vector", str(point.effort), number(point.seconds)),
        *(number(point.mean), number(point.control[1]) if point.control else "–"),
    ]


def test_no_such_attacks_no_section(run: Run, folder: Path) -> None:
    assert found(run) == []
    assert 'id="strength"' not in (folder / "report.html").read_text()


def test_lines_are_named_at_their_end_and_described(rich: Run) -> None:
    strength = found(rich)[0]
    drawing = StrengthPlot("s", strength).draw(5.6, "wide")
    head = parse(drawing).all("svg")[0]
    texts = " ".join(node.text for node in head.all("text"))
    assert "top_k, hessian vector" in texts
    assert "black_box" in texts
    (desc,) = head.all("desc")
    for line in strength.lines:
        for point in line.points:
            said = (
                f"{point.label} ({line.path}): {number(point.mean)} after {number(point.seconds)} s"
            )
            assert said in desc.text
    assert StrengthPlot("s", strength).draw(5.6, "wide") == drawing
