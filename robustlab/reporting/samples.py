"""Measurements that belong together, and which of them count."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

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


class Place(NamedTuple):
    """What makes two kinds of picture one: everything but the image, the seed and the metric."""

    model: str
    data: str
    explainer: str
    role: str
    against: str
    attack: str
    made_on: str
    norm: str
    epsilon: float

    @classmethod
    def of(cls, item: Any) -> "Place":
        """Where a measurement belongs, one of a saved image as well."""
        return cls(*(getattr(item, name) for name in cls._fields))


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

    @cached_property
    def seeds(self) -> frozenset[int]:
        return frozenset(item.seed for item in self.items)

    @cached_property
    def by_image(self) -> Mapping[str, float]:
        """One value per image, of those that count."""
        return per_image(self._counted)

    def counted(
        self, *, outcome: ImageOutcome | None = None, kept: bool | None = None
    ) -> list[Measurement]:
        """Measurements that enter a mean, on request only those of one kind."""
        return [
            item
            for item in self._counted
            if outcome in (None, item.outcome) and kept in (None, item.prediction_kept)
        ]

    def count(self, outcome: ImageOutcome) -> int:
        return self._outcomes[outcome]

    def chances(self) -> list[float]:
        return [item.chance for item in self.items if item.chance is not None]

    @cached_property
    def _counted(self) -> tuple[Measurement, ...]:
        counting = (item for item in self.items if item.outcome in COUNTED)
        return tuple(item for item in counting if item.value is not None)

    @cached_property
    def _outcomes(self) -> Counter[ImageOutcome]:
        return Counter(item.outcome for item in self.items)


def samples(measurements: Iterable[Measurement]) -> list[Sample]:
    """Sort measurements into groups, in the order in which groups first appear."""
    group_of = attrgetter(*Group._fields)
    found: dict[tuple[Any, ...], list[Measurement]] = {}
    for item in measurements:
        found.setdefault(group_of(item), []).append(item)
    return [Sample(Group(*group), tuple(items)) for group, items in found.items()]


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
