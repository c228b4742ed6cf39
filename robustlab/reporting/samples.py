"""Measurements that belong together, and which of them count."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from robustlab.records import ImageOutcome, Role
from robustlab.reporting.results import Measurement

COUNTED: Final[tuple[ImageOutcome, ...]] = ("ok", "infeasible")
"""Outcomes whose value is a drift within the budget."""


class Valued(Protocol):
    """A value of one image."""

    @property
    def image_id(self) -> str: ...
    @property
    def value(self) -> float | None: ...


class Group(NamedTuple):
    """What makes two measurements comparable: everything but the image and the seed."""

    model: str
    data: str
    explainer: str
    against: str
    attack: str
    norm: str
    epsilon: float
    metric: str
    made_on: str


@dataclass(frozen=True)
class Sample:
    """All measurements of one group, over images and seeds."""

    group: Group
    items: tuple[Measurement, ...]

    @property
    def role(self) -> Role:
        return self.items[0].role

    @property
    def control_of(self) -> str:
        return self.items[0].control_of

    @property
    def seeds(self) -> frozenset[int]:
        return frozenset(item.seed for item in self.items)

    def counted(
        self, *, outcome: ImageOutcome | None = None, kept: bool | None = None
    ) -> list[Measurement]:
        """Measurements that enter a mean, on request only those of one kind."""
        return [
            item
            for item in self.items
            if item.outcome in COUNTED
            and item.value is not None
            and outcome in (None, item.outcome)
            and kept in (None, item.prediction_kept)
        ]

    def count(self, outcome: ImageOutcome) -> int:
        return sum(item.outcome == outcome for item in self.items)

    def chances(self) -> list[float]:
        return [item.chance for item in self.items if item.chance is not None]


def samples(measurements: Iterable[Measurement]) -> list[Sample]:
    """Sort measurements into groups, in the order in which groups first appear."""
    found: dict[Group, list[Measurement]] = {}
    for item in measurements:
        group = Group(*(getattr(item, name) for name in Group._fields))
        found.setdefault(group, []).append(item)
    return [Sample(group, tuple(items)) for group, items in found.items()]


def per_image(items: Iterable[Valued]) -> dict[str, float]:
    """One value per image: the mean over its seeds."""
    found: dict[str, list[float]] = {}
    for item in items:
        if item.value is not None:
            found.setdefault(item.image_id, []).append(item.value)
    return {name: mean(values) for name, values in found.items()}


def mean(values: Sequence[float]) -> float:
    """The plain average of at least one value."""
    return sum(values) / len(values)
