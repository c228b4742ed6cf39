"""Certificates beside attacks: means by hand, and a contradiction named by its image."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from robustlab.records import ImageRow, Store
from robustlab.reporting import Run
from robustlab.reporting.certificates import Certificate, certificates
from robustlab.reporting.statistics import interval
from robustlab.reporting.wording import number
from tests.reporting import richer
from tests.reporting.page import Node

METRIC = "top_k_intersection"
Facts = Mapping[str, float]


def rows_of(run: Run) -> list[Certificate]:
    return certificates(run.records, run.manifest)


def of(
    tmp_path: Path,
    facts: Facts,
    values: tuple[float, ...] = (0.8, 0.9),
    *,
    changes: Mapping[str, Any] | None = None,
    **manifest: Any,
) -> Certificate:
    """One attack on two images, whose maps keep ``values`` of their top pixels."""
    cell = next(
        c
        for c in richer.cells()
        if (c.attack, c.budget, len(c.ids)) == ("top_k on gradient", richer.L2, 2)
    )
    images = tuple(
        replace(
            image,
            values={**image.values, "smooth_grad": {METRIC: value, "spearman": 0.0}},
            facts={"smooth_grad": dict(facts)},
            **(changes or {}),
        )
        for image, value in zip(richer.record(cell).images, values, strict=True)
    )
    store = Store(tmp_path)
    store.claim(richer.manifest([cell], **manifest))
    store.write(richer.record(cell, images=images))
    (row,) = rows_of(reporting.load(tmp_path))
    return row


def test_the_row_is_means_over_the_l2_attack(rich: Run, rich_page: Node) -> None:
    images: list[ImageRow] = [
        image
        for record in rich.records
        if record.cell.attack == "top_k on gradient" and record.cell.budget == richer.L2
        for image in record.images
    ]
    assert len(images) == 6
    overlaps = [image.facts["smooth_grad"]["certified_overlap"] or 0.0 for image in images]
    attacked = interval([image.values["smooth_grad"][METRIC] or 0.0 for image in images])
    section = rich_page.section("certificates")
    assert section is not None
    (line,) = section.all("tbody")[0].all("tr")
    assert [line.all("th")[0].text, *(cell.text for cell in line.all("td"))] == [
        "smooth_grad",
        "top_k on gradient (aimed at gradient)",
        "0.5",
        "0.500",
        f"{number(sum(overlaps) / 6)}least {number(min(overlaps))}",
        f"{number(attacked.mean)} [{number(attacked.low)}, {number(attacked.high)}]{METRIC}",
        "in none of 6 images is more certified than measured",
    ]


def test_only_l2_attacks_have_a_certificate(rich: Run) -> None:
    """The facts are in every record of that explainer, the ball in one kind only."""
    linf = [r for r in rich.records if r.cell.budget.norm == "linf"]
    assert any("certified_overlap" in i.facts.get("smooth_grad", {}) for i in linf[0].images)
    assert certificates(linf, rich.manifest) == []


def test_a_contradiction_names_its_image(tmp_path: Path) -> None:
    row = of(tmp_path, {"certified_overlap": 0.85, "certified_radius": 0.5})
    assert row.broken
    assert row.said == "photo_4: more certified than measured, a bug or a broken assumption"
    text = reporting.write_report(tmp_path).read_text()
    assert "photo_4: more certified than measured" in text


def test_rounding_is_no_contradiction(tmp_path: Path) -> None:
    facts = {"certified_overlap": 0.8 + 1e-9, "certified_radius": 0.5}
    assert not of(tmp_path, facts).broken


@pytest.mark.parametrize(
    ("facts", "changes", "reason"),
    [
        ({"certified_radius": 0.2}, {}, "the attack went beyond the certified radius"),
        ({}, {}, "the certified radius is not known"),
    ],
)
def test_other_balls_are_not_compared(
    tmp_path: Path, facts: Facts, changes: Mapping[str, Any], reason: str
) -> None:
    row = of(tmp_path, {"certified_overlap": 0.99, **facts}, changes=changes)
    assert (row.said, row.broken) == (f"not comparable: {reason}", False)


def test_an_attack_that_stayed_inside_a_smaller_ball_is_compared(tmp_path: Path) -> None:
    facts = {"certified_overlap": 0.99, "certified_radius": 0.2}
    assert of(tmp_path, facts, changes={"radius": 0.1}).broken


def metrics(*sizes: int) -> dict[str, Any]:
    known = richer.manifest(richer.cells())["metrics"]
    top = known[METRIC]
    return {
        METRIC: {**top, "options": {"k": sizes[0]}},
        "spearman": {**known["spearman"], **({} if len(sizes) < 2 else top),
                     "options": {"k": sizes[-1]}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "sizes", "metric"),
    [
        ({}, (100,), METRIC),  # nobody says k: the only one there is
        ({"certified_k": 100.0}, (100, 7), METRIC),
        ({"certified_k": 7.0}, (100, 7), "spearman"),  # here a top-k intersection of k = 7
        ({"certified_k": 8.0}, (100, 7), ""),
        ({}, (100, 7), ""),
    ],
)
def test_the_intersection_of_the_same_k_is_taken(
    tmp_path: Path, facts: Facts, sizes: tuple[int, ...], metric: str
) -> None:
    whole = {"certified_overlap": 0.5, "certified_radius": 0.5, **facts}
    row = of(tmp_path, whole, metrics=metrics(*sizes))
    assert row.metric == metric
    if not metric:
        assert row.said == "not comparable: top-k intersection of the same k was not measured"
        assert row.measured == "–"


def test_an_explainer_may_say_its_k(tmp_path: Path) -> None:
    explainers = richer.manifest(richer.cells())["explainers"]
    explainers["smooth_grad"]["options"] = {"k": 7}
    row = of(
        tmp_path,
        {"certified_overlap": 0.5, "certified_radius": 0.5},
        metrics=metrics(100, 7),
        explainers=explainers,
    )
    assert row.metric == "spearman"


def test_images_that_left_the_budget_prove_nothing(tmp_path: Path) -> None:
    facts = {"certified_overlap": 0.99, "certified_radius": 0.5}
    with pytest.raises(ValueError, match="not enough values"):
        of(tmp_path, facts, changes={"outcome": "budget_violated"})


def test_no_certificates_no_section(run: Run, folder: Path) -> None:
    assert rows_of(run) == []
    assert 'id="certificates"' not in (folder / "report.html").read_text()
