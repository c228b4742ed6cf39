"""Accuracy over the share of pixels that are gone: a line per order, its seeds as marks."""

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.reporting import palette
from robustlab.reporting.frame import CHANCE, columns_of, heading, key, lines_at_values, panel
from robustlab.reporting.roar import RANDOM, Curve, Retrained
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import number, percent

HIGH: Final = 3.4  # inches


@dataclass(frozen=True)
class RoarPlot:
    """All curves in one panel."""

    name: str
    made: Retrained

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        with style():
            handles = [self._handle(i, curve) for i, curve in enumerate(self.made.curves)]
            columns, head = columns_of(handles, width)
            figure = new_figure(width, head + 0.45 + HIGH + 0.5)
            axes = panel(figure, 0.55, 0.5, width - 0.7, HIGH)
            for i, curve in enumerate(self.made.curves):
                self._line(axes, i, curve)
            lines_at_values(axes)
            axes.set_xticks(self.made.shares, [percent(share) for share in self.made.shares])
            axes.set_xlabel("pixels removed", fontsize=9)
            heading(figure, "accuracy of a network trained without them", below=head + 0.13)
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
