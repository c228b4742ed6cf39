"""What a defence costs and what it buys: one mark per model, accuracy against stability of maps.

Bars are 95 % intervals over images in both directions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.records.scores import Estimate
from robustlab.reporting import palette
from robustlab.reporting.frame import CHANCE, cut, floor, heading, key, lines_at_values
from robustlab.reporting.named_plot import NamedPlot, Names
from robustlab.reporting.svg import inline, style
from robustlab.reporting.wording import with_interval

HEIGHT: Final = 3.0  # inches of the plot itself, if names need no more
LONGEST: Final = {"wide": 26, "narrow": 13}  # characters in one line of a label
TOP: Final = 1.03  # a little above the largest share
STILL: Final[dict[str, Any]] = {
    "color": palette.SERIES[6].light,
    "linewidth": 1.1,
    "linestyle": (0, (1, 1.5)),
}
"""The look of the explainer that never moves."""


@dataclass(frozen=True)
class Point:
    """One model; ``index`` gives its colour and shape, the same in every figure."""

    label: str
    index: int
    accuracy: Estimate
    stability: Estimate


@dataclass(frozen=True)
class TradeoffPlot:
    """Natural accuracy against what is left of the maps of one explainer under one attack.

    Attributes:
        metric: label of the axis. chance: for unrelated maps. still: of the fixed map, if it
            was measured.
    """

    name: str
    title: str
    metric: str
    points: Sequence[Point]
    chance: float | None = None
    still: float | None = None

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        names = Names(
            [wrapped(point.label, LONGEST[css_class]) for point in self.points],
            line=0.165,
            lines_more=1.35,
            gap=0.2,
            margin=0.3,
            spacing=1.15,
        )
        with style():
            plot = NamedPlot.of(names, width, least=HEIGHT, bottom=0.52)
            self._scales(plot.axes, plot.wide)
            for point in self.points:
                _mark(plot.axes, point)
            self._name_points(plot)
            heading(plot.figure, self.metric)
            key(plot.figure, self._legend())
            return inline(
                plot.figure,
                name=self.name,
                description=self._description(),
                css_class=css_class,
                title=self.title,
            )

    def _scales(self, axes: Axes, wide: float) -> None:
        ends = [v for p in self.points for v in _ends(p.accuracy)]
        room = max(0.08 * (max(ends) - min(ends)), 0.01)
        axes.set_xlim(min(ends) - room, min(TOP, max(ends) + room))
        lows = [v for p in self.points for v in _ends(p.stability)]
        lows += [0.0] + [v for v in (self.chance,) if v is not None]
        axes.set_ylim(min(lows) - 0.03, TOP)
        for level, look in ((self.chance, CHANCE), (self.still, STILL)):
            if level is not None:
                axes.axhline(level, zorder=1, **look)
        axes.locator_params(axis="x", nbins=max(3, int(wide / 0.55)))
        axes.set_xlabel("natural accuracy", fontsize=9, labelpad=4, loc="left")
        lines_at_values(axes)

    def _name_points(self, plot: NamedPlot) -> None:
        """Each name with the shape of its mark before it."""
        places = plot.places([_mean(point.stability) for point in self.points])
        for i, (point, place) in enumerate(zip(self.points, places, strict=True)):
            plot.axes.plot(
                [plot.beside(0.1)],
                [place],
                transform=plot.axes.transAxes,
                clip_on=False,
                **_look(point, 4.5),
            )
            spot = (_mean(point.accuracy), _mean(point.stability))
            plot.name(i, spot, place, palette.series(point.index))

    def _legend(self) -> list[Line2D]:
        bar = {"color": palette.TEXT.light, "marker": "o", "markersize": 5.5, "linewidth": 1.4}
        handles = [Line2D([], [], label="a model, 95 %", **bar)]  # type: ignore[arg-type]
        if self.chance is not None:
            handles.append(floor())
        if self.still is not None:
            handles.append(Line2D([], [], label="fixed map", **STILL))
        return handles

    def _description(self) -> str:
        parts = [
            f"{p.label}: accuracy {with_interval(*_told(p.accuracy))}, "
            f"{self.metric} {with_interval(*_told(p.stability))}"
            for p in self.points
        ]
        return "; ".join(parts) + "."


def _mark(axes: Axes, point: Point) -> None:
    x, y = _mean(point.accuracy), _mean(point.stability)
    bar: dict[str, Any] = {
        "color": palette.series(point.index).light,
        "linewidth": 1.4,
        "alpha": 0.6,
        "solid_capstyle": "butt",
        "zorder": 2,
    }
    if len(across := _ends(point.accuracy)) > 1:
        axes.plot([across[1], across[2]], [y, y], **bar)
    if len(up := _ends(point.stability)) > 1:
        axes.plot([x, x], [up[1], up[2]], **bar)
    axes.plot([x], [y], clip_on=False, **_look(point, 6.5))


def _look(point: Point, size: float) -> dict[str, Any]:
    return {
        "marker": palette.marker(point.index),
        "markersize": size,
        "color": palette.series(point.index).light,
        "markeredgecolor": palette.PAPER.light,
        "markeredgewidth": 0.7,
        "linestyle": "none",
        "zorder": 3,
    }


def _mean(estimate: Estimate) -> float:
    return 0.0 if estimate.mean is None else estimate.mean


def _ends(estimate: Estimate) -> list[float]:
    """The mean, then both ends of its interval where it has one."""
    return [v for v in _told(estimate) if v is not None]


def _told(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.mean, estimate.low, estimate.high


def wrapped(label: str, longest: int) -> str:
    """In lines of at most ``longest`` characters, broken after spaces and signs if need be."""
    lines = [""]
    for piece in re.findall(r"[^\s_:-]+[\s_:-]*|[\s_:-]+", label):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > longest:
            lines.append("")
        lines[-1] += piece
    return "\n".join(cut(line.rstrip(), longest) for line in lines)
