"""A plot with names at its right edge, each joined to its own mark by a dotted line.

Names keep the order of their marks and are moved apart just as far as letters need.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustlab.reporting.frame import CHARACTER, panel
from robustlab.reporting.palette import Ink
from robustlab.reporting.svg import new_figure

LEFT: Final = 0.5  # inches for the values beside their axis
TOP: Final = 0.62  # inches for the key and the heading


@dataclass(frozen=True)
class Names:
    """One text per mark, broken into lines, and how it is set; lengths are in inches.

    Attributes:
        line: height that one line needs.
        lines_more: lines' worth of room that each text has beside those between its lines.
        gap: from the plot to the texts.
        margin: beside the longest text, ``gap`` included.
        spacing: of the lines of a text, as matplotlib counts it.
    """

    texts: Sequence[str]
    line: float
    lines_more: float
    gap: float
    margin: float
    spacing: float

    @property
    def width(self) -> float:
        """What they take from the plot's width."""
        longest = max(len(part) for text in self.texts for part in text.split("\n"))
        return self.margin + CHARACTER * longest

    @property
    def rooms(self) -> list[float]:
        """The height that each text needs."""
        return [self.line * (text.count("\n") + self.lines_more) for text in self.texts]


@dataclass(frozen=True)
class NamedPlot:
    """A figure with axes of ``wide`` × ``high`` inches and names beside them."""

    figure: Figure
    axes: Axes
    wide: float
    high: float
    names: Names

    @classmethod
    def of(cls, names: Names, width: float, *, least: float, bottom: float) -> "NamedPlot":
        """A figure that is ``width`` inches wide, with ``bottom`` inches for the lower axis.

        The plot is ``least`` inches high, or as high as its names need.
        """
        wide, high = width - LEFT - names.width, max(least, sum(names.rooms))
        figure = new_figure(width, high + TOP + bottom)
        return cls(figure, panel(figure, LEFT, bottom, wide, high), wide, high, names)

    def places(self, values: Sequence[float]) -> list[float]:
        """Where each name stands, as a share of the height: near its mark's value."""
        low, top = self.axes.get_ylim()
        heights = [self.high * (value - low) / (top - low) for value in values]
        return [place / self.high for place in spread(heights, self.names.rooms, self.high)]

    def beside(self, inches: float) -> float:
        """The coordinate, in widths of the plot, that is so far beyond its right edge."""
        return 1 + inches / self.wide

    def name(self, index: int, mark: tuple[float, float], place: float, ink: Ink) -> None:
        """One name at its place, joined to its mark."""
        low, top = self.axes.get_ylim()
        self.axes.plot(
            [mark[0], self.axes.get_xlim()[1]],
            [mark[1], low + place * (top - low)],
            color=ink.light,
            linewidth=0.8,
            linestyle=(0, (1, 2)),
            zorder=1,
        )
        self.axes.annotate(
            self.names.texts[index],
            (self.beside(self.names.gap), place),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            linespacing=self.names.spacing,
            annotation_clip=False,
        )


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
