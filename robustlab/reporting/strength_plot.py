"""Attacks by what they cost and what they did: one line per attack and path to its gradient."""

import math
import textwrap
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.reporting import palette
from robustlab.reporting.frame import CHANCE, axis_label, heading, key, lines_at_values, marks
from robustlab.reporting.named_plot import NamedPlot, Names
from robustlab.reporting.strength import Line, Strength
from robustlab.reporting.svg import inline, style
from robustlab.reporting.wording import number

HEIGHT: Final = 2.6  # inches of the plot itself, if names need no more
TICK: Final = 0.36  # inches from one time on the axis to the next
LONGEST: Final = {"wide": 20, "narrow": 13}  # characters in one line of a label


@dataclass(frozen=True)
class StrengthPlot:
    """Seconds per image against the mean of one metric, each line named at its end."""

    name: str
    strength: Strength

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        lines = self.strength.lines
        names = Names(
            [_label(line, LONGEST[css_class]) for line in lines],
            line=0.17,
            lines_more=1.4,
            gap=0.08,
            margin=0.2,
            spacing=1.2,
        )
        with style():
            plot = NamedPlot.of(names, width, least=HEIGHT, bottom=0.55)
            for i, line in enumerate(lines):
                _draw(plot.axes, line, i)
            self._scales(plot.axes, plot.high, plot.wide)
            ends = [line.points[-1] for line in lines]
            for i, place in enumerate(plot.places([end.mean for end in ends])):
                plot.name(i, (ends[i].seconds, ends[i].mean), place, palette.series(i))
            heading(plot.figure, axis_label(self.strength.metric, self.strength.info))
            key(plot.figure, self._legend())
            return inline(
                plot.figure,
                name=self.name,
                description=self._description(),
                css_class=css_class,
                title=f"{self.strength.explainer}: strength of attacks against their time",
            )

    def _scales(self, axes: Axes, high: float, wide: float) -> None:
        points = [point for line in self.strength.lines for point in line.points]
        times = [p.seconds for p in points] + [p.control[0] for p in points if p.control]
        values = [p.mean for p in points] + [p.control[1] for p in points if p.control]
        values += [self.strength.chance] if self.strength.chance is not None else []
        low, top = self.strength.info.bounds
        bottom = min([*values, 0.0]) if low is None or low < 0 else low
        upper = top if top is not None else max(values) * 1.08 or 1.0
        margin = 0.03 * (upper - bottom)
        axes.set_ylim(bottom - margin, upper + margin)
        if self.strength.chance is not None:
            axes.axhline(self.strength.chance, **CHANCE)
        axes.set_xscale("log")
        first, last = min(times) / 1.35, max(times) * 1.35
        axes.set_xlim(first, last)
        _time_axis(axes, first, last, wide)
        axes.set_xlabel("seconds per image (logarithmic)", fontsize=9, labelpad=4, loc="left")
        axes.locator_params(axis="y", nbins=max(3, int(high / 0.45)))
        lines_at_values(axes)

    def _legend(self) -> list[Line2D]:
        return marks(
            control=any(point.control for line in self.strength.lines for point in line.points),
            chance=self.strength.chance is not None,
        )

    def _description(self) -> str:
        parts = [
            f"{point.label} ({line.path or 'no gradient'}): {number(point.mean)} after "
            f"{number(point.seconds)} s"
            + (f", random sign {number(point.control[1])}" if point.control else "")
            for line in self.strength.lines
            for point in line.points
        ]
        return f"{self.strength.metric} of {self.strength.explainer}. " + "; ".join(parts) + "."


def _label(line: Line, longest: int) -> str:
    told = line.path in ("", line.attack)
    words = line.attack if told else f"{line.attack}, {line.path.replace('_', ' ')}"
    return "\n".join(textwrap.wrap(words, longest))


def _draw(axes: Axes, line: Line, index: int) -> None:
    ink, shape = palette.series(index).light, palette.marker(index)
    axes.plot(
        [point.seconds for point in line.points],
        [point.mean for point in line.points],
        color=ink,
        marker=shape,
        markersize=5.5,
        linewidth=1.8,
        clip_on=False,
        zorder=3,
    )
    known = [point.control for point in line.points if point.control]
    axes.plot(
        [seconds for seconds, _ in known],
        [mean for _, mean in known],
        color=ink,
        marker=shape,
        markersize=5.5,
        markerfacecolor=palette.PAPER.light,
        linestyle="none",
        clip_on=False,
        zorder=2,
    )


def _time_axis(axes: Axes, first: float, last: float, wide: float) -> None:
    """Ticks at powers of ten, then at 5 and 2 times those, as far as labels have room."""
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    shown: list[float] = []
    for tick in (step * 10.0**power for step in (1, 5, 2) for power in powers):
        apart = [abs(math.log(tick / other)) for other in shown]
        room = wide * min(apart, default=math.inf) / math.log(last / first)
        if first <= tick <= last and room >= TICK:
            shown.append(tick)
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_xticks([], minor=True)
