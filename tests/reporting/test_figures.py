"""Figures: deterministic, in the page's colours, with every number in reach of a reader."""

import re
from dataclasses import replace

import pytest

from robustlab.reporting import Run, figures, palette, summarise
from robustlab.reporting.figures import drift_figures, epsilon_figures
from robustlab.reporting.frame import span
from robustlab.reporting.wording import number


@pytest.fixture(scope="module")
def drawings(run: Run) -> list[figures.Figure]:
    table = summarise(run)
    return drift_figures(table, run.manifest) + epsilon_figures(table, run.manifest)


def test_one_plot_and_one_curve_per_metric(drawings: list[figures.Figure], run: Run) -> None:
    assert [figure.metric for figure in drawings] == [*run.manifest.metrics, *run.manifest.metrics]


def test_one_budget_needs_no_curve(run: Run) -> None:
    table = [row for row in summarise(run) if row.epsilon < 0.003]
    assert epsilon_figures(table, run.manifest) == []


def test_drawing_again_gives_the_same_bytes(drawings: list[figures.Figure], run: Run) -> None:
    again = drift_figures(summarise(run), run.manifest)
    assert [figure.drawings for figure in again] == [f.drawings for f in drawings[: len(again)]]


def test_colours_are_the_pages_own(drawings: list[figures.Figure]) -> None:
    for figure in drawings:
        for drawing in figure.drawings:
            assert "var(--series-1)" in drawing
            assert not any(ink.light in drawing for ink in palette.INKS)
            assert "DejaVu" not in drawing
            assert "<dc:date>" not in drawing


def test_the_description_says_every_number(drawings: list[figures.Figure], run: Run) -> None:
    last = max(row.epsilon for row in summarise(run))
    described = re.search(r'aria-label="([^"]+)"', drawings[0].drawings[0])
    assert described is not None
    for row in summarise(run):
        if row.metric == drawings[0].metric and row.role == "attack" and row.epsilon == last:
            assert f"{row.explainer}, {row.attack}: {number(row.mean)}" in described[1]


def test_the_axis_holds_every_value(run: Run) -> None:
    table = [row for row in summarise(run) if row.metric == "center_shift"]
    low, high = span(run.manifest.metrics["center_shift"], table)
    assert low <= 0
    assert high >= max(row.high or 0 for row in table)


def test_a_label_with_a_dollar_sign_is_text(run: Run) -> None:
    table = [replace(row, explainer="a$b$c & <d>") for row in summarise(run)]
    drawing = drift_figures(table, run.manifest)[0].drawings[0]
    assert "a$b$c &amp; &lt;d&gt;" in drawing


def test_many_series_stay_distinct() -> None:
    looks = {(palette.series(i).name, palette.marker(i)) for i in range(49)}
    assert len(looks) == 49


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_text_has_enough_contrast(paper: str) -> None:
    """WCAG AA: 4.5 for text."""
    for ink in (palette.TEXT, palette.MUTED):
        ends = sorted(_luminance(getattr(i, paper)) for i in (ink, palette.PAPER))
        assert (ends[1] + 0.05) / (ends[0] + 0.05) > 4.5
