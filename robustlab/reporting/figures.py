"""Which figures a run deserves: one drift plot per metric, a curve where ε varies, and so on.

Each figure is drawn twice, for wide and for narrow pages, because a drawing that is
scaled down to a phone has letters that nobody can read; the page shows one of them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from markupsafe import Markup

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.drift_plot import MANY, DriftPlot
from robustlab.reporting.epsilon_curve import EpsilonCurve
from robustlab.reporting.heat_map import HeatMap
from robustlab.reporting.largest import Placed, largest
from robustlab.reporting.multiverse import Multiverse
from robustlab.reporting.multiverse_plot import MultiversePlot
from robustlab.reporting.roar import Retrained
from robustlab.reporting.roar_plot import RoarPlot
from robustlab.reporting.strength import Strength
from robustlab.reporting.strength_plot import StrengthPlot
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.tradeoff_plot import TradeoffPlot
from robustlab.reporting.transfer import Matrix
from robustlab.reporting.wording import better, norm_name, radius, waged

T = TypeVar("T")
S = TypeVar("S", bound=Placed)
WIDE: Final = 5.6  # inches: two fit beside each other on a wide page
NARROW: Final = 3.45
MATRIX: Final = 4.5
BROAD: Final = 9.0
Drawing = (
    MultiversePlot | RoarPlot | DriftPlot | EpsilonCurve | HeatMap | StrengthPlot | TradeoffPlot
)


@dataclass(frozen=True)
class Figure:
    """A figure of the page: its metric, what it shows, and its two drawings."""

    metric: str
    caption: str
    drawings: tuple[Markup, ...]


@dataclass(frozen=True)
class Drawn(Generic[T]):
    """What a figure shows, for its caption and table, with its two drawings."""

    of: T
    drawings: tuple[Markup, ...]


Folded = tuple[list[Drawn[T]], list[Drawn[T]]]
"""Figures at the largest budgets, and those that the page folds away."""


@dataclass(frozen=True)
class Place:
    """Rows that can share one drawing."""

    model: str
    data: str
    norm: str

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.model}-{self.data}-{self.norm}".lower())


def drift_figures(table: Sequence[SummaryRow], manifest: Manifest) -> list[Figure]:
    """One drift plot per metric and model, at the largest budget that was run."""
    return [
        _drift_figure(label, metric, place, rows, _attacks(table), i)
        for i, (label, metric, place, rows) in enumerate(_places(table, manifest))
    ]


def epsilon_figures(table: Sequence[SummaryRow], manifest: Manifest) -> list[Figure]:
    """One ε curve per metric and model, where more than one budget was run."""
    return [
        _epsilon_figure(label, metric, place, rows, _attacks(table), i)
        for i, (label, metric, place, rows) in enumerate(_places(table, manifest))
        if len({row.epsilon for row in rows if row.epsilon > 0}) > 1
    ]


def transfer_figures(found: Sequence[Matrix]) -> Folded[Matrix]:
    """A heat map of each matrix."""
    return _folded(found, lambda i, matrix: HeatMap(f"transfer-{i}", matrix))


def strength_figures(found: Sequence[Strength]) -> Folded[Strength]:
    """A plot of strength against time for each."""
    return _folded(found, lambda i, strength: StrengthPlot(f"strength-{i}", strength))


def multiverse_figures(found: Sequence[Multiverse]) -> list[Drawn[Multiverse]]:
    """The places of explainers in all worlds, one picture per model."""
    return [
        Drawn(made, twice(MultiversePlot(f"multiverse-{i}", made))) for i, made in enumerate(found)
    ]


def roar_figure(made: Retrained | None) -> Drawn[Retrained] | None:
    """Accuracy over the share removed, where networks were retrained."""
    return None if made is None else Drawn(made, twice(RoarPlot("roar", made)))


def _folded(found: Sequence[S], draw: Callable[[int, S], HeatMap | StrengthPlot]) -> Folded[S]:
    shown, rest = largest(found)
    drawn = [Drawn(item, twice(draw(i, item))) for i, item in enumerate([*shown, *rest])]
    return drawn[: len(shown)], drawn[len(shown) :]


def twice(drawing: Drawing) -> tuple[Markup, ...]:
    """For a wide and for a narrow page."""
    wide = {HeatMap: MATRIX, MultiversePlot: BROAD}.get(type(drawing), WIDE)
    return tuple(
        replace(drawing, name=f"{drawing.name}-{kind}").draw(width, kind)
        for kind, width in (("wide", wide), ("narrow", NARROW))
    )


def _places(
    table: Sequence[SummaryRow], manifest: Manifest
) -> Iterator[tuple[str, MetricInfo, Place, list[SummaryRow]]]:
    rows = [row for row in table if row.role == "attack"]
    places = list(dict.fromkeys(Place(row.model, row.data, row.norm) for row in rows))
    for label, metric in manifest.metrics.items():
        for place in places:
            fitting = [
                row
                for row in rows
                if row.metric == label and Place(row.model, row.data, row.norm) == place
            ]
            if fitting:
                yield label, metric, place, fitting


def _drift_figure(
    label: str,
    metric: MetricInfo,
    place: Place,
    rows: Sequence[SummaryRow],
    attacks: Sequence[str],
    index: int,
) -> Figure:
    largest = max(row.epsilon for row in rows)
    shown = [row for row in rows if row.epsilon == largest]
    direct = [row for row in shown if row.against in ("", row.explainer)]
    note = ""
    if len(shown) > MANY and len(direct) < len(shown):
        shown, note = direct, " Transferred attacks are in the table only."
    caption = (
        f"{place.model} on {place.data}, {norm_name(place.norm)} budget "
        f"ε = {radius(place.norm, largest)}.{note}"
    )
    plot = DriftPlot(f"drift-{index}", label, metric, shown, attacks)
    return Figure(label, caption, twice(plot))


def _epsilon_figure(
    label: str,
    metric: MetricInfo,
    place: Place,
    rows: Sequence[SummaryRow],
    attacks: Sequence[str],
    index: int,
) -> Figure:
    shown = [row for row in rows if row.epsilon > 0 and row.against in ("", row.explainer)]
    explainers = list(dict.fromkeys(row.explainer for row in shown))
    caption = f"{place.model} on {place.data}; {better(metric)}."
    curve = EpsilonCurve(f"curve-{index}", label, metric, shown, attacks, explainers)
    return Figure(label, caption, twice(curve))


def _attacks(rows: Sequence[SummaryRow]) -> list[str]:
    return list(dict.fromkeys(waged(row) for row in rows if row.role == "attack"))
