"""What figures have around their marks: the key on top, the axis of values, the floor of chance.

Lengths are in inches.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustlab.records import MetricInfo
from robustlab.reporting import palette
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import praise

CHARACTER: Final = 0.078  # inches, of the widest label
CHANCE: Final[dict[str, Any]] = {
    "color": palette.MUTED.light,
    "linewidth": 1.1,
    "linestyle": (0, (4, 3)),
}
"""The look of the chance floor in every figure."""
LINE: Final = 0.21  # inches, of the key's text


def panel(figure: Figure, left: float, bottom: float, wide: float, high: float) -> Axes:
    """Axes of ``wide`` × ``high``, so far from the figure's own lower left corner."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def marks(*, control: bool, chance: bool, inside: str = palette.PAPER.light) -> list[Line2D]:
    """For the key: an attack, and its random sign and chance if there are any.

    ``inside`` is the colour of a hollow mark.
    """
    look: dict[str, Any] = {"color": palette.TEXT.light, "marker": "o", "markersize": 6}
    look["linestyle"] = "none"
    hollow = Line2D([], [], label="random sign", markerfacecolor=inside, **look)
    return [
        Line2D([], [], label="attack", **look),
        *([hollow] if control else []),
        *([floor()] if chance else []),
    ]


def floor() -> Line2D:
    """For the key: chance."""
    return Line2D([], [], label="chance", **CHANCE)


def columns_of(handles: Sequence[Line2D], width: float) -> tuple[int, float]:
    """How many columns of a long key fit beside each other, and how high it is then."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(5, int(width / (0.5 + CHARACTER * longest))))
    return columns, LINE * math.ceil(len(handles) / columns)


def key(figure: Figure, handles: list[Line2D], columns: int = 3, gap: float = 0.4) -> None:
    """What the marks mean, in the upper left corner; ``gap`` letters from a mark to its words."""
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        fontsize=9,
        handletextpad=gap,
        columnspacing=1.4,
        borderaxespad=0.0,
        borderpad=0.2,
    )


def heading(figure: Figure, words: str, below: float = 0.33, size: float = 9) -> None:
    """What the plot's values are, so far from the top: by default below a key of one line."""
    top = 1 - below / figure.get_figheight()
    figure.text(0.0, top, words, va="top", fontsize=size, color=palette.MUTED.light)


def row_name(axes: Axes, name: str, y: float, ink: palette.Ink) -> None:
    """A name to the left of a table's row, whose upper end is ``y``."""
    axes.annotate(
        name,
        (0, y + 0.5),
        xytext=(-7, 0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        fontsize=9,
        color=ink.light,
    )


def lines_at_values(axes: Axes) -> None:
    """Values are read off pale lines across the plot, without ticks or an axis at the left."""
    axes.grid(visible=False, axis="x")
    axes.grid(visible=True, axis="y")
    axes.tick_params(axis="both", length=0, pad=6, labelsize=9, labelcolor=palette.MUTED.light)
    axes.spines["left"].set_visible(False)


def axis_label(label: str, metric: MetricInfo) -> str:
    """The metric and which way is better, if any."""
    if metric.of_map_alone:
        return label
    return f"{label} ({'higher' if metric.higher_is_more_stable else 'lower'} = {praise(metric)})"


def span(metric: MetricInfo, rows: Sequence[SummaryRow]) -> tuple[float, float]:
    """Axis limits: the metric's own bounds, without the negative half where nothing is."""
    ends = [
        value
        for row in rows
        for value in (row.mean, row.low, row.high, row.control_low, row.control_high, row.chance)
        if value is not None
    ]
    lowest, highest = min(ends, default=0.0), max(ends, default=1.0)
    low, high = metric.bounds
    bottom = low if low is not None else min(0.0, lowest * 1.08)
    if bottom < 0 <= lowest:
        bottom = 0.0
    top = high if high is not None else max(highest * 1.08, bottom + 1e-9)
    margin = 0.015 * (top - bottom)
    return bottom - margin, top + margin


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` characters."""
    return text if len(text) <= room else text[: max(3, room - 1)].rstrip() + "…"
