"""Sampled and searched: what random copies find of a worst case, and what a search finds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.results import Measurement
from robustlab.reporting.samples import COUNTED, Place, per_image
from robustlab.reporting.statistics import interval, paired_difference
from robustlab.reporting.wording import attack_name, budget, count, number, with_interval

MOST: Final = 4
APART: Final = ("search", "steps")
"""Options in which a sampled metric and its searched twin may differ."""
UNTOUCHED: Final = "untouched"


@dataclass(frozen=True)
class Line:
    """One explainer on one kind of picture, by images that have both values.

    ``higher`` of ``images`` have a searched value above the sampled one.
    """

    explainer: str
    picture: str
    sampled: str
    searched: str
    gap: str
    times: float | None
    higher: int
    images: int


@dataclass(frozen=True)
class Twins:
    """A sampled metric beside a searched one that is otherwise alike, on one model."""

    name: str
    sampled: str
    searched: str
    how: str
    samples: str
    radius: str
    model: str
    data: str
    lines: tuple[Line, ...]


def twins(found: Iterable[Measurement], manifest: Manifest) -> list[Twins]:
    """One per pair of metrics, model and data, in the plan's order; empty without such a pair."""
    pairs = list(_pairs(manifest.metrics))
    labels = {label for pair in pairs for label in pair}
    values: dict[Place, dict[str, list[Measurement]]] = {}
    for item in found:
        if item.metric in labels and item.outcome in COUNTED and item.role != "control":
            values.setdefault(Place.of(item), {}).setdefault(item.metric, []).append(item)
    models = dict.fromkeys((place.model, place.data) for place in values)
    tables = (
        _table(one, other, manifest.metrics, model, data, values)
        for one, other in pairs
        for model, data in models
    )
    return [table for table in tables if table.lines]


def twin_headlines(tables: Sequence[Twins]) -> list[str]:
    """How much a search adds on untouched pictures, the largest factor of each table."""
    sentences = []
    for table in tables:
        known = [(line.times, line) for line in table.lines if line.picture == UNTOUCHED]
        best = max(((t, line) for t, line in known if t is not None), default=None, key=_factor)
        if best is not None and best[0] > 1:
            line = best[1]
            sentences.append(
                f"{table.name} of {line.explainer} on {table.model} is {line.sampled} by "
                f"{table.samples} and {line.searched} searched at the same radius, "
                f"{number(best[0])} times as much."
            )
    return sentences[:MOST]


def _factor(pair: tuple[float, Line]) -> float:
    return pair[0]


def _pairs(metrics: Mapping[str, MetricInfo]) -> Iterator[tuple[str, str]]:
    """Labels (sampled, searched) of metrics that differ in nothing but the search."""
    for one, info in metrics.items():
        for other, twin in metrics.items():
            searched = twin.options.get("search") not in (None, "none")
            if info.options.get("search") == "none" and searched and _alike(info, twin):
                yield one, other


def _alike(info: MetricInfo, twin: MetricInfo) -> bool:
    return info.name == twin.name and _rest(info.options) == _rest(twin.options)


def _rest(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in APART}


def _table(
    one: str,
    other: str,
    metrics: Mapping[str, MetricInfo],
    model: str,
    data: str,
    values: Mapping[Place, Mapping[str, Sequence[Measurement]]],
) -> Twins:
    options, searching = metrics[one].options, metrics[other].options
    ours = [place for place in values if (place.model, place.data) == (model, data)]
    lines = (_line(p, values[p].get(one, ()), values[p].get(other, ())) for p in ours)
    return Twins(
        name=metrics[one].name,
        sampled=one,
        searched=other,
        how=f"{searching['search']}, {count(searching.get('steps', 0), 'step')}",
        samples=_copies(options.get("samples", 0)),
        radius=budget("linf", options.get("radius", 0.0)),
        model=model,
        data=data,
        lines=tuple(line for line in lines if line is not None),
    )


def _copies(number: int) -> str:
    return "one random copy" if number == 1 else f"{number:,} random copies"


def _line(
    place: Place, sampled: Sequence[Measurement], searched: Sequence[Measurement]
) -> Line | None:
    before, after = per_image(sampled), per_image(searched)
    both = [name for name in before if name in after]
    if not both:
        return None
    low, high = [before[name] for name in both], [after[name] for name in both]
    one, other, gap = interval(low), interval(high), paired_difference(high, low)
    times = other.mean / one.mean if one.mean and other.mean is not None else None
    touched = f"{attack_name(place)}, ε = {budget(place.norm, place.epsilon)}"
    return Line(
        explainer=place.explainer,
        picture=UNTOUCHED if place.role == "none" else touched,
        sampled=with_interval(one.mean, one.low, one.high),
        searched=with_interval(other.mean, other.low, other.high),
        gap=with_interval(gap.mean, gap.low, gap.high),
        times=times,
        higher=sum(b > a for a, b in zip(low, high, strict=True)),
        images=len(both),
    )
