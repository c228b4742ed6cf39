"""Drift over the budget: one panel per explainer, one line per attack, on one metric.

Solid lines are attacks with their 95 % intervals, dashed ones of the same colour their
random-sign controls. Attacks have the colours that they have in the drift plot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustlab.records import MetricInfo
from robustlab.reporting import palette
from robustlab.reporting.frame import (
    CHANCE,
    CHARACTER,
    columns_of,
    cut,
    floor,
    key,
    lines_at_values,
    panel,
    span,
)
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import budget, norm_name, number, radius, waged

PANEL: Final = 1.45  # inches high
LEFT: Final = 0.5
BETWEEN: Final = 0.42
GAP: Final = 0.62  # below a panel, for its axis and the next title
LABEL: Final = 0.56  # inches that a budget needs on the axis


@dataclass(frozen=True)
class EpsilonCurve:
    """What one drawing shows: rows of one metric and model at several budgets."""

    name: str
    label: str
    metric: MetricInfo
    rows: Sequence[SummaryRow]
    attacks: Sequence[str]
    explainers: Sequence[str]

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide, with as many panels beside each other as fit."""
        with style():
            handles = self._legend()
            key_columns, head = columns_of(handles, width)
            head += 0.4
            columns = min(len(self.explainers), 3 if width > 5 else 2)
            lines = math.ceil(len(self.explainers) / columns)
            figure = new_figure(width, head + lines * (PANEL + GAP) + 0.1)
            self._panels(figure, columns, head)
            figure.text(
                0.0,
                0.06 / figure.get_figheight(),
                f"budget ε ({norm_name(self.rows[0].norm)}, logarithmic)",
                fontsize=9,
                color=palette.MUTED.light,
            )
            key(figure, handles, key_columns, gap=0.5)
            description = self._description()
            return inline(figure, name=self.name, description=description, css_class=css_class)

    def _panels(self, figure: Figure, columns: int, head: float) -> None:
        width, height = figure.get_figwidth(), figure.get_figheight()
        wide = (width - LEFT - 0.25 - BETWEEN * (columns - 1)) / columns
        for i, explainer in enumerate(self.explainers):
            line, column = divmod(i, columns)
            left = LEFT + column * (wide + BETWEEN)
            bottom = height - head - PANEL - line * (PANEL + GAP)
            axes = panel(figure, left, bottom, wide, PANEL)
            self._panel(axes, explainer, wide)
            axes.tick_params(labelleft=column == 0)

    def _panel(self, axes: Axes, explainer: str, width: float) -> None:
        rows = [row for row in self.rows if row.explainer == explainer]
        for i, attack in enumerate(self.attacks):
            line = sorted(
                (row for row in rows if waged(row) == attack), key=lambda row: row.epsilon
            )
            _control_line(axes, line, i)
            _attack_line(axes, line, i)
        for chance in sorted({row.chance for row in rows if row.chance is not None}):
            axes.axhline(chance, **CHANCE)
        title = cut(explainer, int((width + BETWEEN) / (CHARACTER * 1.05)))
        axes.set_title(title, fontweight="bold", fontsize=9, pad=6)
        axes.set_ylim(*span(self.metric, self.rows))
        _budget_axis(axes, sorted({row.epsilon for row in self.rows}), self.rows[0].norm, width)

    def _legend(self) -> list[Line2D]:
        handles = [
            Line2D([], [], color=palette.series(i).light, marker=palette.marker(i), label=name)
            for i, name in enumerate(self.attacks)
        ]
        if any(row.control is not None for row in self.rows):
            look: dict[str, Any] = {"linestyle": (0, (2, 1.5)), "marker": "o"}
            look |= {"color": palette.TEXT.light, "markerfacecolor": palette.PAPER.light}
            handles.append(Line2D([], [], label="random sign", linewidth=1.1, markersize=5, **look))
        if any(row.chance is not None for row in self.rows):
            handles.append(floor())
        return handles

    def _description(self) -> str:
        parts = [
            f"{waged(row)} on {row.explainer} at {budget(row.norm, row.epsilon)}: "
            f"{number(row.mean)}, random sign {number(row.control)}"
            for row in self.rows
        ]
        return f"{self.label} over the budget. " + "; ".join(parts) + "."


def _attack_line(axes: Axes, rows: Sequence[SummaryRow], index: int) -> None:
    ink = palette.series(index).light
    known = [row for row in rows if row.mean is not None]
    sure = [row for row in known if row.low is not None and row.high is not None]
    axes.fill_between(
        [row.epsilon for row in sure],
        [row.low for row in sure if row.low is not None],
        [row.high for row in sure if row.high is not None],
        color=ink,
        alpha=0.16,
        linewidth=0,
    )
    axes.plot(
        [row.epsilon for row in known],
        [row.mean for row in known if row.mean is not None],
        color=ink,
        marker=palette.marker(index),
        markersize=5,
        linewidth=1.8,
        clip_on=False,
        zorder=3,
    )


def _control_line(axes: Axes, rows: Sequence[SummaryRow], index: int) -> None:
    known = [row for row in rows if row.control is not None]
    axes.plot(
        [row.epsilon for row in known],
        [row.control for row in known if row.control is not None],
        color=palette.series(index).light,
        marker=palette.marker(index),
        markersize=4.5,
        markerfacecolor=palette.PAPER.light,
        linewidth=1.1,
        linestyle=(0, (2, 1.5)),
        clip_on=False,
        zorder=2,
    )


def _budget_axis(axes: Axes, epsilons: Sequence[float], norm: str, width: float) -> None:
    """Logarithmic, labelled at the budgets that were run, as far as labels have room."""
    axes.set_xscale("log")
    low, high = epsilons[0] / 1.3, epsilons[-1] * 1.3
    axes.set_xlim(low, high)
    inches = width / math.log(high / low)
    shown: list[float] = []
    for epsilon in epsilons:
        if not shown or inches * math.log(epsilon / shown[-1]) >= LABEL:
            shown.append(epsilon)
    axes.set_xticks(shown, [radius(norm, epsilon) for epsilon in shown])
    axes.set_xticks([], minor=True)
    axes.locator_params(axis="y", nbins=5)
    lines_at_values(axes)
