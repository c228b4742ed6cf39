"""What is certified of a map, beside what an attack inside the same ball has left of it.

A certificate is about every image within an L2 radius, an attack is one such image: what
is certified can never exceed what was measured. Where it does, one of the two is wrong.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from robustlab.records import CellSpec, ImageRow, Manifest, RunRecord
from robustlab.reporting.samples import COUNTED, mean
from robustlab.reporting.statistics import interval
from robustlab.reporting.wording import attack_name, count, number, radius, with_interval

OVERLAP: Final = "certified_overlap"
RADIUS: Final = "certified_radius"
SIZE: Final = "certified_k"
ROUNDING: Final = 1e-6


class Key(NamedTuple):
    """One attack on one explainer at one L2 budget."""

    model: str
    data: str
    explainer: str
    against: str
    attack: str
    made_on: str
    epsilon: float


@dataclass(frozen=True)
class Certified:
    """One image: what is certified within which radius, and what was measured how far away."""

    image_id: str
    overlap: float
    radius: float | None
    measured: float | None
    distance: float | None

    @property
    def comparable(self) -> bool:
        """Whether the attacked image lies in the ball that the certificate is about."""
        known = None not in (self.measured, self.distance, self.radius)
        return known and (self.distance or 0.0) <= (self.radius or 0.0) + ROUNDING

    @property
    def broken(self) -> bool:
        return self.comparable and self.overlap > (self.measured or 0.0) + ROUNDING


@dataclass(frozen=True)
class Certificate:
    """A row of the section; ``said`` is whether any image contradicts its certificate."""

    model: str
    explainer: str
    attack: str
    epsilon: str
    radius: str
    certified: str
    least: str
    metric: str
    measured: str
    said: str
    broken: bool


def certificates(records: Iterable[RunRecord], manifest: Manifest) -> list[Certificate]:
    """One row per explainer, attack and L2 budget, in plan order; empty without certificates."""
    groups: dict[tuple[Key, str], list[Certified]] = {}
    for record in records:
        cell = record.cell
        if cell.role == "attack" and cell.budget.ball.partition("/")[0] == "l2":
            for explainer in cell.explainers:
                for metric, item in _certified(record.images, explainer, manifest):
                    groups.setdefault((_key(cell, explainer), metric), []).append(item)
    return [_row(key, metric, items) for (key, metric), items in groups.items()]


def _certified(
    images: Iterable[ImageRow], explainer: str, manifest: Manifest
) -> Iterator[tuple[str, Certified]]:
    for image in images:
        facts = image.facts.get(explainer, {})
        overlap = facts.get(OVERLAP)
        if overlap is None or image.outcome not in COUNTED:
            continue
        metric = _metric(explainer, facts.get(SIZE), manifest)
        values = image.values.get(explainer, {})
        yield (
            metric,
            Certified(
                image_id=image.id,
                overlap=overlap,
                radius=facts.get(RADIUS),
                measured=values.get(metric),
                distance=image.radius,
            ),
        )


def _metric(explainer: str, size: float | None, manifest: Manifest) -> str:
    """The top-k intersection of the certificate's own k; "" if it is not among the metrics.

    k is a fact of the record or an option of the explainer; where neither says it, a single
    top-k intersection among the metrics is taken for the one that was certified.
    """
    tops = {
        info.options.get("k"): label
        for label, info in manifest.metrics.items()
        if info.name == "top_k_intersection"
    }
    k = size if size is not None else manifest.explainers[explainer].options.get("k")
    if k is not None:
        return tops.get(int(k), "")
    return next(iter(tops.values())) if len(tops) == 1 else ""


def _key(cell: CellSpec, explainer: str) -> Key:
    return Key(
        model=cell.model,
        data=cell.data,
        explainer=explainer,
        against=cell.against or "",
        attack=cell.attack,
        made_on=cell.made_on or "",
        epsilon=cell.budget.epsilon,
    )


def _row(key: Key, metric: str, items: list[Certified]) -> Certificate:
    overlaps = [item.overlap for item in items]
    radii = [item.radius for item in items if item.radius is not None]
    found: dict[str, list[float]] = {}
    for item in items:
        if item.measured is not None:
            found.setdefault(item.image_id, []).append(item.measured)
    measured = interval([mean(values) for values in found.values()])
    return Certificate(
        model=key.model,
        explainer=key.explainer,
        attack=attack_name(key),
        epsilon=radius("l2", key.epsilon),
        radius=_ends(radii),
        certified=number(mean(overlaps)),
        least=number(min(overlaps)),
        metric=metric,
        measured=with_interval(measured.mean, measured.low, measured.high),
        said=_said(items),
        broken=any(item.broken for item in items),
    )


def _ends(values: list[float]) -> str:
    ends = [number(end) for end in (min(values), max(values))] if values else [number(None)] * 2
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _said(items: list[Certified]) -> str:
    comparable = [item for item in items if item.comparable]
    if not comparable:
        return f"not comparable: {_reason(items)}"
    broken = dict.fromkeys(item.image_id for item in items if item.broken)
    if broken:
        return f"{', '.join(broken)}: more certified than measured, a bug or a broken assumption"
    images = count(len({item.image_id for item in comparable}), "image")
    return f"in none of {images} is more certified than measured"


def _reason(items: list[Certified]) -> str:
    if all(item.measured is None for item in items):
        return "top-k intersection of the same k was not measured"
    if all(item.radius is None for item in items):
        return "the certified radius is not known"
    return "the attack went beyond the certified radius"
