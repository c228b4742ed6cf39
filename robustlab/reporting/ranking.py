"""Which explanations hold better than which, and how surely: all pairs under one attack.

Explainers are compared where they met the same attack on their own terms: one aimed at each
of them, or one on the prediction. Of every pair the difference is paired over the images that
both have (seeds averaged within an image), its p-value is that of sign flips, and Holm's
correction runs over all pairs of the ranking.

**Places.** An explainer's best place is one more than there are explainers surely better, its
worst leaves room for those surely worse. With all pairs tested at one family-wise level these
are simultaneous 95 % confidence sets of the true places (Mogstad, Romano, Shaikh and Wilhelm
2024, "Inference for ranks").

**Power.** The difference that would be missed in one of five experiments of this size, for the
median pair, by the normal approximation with m pairs and sd of the paired differences:

    detectable = (z_{1 − 0.05/2m} + z_{0.8}) · sd / √n
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from math import sqrt
from statistics import NormalDist, median
from typing import Final, NamedTuple

import numpy as np

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.samples import Sample
from robustlab.reporting.significance import holm, least, sign_flip
from robustlab.reporting.statistics import Interval, interval, paired_difference

LEVEL: Final = 0.05
POWER: Final = 0.8


class Arena(NamedTuple):
    """What explainers share that are compared with each other."""

    model: str
    data: str
    attack: str
    norm: str
    epsilon: float
    metric: str
    made_on: str


@dataclass(frozen=True)
class Pair:
    """Two explainers: ``first − second`` over the images of both."""

    first: str
    second: str
    difference: Interval
    p: float
    adjusted: float

    @property
    def surely(self) -> bool:
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class Standing:
    """One explainer: its mean, and the places that it may truly have."""

    explainer: str
    drift: Interval
    best: int
    worst: int

    @property
    def place(self) -> str:
        """``2`` or ``2–4``."""
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


@dataclass(frozen=True)
class Ranking:
    """Explainers under one attack, the most stable first.

    Attributes:
        images: in the smallest pair.
        detectable: the smallest difference that this many images would probably show.
    """

    arena: Arena
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    images: int
    detectable: float | None

    @property
    def told(self) -> int:
        return sum(pair.surely for pair in self.pairs)

    @property
    def place(self) -> Arena:
        return self.arena._replace(epsilon=0.0)

    @property
    def epsilon(self) -> float:
        return self.arena.epsilon


def rankings(groups: Sequence[Sample], manifest: Manifest) -> list[Ranking]:
    """One for each attack and budget, on the primary metric; empty where nothing is compared.

    A multiverse compares its own way.
    """
    label = manifest.primary_metric
    if manifest.universes or manifest.metrics[label].of_map_alone:
        return []
    return [
        ranking(arena, values, manifest.metrics[label])
        for arena, values in arenas(groups).items()
        if arena.metric == label and len(values) > 1
    ]


def arenas(groups: Sequence[Sample]) -> dict[Arena, dict[str, Mapping[str, float]]]:
    """What is compared with what: explainer → image → value, by where they met."""
    found: dict[Arena, dict[str, Mapping[str, float]]] = {}
    for sample in groups:
        group = sample.group
        own_terms = group.against in ("", group.explainer)
        if sample.role == "attack" and own_terms and sample.by_image:
            place = Arena(*(getattr(group, name) for name in Arena._fields))
            found.setdefault(place, {})[group.explainer] = sample.by_image
    return found


def ranking(arena: Arena, values: Mapping[str, Mapping[str, float]], metric: MetricInfo) -> Ranking:
    """Explainers' values per image, compared pair by pair."""
    pairs = compared(values)
    sign = 1 if metric.higher_is_more_stable else -1
    means = {name: interval(list(own.values())) for name, own in values.items()}
    order = sorted(means, key=lambda name: -sign * (means[name].mean or 0.0))
    better = dict.fromkeys(values, 0)
    worse = dict.fromkeys(values, 0)
    for pair in pairs:
        if pair.surely and pair.difference.mean:
            ahead = pair.difference.mean * sign > 0
            winner, loser = (pair.first, pair.second) if ahead else (pair.second, pair.first)
            better[loser] += 1
            worse[winner] += 1
    return Ranking(
        arena=arena,
        standings=tuple(
            Standing(name, means[name], 1 + better[name], len(values) - worse[name])
            for name in order
        ),
        pairs=tuple(pairs),
        images=min((pair.difference.n for pair in pairs), default=0),
        detectable=_detectable(values),
    )


def compared(values: Mapping[str, Mapping[str, float]]) -> list[Pair]:
    """Every pair, tested, with Holm's correction over all of them."""
    names = list(combinations(values, 2))
    rows = [_paired(values[a], values[b]) for a, b in names]
    differences = [np.asarray(a) - np.asarray(b) for a, b in rows]
    found = sign_flip(differences)
    return [
        Pair(a, b, paired_difference(*row), p, adjusted)
        for (a, b), row, p, adjusted in zip(names, rows, found, holm(found), strict=True)
    ]


def too_few(made: Ranking) -> bool:
    """Could no pair be told apart, whatever the images show?"""
    return least(made.images) * len(made.pairs) >= LEVEL


def power_warning(made: Ranking) -> str:
    """What so few images cannot show; "" where every pair was told apart."""
    pairs = len(made.pairs)
    if too_few(made):
        needed = next(n for n in count(2) if least(n) * pairs < LEVEL)
        return (
            f"{made.images} images cannot tell even one of {pairs} pairs apart, whatever they "
            f"show: at least {needed} are needed."
        )
    if made.told == pairs or made.detectable is None:
        return ""
    return (
        f"With {made.images} images a difference of {made.detectable:.2g} is missed in one of "
        f"five experiments, and a smaller one more often."
    )


def _paired(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[list[float], list[float]]:
    both = [name for name in first if name in second]
    return [first[name] for name in both], [second[name] for name in both]


def _detectable(values: Mapping[str, Mapping[str, float]]) -> float | None:
    pairs = len(values) * (len(values) - 1) // 2
    reach = NormalDist().inv_cdf(1 - LEVEL / 2 / pairs) + NormalDist().inv_cdf(POWER)
    found = []
    for first, second in combinations(values.values(), 2):
        a, b = _paired(first, second)
        if len(a) > 1:
            spread = float(np.std(np.asarray(a) - np.asarray(b), ddof=1))
            found.append(reach * spread / sqrt(len(a)))
    return median(found) if found else None
