"""The worlds of a multiverse as a picture: a column per world, a row per explainer.

The darker a cell, the better its explainer's place in that world; a dot stands where an
explainer is first. Below, a band per choice says what each world chose. Specification curves of
Simonsohn, Simmons & Nelson 2020 are drawn so, with an estimate where here is a place.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from robustlab.reporting import palette
from robustlab.reporting.frame import CHARACTER, cut, heading, panel, row_name
from robustlab.reporting.multiverse import Multiverse, World
from robustlab.reporting.svg import inline, new_figure, style

ROW: Final = 0.3  # inches
GAP: Final = 0.45  # rows, between places and choices
LABELS: Final = {"wide": 1.7, "narrow": 1.1}  # inches, at most
DARKEST: Final = 0.9
SHADES: Final = (0.42, 0.14, 0.28, 0.07, 0.35, 0.21)  # opacity of a choice's values, in turn


@dataclass(frozen=True)
class MultiversePlot:
    """One multiverse drawn."""

    name: str
    made: Multiverse

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing, ``width`` inches wide."""
        made = self.made
        names = [*made.explainers, *(axis.name for axis in made.axes)]
        left = min(0.2 + CHARACTER * max(map(len, names)), LABELS[css_class])
        high = len(names) + GAP
        with style():
            figure = new_figure(width, ROW * high + 0.3)
            wide = width - left - 0.05
            axes = panel(figure, left, 0.05, wide, ROW * high)
            worlds = self._sorted()
            fair = wide / len(worlds)
            axes.set(xlim=(0, len(worlds)), ylim=(high, 0))
            axes.set_axis_off()
            for y, name in enumerate(made.explainers):
                self._places(axes, worlds, name, y)
            for y, axis in enumerate(made.axes, start=len(made.explainers)):
                self._band(axes, worlds, axis.name, axis.values, y + GAP, fair)
            self._row_names(axes, int((left - 0.12) / CHARACTER))
            heading(figure, "dark: first · pale: last · dot: first of all", below=0, size=8.5)
            return inline(
                figure, name=self.name, description=self._description(), css_class=css_class,
                title=f"Places of explainers in {len(worlds)} worlds",
            )  # fmt: skip

    def _sorted(self) -> list[World]:
        axes = self.made.axes
        return sorted(
            self.made.worlds,
            key=lambda world: [axis.values.index(world.choices[axis.name]) for axis in axes],
        )

    def _places(self, axes: Axes, worlds: list[World], name: str, y: int) -> None:
        for x, world in enumerate(worlds):
            if name not in world.order:
                continue
            place, last = world.order.index(name), max(1, len(world.order) - 1)
            ink = palette.series(0).light
            strength = DARKEST * (1 - place / last)
            axes.add_patch(Rectangle((x, y + 0.06), 1, 0.88, facecolor=ink, alpha=strength))
            if place == 0:
                axes.plot(x + 0.5, y + 0.5, ".", color=palette.PAPER.light, markersize=3)
        frame = Rectangle((0, y + 0.06), len(worlds), 0.88, fill=False, linewidth=0.7)
        frame.set_edgecolor(palette.LINE.light)
        axes.add_patch(frame)

    def _band(
        self,
        axes: Axes,
        worlds: list[World],
        name: str,
        values: tuple[str, ...],
        y: float,
        wide: float,
    ) -> None:
        """One shade per value, and its name where there is room; a world is ``wide`` inches."""
        x = 0
        for value, run in groupby(worlds, key=lambda world: world.choices[name]):
            length = len(list(run))
            shade = SHADES[values.index(value) % len(SHADES)]
            spot = (x, y + 0.12)
            axes.add_patch(
                Rectangle(spot, length, 0.76, facecolor=palette.series(6).light, alpha=shade)
            )
            room = int((length * wide - 0.04) / (CHARACTER * 0.85))
            if room >= min(len(value), 5):
                axes.text(
                    x + length / 2, y + 0.5, cut(value, room), ha="center", va="center_baseline",
                    fontsize=7.5,
                )  # fmt: skip
            x += length

    def _row_names(self, axes: Axes, room: int) -> None:
        explainers, choices = self.made.explainers, self.made.axes
        rows = [(name, float(y)) for y, name in enumerate(explainers)]
        rows += [(c.name, y + GAP) for y, c in enumerate(choices, start=len(explainers))]
        for name, y in rows:
            ink = palette.TEXT if name in explainers else palette.MUTED
            row_name(axes, cut(name, room), y, ink)

    def _description(self) -> str:
        made = self.made
        parts = []
        for name in made.explainers:
            places = [world.order.index(name) + 1 for world in made.worlds if name in world.order]
            mean = sum(places) / len(places)
            parts.append(f"{name}: places {min(places)} to {max(places)}, on average {mean:.1f}")
        return "; ".join(parts) + "."
