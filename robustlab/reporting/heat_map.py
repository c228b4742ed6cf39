"""A transfer matrix as a picture: the darker a cell, the further that map has moved.

The colour is the page's own blue over its own paper, so that one drawing serves light and
dark pages; it stays pale enough for the numbers on it to be read on both.
"""

import math
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from robustlab.reporting import palette
from robustlab.reporting.frame import CHARACTER, cut, heading, panel, row_name
from robustlab.reporting.svg import inline, new_figure, style
from robustlab.reporting.transfer import Matrix
from robustlab.reporting.wording import number

STRONGEST: Final = 0.55  # opacity of a map at chance: with more, numbers lose their contrast
CELL: Final = (0.56, 0.34)  # inches, at least
ROOMY: Final = 1.08  # inches, at most
GAP: Final = 0.35  # cells between the attack's rows and random sign
TILT: Final = 40  # degrees, of column names that are wider than their column
LABELS: Final = {"wide": 2.4, "narrow": 1.2}  # inches, at most, for the rows' names


@dataclass(frozen=True)
class HeatMap:
    """One matrix drawn: rows say what the attack was made on, columns what was measured."""

    name: str
    matrix: Matrix

    def draw(self, width: float, css_class: str) -> Markup:
        """The drawing; wider than ``width`` inches where its columns need it."""
        matrix = self.matrix
        names = [name for name, _ in matrix.lines]
        left = min(0.2 + CHARACTER * max(map(len, names)), LABELS[css_class])
        fair = (width - left - 0.1) / len(matrix.columns)
        cell = min(ROOMY, max(CELL[0], fair))
        longest = max(len(name) for name in matrix.columns)
        tilted = CHARACTER * min(longest, 26) > cell - 0.06
        lean = CHARACTER * min(longest, 26)
        top = 0.3 + (lean * math.sin(math.radians(TILT)) + 0.1 if tilted else 0.26)
        right = max(0.1, lean * math.cos(math.radians(TILT)) - cell / 2) if tilted else 0.1
        high = len(names) + (GAP if matrix.control else 0.0)
        with style():
            box = (left + cell * len(matrix.columns) + right, top + CELL[1] * high + 0.08)
            figure = new_figure(*box)
            axes = panel(figure, left, 0.08, cell * len(matrix.columns), CELL[1] * high)
            axes.set(xlim=(0, len(matrix.columns)), ylim=(high, 0))
            axes.set_axis_off()
            self._cells(axes)
            self._row_names(axes, int((left - 0.12) / CHARACTER))
            self._column_names(axes, tilted)
            explainers = matrix.between == "explainers"
            words = "made against ↓   measured on →" if explainers else "made on ↓   judged on →"
            heading(figure, words, below=0.04, size=8.5)
            return inline(
                figure,
                name=self.name,
                description=self._description(),
                css_class=css_class,
                title=f"{matrix.title}: transfer between {matrix.between}",
            )

    def _cells(self, axes: Axes) -> None:
        for (name, values), y in zip(self.matrix.lines, self._places(), strict=True):
            for x, (column, value) in enumerate(zip(self.matrix.columns, values, strict=True)):
                moved = self.matrix.moved(value) or 0.0
                fill = palette.series(0).light
                spot: tuple[float, float] = (x + 0.02, y + 0.03)
                if moved > 0:
                    axes.add_patch(
                        Rectangle(spot, 0.96, 0.94, facecolor=fill, alpha=STRONGEST * moved)
                    )
                own = name == column and y < len(self.matrix.rows)
                edge = palette.TEXT.light if own else palette.LINE.light
                line = 1.3 if own else 0.7
                axes.add_patch(
                    Rectangle(spot, 0.96, 0.94, fill=False, edgecolor=edge, linewidth=line)
                )
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    number(value),
                    ha="center",
                    va="center_baseline",
                    fontsize=9,
                    fontweight="bold" if own else "normal",
                )

    def _places(self) -> list[float]:
        """Top of every row, in cells; random sign stands apart."""
        places = [float(i) for i in range(len(self.matrix.rows))]
        return [*places, len(places) + GAP] if self.matrix.control else places

    def _row_names(self, axes: Axes, room: int) -> None:
        for (name, _), y in zip(self.matrix.lines, self._places(), strict=True):
            ink = palette.TEXT if y < len(self.matrix.rows) else palette.MUTED
            row_name(axes, cut(name, room), y, ink)

    def _column_names(self, axes: Axes, tilted: bool) -> None:
        for x, name in enumerate(self.matrix.columns):
            axes.annotate(
                cut(name, 26),
                (x + 0.5, 0),
                xytext=(-3 if tilted else 0, 5),
                textcoords="offset points",
                ha="left" if tilted else "center",
                va="bottom",
                rotation=TILT if tilted else 0,
                rotation_mode="anchor",
                fontsize=9,
            )

    def _description(self) -> str:
        made = "against" if self.matrix.between == "explainers" else "on"
        parts = []
        for name, values in self.matrix.lines:
            cells = zip(self.matrix.columns, values, strict=True)
            numbers = ", ".join(f"{column} {number(value)}" for column, value in cells)
            opening = "random sign" if values is self.matrix.control else f"made {made} {name}"
            parts.append(f"{opening}: {numbers}")
        return f"{self.matrix.caption} " + "; ".join(parts) + "."
