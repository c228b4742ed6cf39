"""Attacks by what they cost and what they did: one line per attack and path to its gradient."""

import math
import textwrap
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robustlab.reporting import palette
from robustlab.reporting.drift_plot import CHANCE, CHARACTER, axis_label
from robustlab.reporting.strength import Line, Strength
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.wording import number

HEIGHT: Final = 2.6  # inches of the plot itself
LETTER: Final = 0.17  # inches that one line of a label needs
TICK: Final = 0.36  # inches from one time on the axis to the next
LONGEST: Final = {"wide": 20, "narrow": 13}  # characters in one line of a label


@dataclass(frozen=True)
class StrengthPlot:
    """Seconds per image against the mean of one metric, each line named at its end."""

    name: str
    strength: Strength

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        labels = [_label(line, LONGEST[css_class]) for line in self.strength.lines]
        longest = max(len(part) for label in labels for part in label.split("\n"))
        left, right, top, bottom = 0.5, 0.2 + CHARACTER * longest, 0.62, 0.55
        needed = LETTER * sum(label.count("\n") + 1.4 for label in labels)
        high = max(HEIGHT, needed)
        with style():
            figure = new_figure(width, high + top + bottom)
            whole = figure.get_figheight()
            box = (left / width, bottom / whole, (width - left - right) / width, high / whole)
            axes = figure.add_axes(box)
            for i, line in enumerate(self.strength.lines):
                _draw(axes, line, i)
            self._scales(axes, high, width - left - right)
            self._name_lines(axes, labels, high, width - left - right)
            figure.text(
                0.0,
                1 - 0.33 / whole,
                axis_label(self.strength.metric, self.strength.info),
                va="top",
                fontsize=9,
                color=palette.MUTED.light,
            )
            figure.legend(
                handles=self._legend(),
                loc="upper left",
                bbox_to_anchor=(0.0, 1.0),
                ncols=3,
                fontsize=9,
                handletextpad=0.4,
                columnspacing=1.4,
                borderaxespad=0.0,
                borderpad=0.2,
            )
            title = f"{self.strength.explainer}: strength of attacks against their time"
            description = self._description()
            return inline(
                figure, name=self.name, description=description, css_class=css_class, title=title
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
        axes.grid(visible=False, axis="x")
        axes.grid(visible=True, axis="y")
        axes.locator_params(axis="y", nbins=max(3, int(high / 0.45)))
        axes.tick_params(axis="both", length=0, pad=6, labelsize=9, labelcolor=palette.MUTED.light)
        axes.spines["left"].set_visible(False)

    def _name_lines(self, axes: Axes, labels: list[str], high: float, wide: float) -> None:
        """Names beside the last points, moved apart just as far as letters need."""
        low, top = axes.get_ylim()
        ends = [line.points[-1] for line in self.strength.lines]
        heights = [high * (end.mean - low) / (top - low) for end in ends]
        rooms = [LETTER * (label.count("\n") + 1.4) for label in labels]
        for i, place in enumerate(spread(heights, rooms, high)):
            end, y = ends[i], low + place / high * (top - low)
            axes.plot(
                [end.seconds, axes.get_xlim()[1]],
                [end.mean, y],
                color=palette.series(i).light,
                linewidth=0.8,
                linestyle=(0, (1, 2)),
                zorder=1,
            )
            axes.annotate(
                labels[i],
                (1 + 0.08 / wide, place / high),
                xycoords="axes fraction",
                va="center",
                fontsize=9,
                linespacing=1.2,
                annotation_clip=False,
            )

    def _legend(self) -> list[Line2D]:
        ink, paper = palette.TEXT.light, palette.PAPER.light
        plain = {"color": ink, "marker": "o", "markersize": 6, "linestyle": "none"}
        handles = [Line2D([], [], label="attack", **plain)]  # type: ignore[arg-type]
        if any(point.control for line in self.strength.lines for point in line.points):
            handles.append(
                Line2D([], [], label="random sign", markerfacecolor=paper, **plain)  # type: ignore[arg-type]
            )
        if self.strength.chance is not None:
            handles.append(Line2D([], [], label="chance", **CHANCE))
        return handles

    def _description(self) -> str:
        parts = [
            f"{point.label} ({line.path or 'no gradient'}): {number(point.mean)} after "
            f"{number(point.seconds)} s"
            + (f", random sign {number(point.control[1])}" if point.control else "")
            for line in self.strength.lines
            for point in line.points
        ]
        return f"{self.strength.metric} of {self.strength.explainer}. " + "; ".join(parts) + "."


def spread(wanted: list[float], rooms: list[float], high: float) -> list[float]:
    """Centres as near to those wanted as labels of these heights allow, within 0..high.

    Labels keep the order of their lines. Going up, each is pushed above the one below it;
    going down, each is pushed below the one above it or the upper end.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = list(wanted)
    floor = 0.0
    for i in order:
        places[i] = max(places[i], floor + rooms[i] / 2)
        floor = places[i] + rooms[i] / 2
    ceiling = high
    for i in reversed(order):
        places[i] = min(places[i], ceiling - rooms[i] / 2)
        ceiling = places[i] - rooms[i] / 2
    return places


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
