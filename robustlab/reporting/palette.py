"""Colours that colour-blind readers can tell apart, on light and on dark paper.

The series are those of Okabe and Ito (2008), most distinct first, and the dark page uses
lighter tints of the same hues. Figures are drawn in the light colours; each is replaced
by a CSS variable of the page, so that one drawing serves both.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Ink:
    """One role of a colour: its CSS variable and its value on light and dark paper."""

    name: str
    light: str
    dark: str


TEXT: Final = Ink("ink", "#1c1e22", "#e9e7e2")
MUTED: Final = Ink("muted", "#63676e", "#a2a5ab")
LINE: Final = Ink("line", "#dddad3", "#34373d")
PAPER: Final = Ink("paper", "#fdfcfa", "#15171a")
SERIES: Final = (
    Ink("series-1", "#0072b2", "#4aa8e0"),
    Ink("series-2", "#d55e00", "#f08a4b"),
    Ink("series-3", "#009e73", "#3cc29b"),
    Ink("series-4", "#cc79a7", "#e29cc2"),
    Ink("series-5", "#e69f00", "#f2b942"),
    Ink("series-6", "#56b4e9", "#8fd0f5"),
    Ink("series-7", "#7a7d83", "#b4b7bc"),
)
INKS: Final = (TEXT, MUTED, LINE, PAPER, *SERIES)

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes beside the colours: nothing is told apart by colour alone."""


def series(index: int) -> Ink:
    """Colour of the ``index``-th series; they repeat after the last."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Shape of the ``index``-th series; shifted by one in every round through the colours."""
    return MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def css(*, dark: bool) -> str:
    """The palette as CSS custom properties."""
    return " ".join(f"--{ink.name}: {ink.dark if dark else ink.light};" for ink in INKS)
