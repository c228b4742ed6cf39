"""How far every explainer moved under every attack, on one metric and one budget.

A filled mark is the attack, a hollow one its random-sign control, whiskers are 95 %
intervals over images, and a dashed line is what two unrelated maps would score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.records import MetricInfo
from robustlab.reporting import palette
from robustlab.reporting.frame import CHANCE, CHARACTER, axis_label, cut, key, marks, span
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import attack_name, number, waged, with_interval

ROW: Final = 0.27  # inches
BESIDE: Final = 0.12  # rows that attack and control stand apart, so that neither hides
MANY: Final = 40


@dataclass(frozen=True)
class DriftPlot:
    """What one drawing shows: rows of one metric, model and budget, by explainer."""

    name: str
    label: str
    metric: MetricInfo
    rows: Sequence[SummaryRow]
    attacks: Sequence[str]

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        groups = list(dict.fromkeys(row.explainer for row in self.rows))
        lines = len(self.rows) + len(groups)
        top, bottom = 0.42, 0.62
        height = lines * ROW + top + bottom
        names = [attack_name(row) for row in self.rows]
        longest = max(len(name) for name in [*names, *(g[:26] for g in groups)])
        left = min(0.25 + CHARACTER * longest, 0.46 * width)
        right = 0.55
        with style():
            figure = new_figure(width, height)
            box = (left / width, bottom / height, 1 - (left + right) / width)
            axes = figure.add_axes((*box, lines * ROW / height))
            self._rows(axes, groups, int((left - 0.2) / CHARACTER))
            self._scale(axes, lines)
            axes.set_xlabel(axis_label(self.label, self.metric), fontsize=9, labelpad=6)
            key(figure, self._legend())
            return inline(
                figure, name=self.name, description=self._description(), css_class=css_class
            )

    def _rows(self, axes: Axes, groups: Sequence[str], room: int) -> None:
        ticks, labels, y = [], [], 0
        for group in groups:
            ticks.append(y)
            labels.append(cut(group, room))
            y += 1
            for row in (row for row in self.rows if row.explainer == group):
                self._row(axes, row, y)
                ticks.append(y)
                labels.append(cut(attack_name(row), room))
                y += 1
        axes.set_yticks(ticks, labels)
        for label, text in zip(axes.get_yticklabels(), labels, strict=True):
            heading = text in {cut(group, room) for group in groups}
            label.set_fontweight("bold" if heading else "normal")
            label.set_fontsize(9.5 if heading else 9)
        axes.tick_params(axis="both", length=0, pad=6)

    def _row(self, axes: Axes, row: SummaryRow, y: int) -> None:
        index = self.attacks.index(waged(row)) if waged(row) in self.attacks else 0
        ink, shape = palette.series(index).light, palette.marker(index)
        if row.control is not None:
            floor = row.control, row.control_low, row.control_high
            _mark(axes, y + BESIDE, floor, ink, shape, hollow=True)
        if row.mean is not None:
            _mark(axes, y - BESIDE, (row.mean, row.low, row.high), ink, shape, hollow=False)
        axes.annotate(
            number(row.mean),
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=palette.MUTED.light,
        )

    def _scale(self, axes: Axes, lines: int) -> None:
        axes.set_ylim(lines - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(*span(self.metric, self.rows))
        for chance in sorted({row.chance for row in self.rows if row.chance is not None}):
            axes.axvline(chance, **CHANCE)

    def _legend(self) -> list[Line2D]:
        return marks(
            control=any(row.control is not None for row in self.rows),
            chance=any(row.chance is not None for row in self.rows),
            inside="none",
        )

    def _description(self) -> str:
        parts = [
            f"{row.explainer}, {attack_name(row)}: {with_interval(row.mean, row.low, row.high)}, "
            f"random sign {number(row.control)}"
            for row in self.rows
        ]
        return f"{self.label} by explainer and attack. " + "; ".join(parts) + "."


def _mark(
    axes: Axes,
    y: float,
    values: tuple[float, float | None, float | None],
    ink: str,
    shape: str,
    *,
    hollow: bool,
) -> None:
    middle, low, high = values
    if low is not None and high is not None:
        axes.plot(
            [low, high], [y, y], color=ink, linewidth=1.0 if hollow else 2.2, alpha=0.75, zorder=2
        )
    axes.plot(
        [middle],
        [y],
        marker=shape,
        markersize=6 if hollow else 6.5,
        color=ink,
        markerfacecolor=palette.PAPER.light if hollow else ink,
        markeredgewidth=1.2,
        zorder=3,
    )
