"""Accuracy over the share of pixels that are gone: a line per order, its seeds as marks."""

import math
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.reporting import palette
from robustlab.reporting.frame import CHANCE, CHARACTER, key, lines_at_values
from robustlab.reporting.roar import RANDOM, Curve, Retrained
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import number, percent

HIGH: Final = 3.4  # inches
LEGEND: Final = 0.21  # inches per line


@dataclass(frozen=True)
class RoarPlot:
    """All curves in one panel."""

    name: str
    made: Retrained

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        with style():
            handles = [self._handle(i, curve) for i, curve in enumerate(self.made.curves)]
            longest = max(len(str(handle.get_label())) for handle in handles)
            columns = max(1, min(5, int(width / (0.5 + CHARACTER * longest))))
            head = LEGEND * math.ceil(len(handles) / columns) + 0.45
            figure = new_figure(width, head + HIGH + 0.5)
            high = figure.get_figheight()
            box = (0.55 / width, 0.5 / high, (width - 0.7) / width, HIGH / high)
            axes = figure.add_axes(box)
            for i, curve in enumerate(self.made.curves):
                self._line(axes, i, curve)
            lines_at_values(axes)
            axes.set_xticks(self.made.shares, [percent(share) for share in self.made.shares])
            axes.set_xlabel("pixels removed", fontsize=9)
            below = 1 - (head - 0.32) / high
            figure.text(
                0.0, below, "accuracy of a network trained without them", va="top", fontsize=9,
                color=palette.MUTED.light,
            )  # fmt: skip
            key(figure, handles, columns, gap=0.5)
            return inline(
                figure, name=self.name, description=self._description(), css_class=css_class
            )

    def _line(self, axes: Axes, index: int, curve: Curve) -> None:
        handle = self._handle(index, curve)
        ink, shape = handle.get_color(), handle.get_marker()
        shares = [point.share for point in curve.points]
        axes.plot(
            shares,
            [point.mean for point in curve.points],
            color=ink,
            linewidth=1.6,
            linestyle=handle.get_linestyle() if curve.order == RANDOM else "-",
        )
        for point in curve.points:
            axes.plot(
                [point.share] * len(point.accuracies),
                point.accuracies,
                color=ink,
                marker=shape,
                markersize=3.5,
                linestyle="",
            )

    def _handle(self, index: int, curve: Curve) -> Line2D:
        if curve.order == RANDOM:
            return Line2D([], [], label="random order", marker="o", markersize=4, **CHANCE)
        ink = palette.series(index).light
        return Line2D([], [], color=ink, marker=palette.marker(index), label=curve.order)

    def _description(self) -> str:
        parts = []
        for curve in self.made.curves:
            points = ", ".join(f"{percent(p.share)}: {number(p.mean)}" for p in curve.points)
            parts.append(f"{curve.order}: {points}")
        return "Accuracy by the share of pixels removed. " + "; ".join(parts) + "."
