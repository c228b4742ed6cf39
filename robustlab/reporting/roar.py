"""Remove and retrain: accuracy of networks that never saw what an explanation ranks first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from robustlab.records import TrainingRecord
from robustlab.reporting.loading import Run
from robustlab.reporting.samples import mean
from robustlab.reporting.wording import count, percent, points

RANDOM: Final = "random"


@dataclass(frozen=True)
class Point:
    """One share of pixels gone: accuracy of each seed's network."""

    share: float
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.accuracies)


@dataclass(frozen=True)
class Curve:
    """One order of pixels; the whole images are its first point.

    Attributes:
        beyond: mean over shares of random's accuracy minus this one's, None for random itself;
            lowest and highest: the same of single seeds.
        holes: accuracy of networks that saw only which pixels are gone.
    """

    order: str
    points: tuple[Point, ...]
    beyond: float | None = None
    lowest: float | None = None
    highest: float | None = None
    holes: tuple[Point, ...] = ()

    def at(self, share: float) -> float | None:
        """Mean accuracy where this share is gone; None where no network is done yet."""
        return next((point.mean for point in self.points if point.share == share), None)


@dataclass(frozen=True)
class Retrained:
    """All curves, the steepest first and random last."""

    curves: tuple[Curve, ...]
    explained: str
    data: str
    train_images: int
    held_out: int
    seeds: int

    @property
    def shares(self) -> list[float]:
        return sorted({point.share for curve in self.curves for point in curve.points})


def retrained(run: Run) -> Retrained | None:
    """What came of the experiment's ``roar:``; None where it has none, or nothing is done yet."""
    spec = run.manifest.spec.get("roar")
    done = [one for one in asked_of(run) if one.accuracy_after is not None]
    if not isinstance(spec, dict) or not done:
        return None
    whole = tuple(one.accuracy_after or 0.0 for one in done if _removal(one) is None)
    first = (Point(0.0, whole),) if whole else ()
    orders = dict.fromkeys(_order(one) for one in done if _removal(one) is not None)
    tables = {order: _by_share(done, order) for order in orders}
    curves = [
        replace(
            _curve(order, first, table, tables.get(RANDOM, {})),
            holes=_points(_by_share(done, order, alone=True)),
        )
        for order, table in tables.items()
    ]
    curves.sort(key=lambda curve: (curve.order == RANDOM, -(curve.beyond or 0.0)))
    explained = spec.get("explained")
    return Retrained(
        curves=tuple(curves),
        explained=str(explained.get("name")) if isinstance(explained, dict) else str(explained),
        data=done[0].data,
        train_images=done[0].train_images,
        held_out=done[0].held_out,
        seeds=len({one.seed for one in done}),
    )


def asked_of(run: Run) -> list[TrainingRecord]:
    """Trainings of networks that are no models of the experiment: those of ``roar:``."""
    if not run.manifest.spec.get("roar"):
        return []
    labels = {m.get("name") if isinstance(m, dict) else m for m in run.manifest.models}
    return [one for one in run.trainings if not one.against and one.model not in labels]


def sentences(made: Retrained) -> list[str]:
    """What to take home."""
    known = [curve for curve in made.curves if curve.beyond is not None]
    better = [curve for curve in known if (curve.lowest or 0.0) > 0]
    worse = [curve for curve in known if (curve.highest or 0.0) < 0]
    said = []
    if better:
        names = ", ".join(f"{c.order} ({points(c.beyond)})" for c in better)
        said.append(f"Better than a random order with every seed, in points of accuracy: {names}.")
    if worse:
        names = ", ".join(f"{c.order} ({points(c.beyond)})" for c in worse)
        said.append(f"Worse than a random order with every seed: {names}.")
    if known and not better:
        said.append("No order is better than a random one with every seed.")
    for share in sorted({point.share for curve in made.curves for point in curve.holes}):
        told = ", ".join(
            f"{curve.order} {percent(point.mean)}"
            for curve in made.curves
            for point in curve.holes
            if point.share == share
        )
        said.append(
            f"Accuracy of networks that see nothing but which {percent(share)} of the pixels are "
            f"gone: {told}."
        )
    error = 100 * (0.25 / made.held_out) ** 0.5 if made.held_out else 0.0
    if telling := _telling(made, 2 * error / 100):
        said.append(
            f"More accurate without their pixels than networks that saw all: {', '.join(telling)}. "
            f"What is removed tells the class by its shape (Rong et al. 2022); of these orders "
            f"such a curve does not say whether the pixels were needed."
        )
    said.append(
        f"{count(made.seeds, 'seed')}, {count(made.train_images, 'image')} of {made.data} to "
        f"train on, {made.held_out:,} held out: an accuracy is known to {error:.1f} points "
        f"or less (one standard error)."
    )
    return said


def _telling(made: Retrained, margin: float) -> list[str]:
    """Orders with a share at which accuracy is further above that of whole images."""
    whole = made.curves[0].at(0.0)
    if whole is None:
        return []
    return [
        curve.order
        for curve in made.curves
        if curve.order != RANDOM and max(point.mean for point in curve.points) > whole + margin
    ]


def _curve(
    order: str, first: tuple[Point, ...], table: dict[float, Any], chance: dict[float, Any]
) -> Curve:
    points = (*first, *_points(table))
    if order == RANDOM:
        return Curve(order, points)
    by_seed: dict[int, list[float]] = {}
    for share in table:
        for seed, accuracy in table[share].items():
            if seed in chance.get(share, {}):
                by_seed.setdefault(seed, []).append(chance[share][seed] - accuracy)
    each = [mean(values) for values in by_seed.values()]
    if not each:
        return Curve(order, points)
    return Curve(order, points, mean(each), min(each), max(each))


def _points(table: dict[float, dict[int, float]]) -> tuple[Point, ...]:
    return tuple(Point(share, tuple(table[share].values())) for share in sorted(table))


def _by_share(
    done: Sequence[TrainingRecord], order: str, *, alone: bool = False
) -> dict[float, dict[int, float]]:
    """Share → seed → accuracy, of images with holes or of the holes alone."""
    found: dict[float, dict[int, float]] = {}
    for one in done:
        removal = _removal(one)
        if removal and _order(one) == order and removal.get("alone", False) == alone:
            found.setdefault(float(removal["share"]), {})[one.seed] = one.accuracy_after or 0.0
    return found


def _order(one: TrainingRecord) -> str:
    explainer = (_removal(one) or {}).get("explainer") or {}
    return str(explainer.get("label") or explainer.get("name"))


def _removal(one: TrainingRecord) -> dict[str, Any] | None:
    removal = one.options.get("remove")
    return removal if isinstance(removal, dict) else None
