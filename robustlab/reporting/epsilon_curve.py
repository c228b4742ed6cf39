"""Drift over the budget: one panel per attack, one line per explainer, on one metric.

Solid lines are the attack with its 95 % interval, dashed ones its random-sign control.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.records import MetricInfo
from robustlab.reporting import palette
from robustlab.reporting.drift_plot import span
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import budget, norm_name, number

PANEL: Final = 1.95  # inches high
CLOSEST: Final = 0.34  # inches between two labels of the axis


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
        """The drawing, ``width`` inches wide, with two panels beside each other if they fit."""
        columns = min(len(self.attacks), 2 if width > 5 else 1)
        panel_rows = math.ceil(len(self.attacks) / columns)
        legend_rows = math.ceil((len(self.explainers) + 2) / _legend_columns(width))
        head, gap, foot = 0.22 * legend_rows + 0.18, 0.45, 0.5
        height = head + foot + panel_rows * (PANEL + gap)
        left, between = 0.5, 0.35
        panel_width = (width - left - 0.12 - between * (columns - 1)) / columns
        with style():
            figure = new_figure(width, height)
            for i, attack in enumerate(self.attacks):
                row, column = divmod(i, columns)
                x = left + column * (panel_width + between)
                y = height - head - gap + 0.12 - PANEL - row * (PANEL + gap)
                box = (x / width, y / height, panel_width / width, PANEL / height)
                axes = figure.add_axes(box)
                self._panel(axes, attack, panel_width)
                if column:
                    axes.tick_params(labelleft=False)
            figure.text(
                0.02,
                0.08 / height,
                f"budget ε ({norm_name(self.rows[0].norm)}, logarithmic)",
                fontsize=9,
                color=palette.MUTED.light,
            )
            figure.legend(
                handles=self._legend(),
                loc="upper left",
                bbox_to_anchor=(0.0, 1.0),
                ncols=_legend_columns(width),
                fontsize=9,
                handletextpad=0.5,
                columnspacing=1.4,
                borderaxespad=0.2,
            )
            description = self._description()
            return inline(figure, name=self.name, description=description, css_class=css_class)

    def _panel(self, axes: Axes, attack: str, width: float) -> None:
        rows = [row for row in self.rows if row.attack == attack]
        for i, explainer in enumerate(self.explainers):
            line = sorted(
                (row for row in rows if row.explainer == explainer), key=lambda row: row.epsilon
            )
            _attack_line(axes, line, i)
            _control_line(axes, line, i)
        for chance in sorted({row.chance for row in rows if row.chance is not None}):
            axes.axhline(chance, color=palette.MUTED.light, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_title(attack, fontweight="bold", pad=7)
        axes.set_ylim(*span(self.metric, self.rows))
        _budget_axis(axes, sorted({row.epsilon for row in self.rows}), self.rows[0].norm, width)

    def _legend(self) -> list[Line2D]:
        handles = [
            Line2D([], [], color=palette.series(i).light, marker=palette.marker(i), label=name)
            for i, name in enumerate(self.explainers)
        ]
        if any(row.control is not None for row in self.rows):
            look: dict[str, Any] = {"linestyle": (0, (2, 1.5)), "marker": "o"}
            look |= {"color": palette.TEXT.light, "markerfacecolor": palette.PAPER.light}
            handles.append(Line2D([], [], label="random sign", linewidth=1.1, markersize=5, **look))
        if any(row.chance is not None for row in self.rows):
            dashes: dict[str, Any] = {
                "color": palette.MUTED.light,
                "linewidth": 1.1,
                "linestyle": (0, (4, 3)),
            }
            handles.append(Line2D([], [], label="chance", **dashes))
        return handles

    def _description(self) -> str:
        parts = [
            f"{row.attack} on {row.explainer} at {budget(row.norm, row.epsilon)}: "
            f"{number(row.mean)}, random sign {number(row.control)}"
            for row in self.rows
        ]
        return f"{self.label} over the budget. " + "; ".join(parts) + "."


def _legend_columns(width: float) -> int:
    return 5 if width > 5 else 2


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
        markersize=5.5,
        linewidth=1.9,
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
        markersize=5,
        markerfacecolor=palette.PAPER.light,
        linewidth=1.1,
        linestyle=(0, (2, 1.5)),
        clip_on=False,
        zorder=2,
    )


def _budget_axis(axes: Axes, epsilons: Sequence[float], norm: str, width: float) -> None:
    """Logarithmic, labelled at the budgets that were run, as far as labels have room."""
    axes.set_xscale("log")
    low, high = epsilons[0] / 1.25, epsilons[-1] * 1.25
    axes.set_xlim(low, high)
    inches = width / math.log(high / low)
    shown: list[float] = []
    for epsilon in epsilons:
        if not shown or inches * math.log(epsilon / shown[-1]) >= CLOSEST + 0.2:
            shown.append(epsilon)
    axes.set_xticks(shown, [budget(norm, epsilon) for epsilon in shown])
    axes.set_xticks([], minor=True)
    axes.grid(visible=False, axis="x")
    axes.grid(visible=True, axis="y")
    axes.tick_params(axis="both", length=0, pad=6, labelcolor=palette.MUTED.light)
    axes.spines["left"].set_visible(False)
