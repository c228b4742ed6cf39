"""What is left of each map when the model, not the picture, is disturbed.

Read the other way round than an attack: a map that explains the model has to change with
it, down to what two unrelated maps would share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import MISSING, ignorant, number, with_interval

MOST: Final = 3


@dataclass(frozen=True)
class Entry:
    """One explainer under one disturbance."""

    text: str
    left: float | None  # 1: the map of the true model, 0: an unrelated map; None of one map


@dataclass(frozen=True)
class Line:
    """One explainer: an entry per column, None where it was not measured."""

    explainer: str
    entries: tuple[Entry | None, ...]
    chance: str


@dataclass(frozen=True)
class SanityTable:
    """Explainers by disturbances, for one model and metric.

    ``floor`` is the title of the column of chances.
    """

    model: str
    metric: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    floor: str
    of_one_map: bool


def sanity_tables(table: Sequence[SummaryRow], manifest: Manifest) -> list[SanityTable]:
    """One per model and metric, the primary metric first; empty without such attacks."""
    rows = [row for row in table if row.disturbs == "model"]
    metrics = dict.fromkeys([manifest.primary_metric, *manifest.metrics])
    models = dict.fromkeys(row.model for row in rows)
    return [
        _table(model, metric, found, manifest.metrics[metric])
        for metric in metrics
        for model in models
        if (found := [row for row in rows if (row.model, row.metric) == (model, metric)])
    ]


def sanity_headlines(tables: Sequence[SanityTable], manifest: Manifest) -> list[str]:
    """The maps that hold on most under the last disturbance, on the primary metric."""
    sentences: list[str] = []
    for table in tables:
        if table.metric != manifest.primary_metric:
            continue
        known = [(line, line.entries[-1]) for line in table.lines]
        said = [
            f"{_said(table, line, entry)}{_floor(table, line)}."
            for line, entry in known
            if entry is not None
        ]
        sentences += said[:MOST]
    return sentences


def _said(table: SanityTable, line: Line, entry: Entry) -> str:
    where = f"With {table.columns[-1]}"
    if table.of_one_map:
        return f"{where} {table.metric} of {line.explainer} on {table.model} is {entry.text}"
    return (
        f"{where} the map of {line.explainer} on {table.model} still has "
        f"{table.metric} {entry.text} with its former self"
    )


def _floor(table: SanityTable, line: Line) -> str:
    return "" if line.chance == MISSING else f"; {table.floor.lower()} have {line.chance}"


def _table(model: str, metric: str, rows: Sequence[SummaryRow], info: MetricInfo) -> SanityTable:
    columns = tuple(dict.fromkeys(row.attack for row in rows))
    lines = []
    for explainer in dict.fromkeys(row.explainer for row in rows):
        own = {row.attack: row for row in rows if row.explainer == explainer}
        entries = tuple(_entry(own[name], info) if name in own else None for name in columns)
        chances = [row.chance for row in own.values() if row.chance is not None]
        chance = number(sum(chances) / len(chances)) if chances else number(None)
        lines.append(Line(explainer, entries, chance))
    lines.sort(key=_held, reverse=True)
    floor = ignorant(info).capitalize()
    return SanityTable(model, metric, columns, tuple(lines), floor, info.of_one_map)


def _held(line: Line) -> float:
    last = line.entries[-1]
    return -1.0 if last is None or last.left is None else last.left


def _entry(row: SummaryRow, info: MetricInfo) -> Entry | None:
    if row.mean is None:
        return None
    text = with_interval(row.mean, row.low, row.high)
    chance, perfect = row.chance, info.perfect
    if info.of_one_map or chance is None or perfect is None or perfect == chance:
        return Entry(text, None)
    return Entry(text, min(1.0, max(0.0, (row.mean - chance) / (perfect - chance))))
