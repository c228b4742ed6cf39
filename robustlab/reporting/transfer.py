"""Transfer: what an attack made against one explainer, or on one model, does to the others.

Several labels of one attack with the same options that differ only in what they were made
against belong to one matrix: its rows are what the attack was made against, its columns
what was measured, and its diagonal is the attack on its own target.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.largest import largest
from robustlab.reporting.report_views import options_text
from robustlab.reporting.samples import mean
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import (
    better,
    budget,
    count,
    ignorant,
    norm_name,
    number,
    percent,
)

Between = Literal["explainers", "models"]
MOST: Final = 2
FURTHEST: Final = 3  # a target that hardly moved is no measure for the others


@dataclass(frozen=True)
class Matrix:
    """Means of one metric: rows are what the attack was made on, columns what was measured.

    Attributes:
        attack: its label; its name, with the options that tell it apart, for several labels.
        on: what all cells share: the model of explainers, the explainer of models.
        values: rows × columns, None where there is no value.
        control: per column, the mean over rows of their random-sign controls; empty if none.
    """

    between: Between
    attack: str
    norm: str
    epsilon: float
    on: str
    metric: str
    info: MetricInfo
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    control: tuple[float | None, ...]
    chance: float | None

    @property
    def place(self) -> tuple[str, ...]:
        return self.between, self.attack, self.norm, self.on

    @property
    def title(self) -> str:
        at = f", ε = {budget(self.norm, self.epsilon)}" if self.epsilon else ""
        return f"{self.attack} on {self.on}{at}"

    @property
    def caption(self) -> str:
        """What the numbers are and which way is better."""
        floor = f"; {ignorant(self.info)} have {number(self.chance)}"
        floor = "" if self.chance is None else floor
        within = f", {norm_name(self.norm)} budget" if self.epsilon else ""
        return f"{self.metric}{within}; {better(self.info)}{floor}."

    @property
    def lines(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """Every row under its name, random sign last where there is one."""
        attacks = tuple(zip(self.rows, self.values, strict=True))
        return (*attacks, ("random sign", self.control)) if self.control else attacks

    def moved(self, value: float | None) -> float | None:
        """0 for an unmoved map, 1 for one no nearer than chance, or than the matrix's furthest."""
        perfect = self.info.perfect
        if value is None or perfect is None:
            return None
        known = [v for _, line in self.lines for v in line if v is not None]
        furthest = max(known, key=lambda v: abs(v - perfect))
        floor = furthest if self.chance in (None, perfect) else self.chance
        if floor is None or floor == perfect:
            return 0.0
        return min(1.0, max(0.0, (perfect - value) / (perfect - floor)))


def matrices(table: Sequence[SummaryRow], manifest: Manifest) -> list[Matrix]:
    """On the primary metric; between explainers first, in the order of the plan."""
    rows = [r for r in table if r.role == "attack" and r.metric == manifest.primary_metric]
    direct = [row for row in rows if row.against in ("", row.explainer)]
    explainers = _grouped("explainers", [row for row in rows if row.against], manifest)
    return [*explainers, *_grouped("models", direct, manifest)]


def sentences(matrix: Matrix) -> list[str]:
    """How far each row moves the others on average, against its own target."""
    said = []
    for aim, values in zip(matrix.rows, matrix.values, strict=True):
        known = dict(zip(matrix.columns, values, strict=True))
        own = known.pop(aim, None)
        others = [value for value in known.values() if value is not None]
        if others:
            said.append(_sentence(matrix, aim, own, others))
    return said


def transfer_headlines(found: Sequence[Matrix]) -> list[str]:
    """The first sentences of the largest budgets, some between explainers, some models."""
    said: dict[Between, list[str]] = {"explainers": [], "models": []}
    for matrix in largest(found)[0]:
        said[matrix.between] += sentences(matrix)
    return [*said["explainers"][:MOST], *said["models"][:MOST]]


