"""Strength against time: what more steps, or another path to the gradient, buy.

The seconds come from the records. They never enter a table, so tables of two runs can be
compared byte by byte; this figure is the one part of a report that differs between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from robustlab.records import Manifest, MetricInfo, RunRecord
from robustlab.reporting.loading import Run
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import better, norm_name, radius

ENOUGH: Final = 3
EFFORTS: Final = ("steps", "queries")
"""Options that say how long an attack tries; the first that it has counts."""

Where = tuple[str, str, str, str, str, float, str]
Seconds = Mapping[Where, float]


@dataclass(frozen=True)
class Point:
    """One attack: seconds per image, and the mean after it.

    ``control`` is the same of its random-sign control, None where there is none.
    """

    label: str
    effort: int | None
    seconds: float
    mean: float
    control: tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """Attacks of one name and path, the quickest first."""

    attack: str
    path: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Strength:
    """All attacks made against one explainer of one model at one budget."""

    explainer: str
    model: str
    data: str
    norm: str
    epsilon: float
    metric: str
    info: MetricInfo
    chance: float | None
    lines: tuple[Line, ...]

    @property
    def place(self) -> tuple[str, ...]:
        return self.model, self.data, self.explainer, self.norm

    @property
    def caption(self) -> str:
        return (
            f"{self.model} on {self.data}, {norm_name(self.norm)} budget "
            f"ε = {radius(self.norm, self.epsilon)}; {better(self.info)}. "
            "Timings are of this machine and this run."
        )


def strengths(table: Sequence[SummaryRow], run: Run) -> list[Strength]:
    """One per explainer, model and budget with enough attacks, in the order of the plan."""
    primary, spent = run.manifest.primary_metric, seconds_per_image(run.records)
    groups: dict[tuple[Any, ...], list[SummaryRow]] = {}
    for row in table:
        aimed = row.role == "attack" and row.against == row.explainer and not row.made_on
        timed = spent.get(_where(row, row.attack, row.against, row.made_on))
        if aimed and timed and row.metric == primary and row.mean is not None:
            place = row.model, row.data, row.explainer, row.norm, row.epsilon
            groups.setdefault(place, []).append(row)
    return [_strength(g, spent, run.manifest) for g in groups.values() if _enough(g, run.manifest)]


def seconds_per_image(records: Iterable[RunRecord]) -> dict[Where, float]:
    """What each attack took to propose, over the chunks and seeds that did not crash."""
    sums: dict[Where, tuple[float, int]] = {}
    for record in records:
        cell = record.cell
        if record.outcome == "ok" and record.images:
            budget = cell.budget.ball, cell.budget.epsilon
            where = cell.model, cell.data, cell.attack, cell.against or "", *budget
            seconds, images = sums.get((*where, cell.made_on or ""), (0.0, 0))
            total = seconds + record.attack_seconds, images + len(record.images)
            sums[*where, cell.made_on or ""] = total
    return {where: seconds / images for where, (seconds, images) in sums.items()}


def _where(row: SummaryRow, attack: str, against: str, made_on: str) -> Where:
    return row.model, row.data, attack, against, row.norm, row.epsilon, made_on


def _enough(rows: Sequence[SummaryRow], manifest: Manifest) -> bool:
    return len({(_effort(row, manifest), row.path) for row in rows}) >= ENOUGH


def _effort(row: SummaryRow, manifest: Manifest) -> int | None:
    options = manifest.attacks[row.attack].options
    return next((options[name] for name in EFFORTS if name in options), None)


def _strength(rows: Sequence[SummaryRow], spent: Seconds, manifest: Manifest) -> Strength:
    lines: dict[tuple[str, str], list[Point]] = {}
    for row in rows:
        name = manifest.attacks[row.attack].name
        lines.setdefault((name, row.path), []).append(_point(row, spent, manifest))
    first = rows[0]
    return Strength(
        explainer=first.explainer,
        model=first.model,
        data=first.data,
        norm=first.norm,
        epsilon=first.epsilon,
        metric=first.metric,
        info=manifest.metrics[first.metric],
        chance=first.chance,
        lines=tuple(
            Line(name, path, tuple(sorted(points, key=lambda point: point.seconds)))
            for (name, path), points in lines.items()
        ),
    )


def _point(row: SummaryRow, spent: Seconds, manifest: Manifest) -> Point:
    mean = row.mean if row.mean is not None else 0.0
    seconds = spent[_where(row, row.attack, row.against, row.made_on)]
    taken = _where(row, row.control_name, row.against, row.made_on)
    shared = _where(row, row.control_name, "", row.made_on)
    quick = spent.get(taken) or spent.get(shared) or 0.0
    control = (quick, row.control) if row.control is not None and quick > 0 else None
    return Point(row.attack, _effort(row, manifest), seconds, mean, control)
