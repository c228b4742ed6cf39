"""Matplotlib figures as inline SVG: deterministic, themeable and with real text."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustlab.reporting.palette import INKS, LINE, MUTED, TEXT

STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: selectable, in the page's own font
    "svg.hashsalt": "robustlab",  # identifiers are random without it
    "font.size": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # measured with it; it comes with matplotlib
    "text.color": TEXT.light,
    "axes.edgecolor": LINE.light,
    "axes.labelcolor": MUTED.light,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "grid.color": LINE.light,
    "grid.linewidth": 0.7,
    "xtick.color": LINE.light,
    "ytick.color": LINE.light,
    "xtick.labelcolor": MUTED.light,
    "ytick.labelcolor": TEXT.light,
    "legend.frameon": False,
    "legend.labelcolor": TEXT.light,
    "text.parse_math": False,  # a label may hold a dollar sign
}

WEIGHTS: Final = {"bold": "600", "600": "600"}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style, whatever the user's own matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, without pyplot and its global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def inline(
    figure: Figure, *, name: str, description: str, css_class: str, title: str = ""
) -> Markup:
    """The figure as an ``<svg>`` element for a page.

    Args:
        figure: drawn within ``style()``.
        name: prefix of its identifiers; must be unique on the page.
        description: what a reader who cannot see it must know.
        css_class: class of the element.
        title: its name, where the description is too long to be one.
    """
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's own fonts may have it
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, flags=re.DOTALL)
    drawing = _scoped(_themed(drawing), name)
    said = (
        f'aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
        if title
        else f'aria-label="{escape(description)}"'
    )
    head = (
        f'<svg class="{escape(css_class)}" role="img" {said} '
        f'viewBox="{_attribute(drawing, "viewBox")}"'
        f' width="{_pixels(drawing, "width")}" height="{_pixels(drawing, "height")}">'
    )
    if title:
        head += f'<title id="{name}-title">{escape(title)}</title>'
        head += f'<desc id="{name}-desc">{escape(description)}</desc>'
    body = drawing[drawing.index(">") + 1 :].strip()
    return Markup(head + body)  # noqa: S704 - matplotlib escapes text, the head is escaped


def _themed(drawing: str) -> str:
    """Colours become the page's variables, and text takes the page's font."""
    for ink in INKS:
        drawing = drawing.replace(ink.light, f"var(--{ink.name})")
    drawing = re.sub(
        r"font: (?:(bold|600|normal|400) )?([\d.]+px) [^;\"]*",
        lambda found: f"font-size: {found[2]}; font-weight: {WEIGHTS.get(found[1], '400')}",
        drawing,
    )
    return re.sub(r" ?font-family: [^;\"]*;?", "", drawing)


def _scoped(drawing: str, name: str) -> str:
    """Identifiers are unique on the page, and those that nothing refers to are gone."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawing))

    def replaced(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    drawing = re.sub(r' id="([^"]+)"', replaced, drawing)
    return re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{name}-\2", drawing)


def _attribute(drawing: str, attribute: str) -> str:
    found = re.search(rf'\b{attribute}="([^"]*)"', drawing)
    return found[1] if found else ""


def _pixels(drawing: str, attribute: str) -> str:
    """Matplotlib writes points; a page counts in pixels of 1/96 inch."""
    return f"{float(_attribute(drawing, attribute).removesuffix('pt')) * 96 / 72:g}"