def _sentence(matrix: Matrix, aim: str, own: float | None, others: Sequence[float]) -> str:
    far = f"to {number(mean(others))}" + (" on average" if len(others) > 1 else "")
    noun = f"other {matrix.between.removesuffix('s')}"
    rest = f"the {noun}" if len(others) == 1 else f"the {count(len(others), noun)}"
    at = f" at ε = {budget(matrix.norm, matrix.epsilon)}" if matrix.epsilon else ""
    if matrix.between == "explainers":
        opening = f"Made against {aim}{at} on {matrix.on}, {matrix.attack} brings {matrix.metric}"
        itself = "" if own is None else f"of {aim} to {number(own)} and "
        text = f"{opening} {itself}of {rest} {far}"
    else:
        opening = f"Made on {aim}{at}, {matrix.attack} brings {matrix.metric} of {matrix.on}"
        itself = "" if own is None else f"to {number(own)} there and "
        text = f"{opening} {itself}{far} on {rest}"
    return f"{text}{_share(matrix, own, mean(others))}."


def _share(matrix: Matrix, own: float | None, others: float) -> str:
    perfect = matrix.info.perfect
    if own is None or perfect is None or own == perfect or matrix.info.of_one_map:
        return ""
    share = (perfect - others) / (perfect - own)
    return f", {percent(share)} as far" if share <= FURTHEST else ""


def _grouped(between: Between, rows: Sequence[SummaryRow], manifest: Manifest) -> list[Matrix]:
    groups: dict[tuple[object, ...], list[SummaryRow]] = {}
    for row in rows:
        info = manifest.attacks[row.attack]
        options = json.dumps(dict(info.options), sort_keys=True)
        shared = (row.model, row.made_on) if between == "explainers" else (row.explainer,)
        key = info.name, options, row.norm, row.epsilon, row.data, *shared
        groups.setdefault(key, []).append(row)
    return [
        _matrix(between, group, manifest)
        for group in groups.values()
        if any(_made(between, row) != _measured(between, row) for row in group)
    ]


def _matrix(between: Between, group: Sequence[SummaryRow], manifest: Manifest) -> Matrix:
    cells: dict[tuple[str, str], SummaryRow] = {}
    for row in group:
        cells.setdefault((_made(between, row), _measured(between, row)), row)
    order = list(manifest.explainers) if between == "explainers" else []
    columns = _ordered((column for _, column in cells), order)
    rows = _ordered((made for made, _ in cells), [*order, *columns])
    controls = [[r.control for (_, c), r in cells.items() if c == column] for column in columns]
    floors = [[value for value in column if value is not None] for column in controls]
    chances = [row.chance for row in cells.values() if row.chance is not None]
    first = group[0]
    made_on = f", made on {first.made_on}" if between == "explainers" and first.made_on else ""
    return Matrix(
        between=between,
        attack=_title(group, manifest),
        norm=first.norm,
        epsilon=first.epsilon,
        on=f"{first.model}{made_on}" if between == "explainers" else first.explainer,
        metric=first.metric,
        info=manifest.metrics[first.metric],
        rows=rows,
        columns=columns,
        values=tuple(tuple(_mean(cells.get((made, c))) for c in columns) for made in rows),
        control=tuple(mean(v) if v else None for v in floors) if any(floors) else (),
        chance=mean(chances) if chances else None,
    )


def _made(between: Between, row: SummaryRow) -> str:
    return row.against if between == "explainers" else row.made_on or row.model


def _measured(between: Between, row: SummaryRow) -> str:
    return row.explainer if between == "explainers" else row.model


def _mean(row: SummaryRow | None) -> float | None:
    return None if row is None else row.mean


def _ordered(names: Iterable[str], order: Sequence[str]) -> tuple[str, ...]:
    found = list(dict.fromkeys(names))
    return tuple(sorted(found, key=lambda n: order.index(n) if n in order else len(order)))


def _title(group: Sequence[SummaryRow], manifest: Manifest) -> str:
    labels = list(dict.fromkeys(row.attack for row in group))
    if len(labels) == 1:
        return labels[0]
    info = manifest.attacks[labels[0]]
    namesakes = [a.options for a in manifest.attacks.values() if a.name == info.name]
    apart = {
        key: value
        for key, value in info.options.items()
        if any(other.get(key) != value for other in namesakes)
    }
    return f"{info.name} ({options_text(apart)})" if apart else info.name
