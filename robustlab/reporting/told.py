"""What records tell of a map beside its drift, gathered per explainer, attack and budget."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustlab.records import ImageRow, RunRecord
from robustlab.reporting.samples import COUNTED
from robustlab.reporting.statistics import Interval, interval


@dataclass(frozen=True)
class Aim:
    """What a row is about, as the words for attacks want it."""

    model: str
    data: str
    explainer: str
    against: str
    attack: str
    made_on: str
    ball: str
    epsilon: float
    role: str


@dataclass(frozen=True)
class Told:
    """The images of one aim that count, each with its facts by name."""

    aim: Aim
    items: tuple[tuple[ImageRow, Mapping[str, float | None]], ...]

    def mean(self, fact: str) -> Interval:
        """Over images; several seeds of one image count as their mean."""
        found: dict[str, list[float]] = {}
        for image, facts in self.items:
            value = facts.get(fact)
            if value is not None:
                found.setdefault(image.id, []).append(value)
        return interval([sum(v) / len(v) for v in found.values()])

    def values(self, fact: str) -> list[float]:
        """Of all images and seeds that have it."""
        found = (facts.get(fact) for _, facts in self.items)
        return [value for value in found if value is not None]

    @property
    def kept(self) -> int:
        """How many predictions stayed what they were."""
        return sum(bool(image.kept) for image, _ in self.items)


def told(records: Iterable[RunRecord], fact: str) -> list[Told]:
    """One entry per aim with the images of which ``fact`` is told, in the records' order."""
    groups: dict[Aim, list[tuple[ImageRow, Mapping[str, float | None]]]] = {}
    for record in records:
        cell = record.cell
        for explainer in cell.explainers:
            aim = Aim(
                cell.model,
                cell.data,
                explainer,
                cell.against or "",
                cell.attack,
                cell.made_on or "",
                cell.budget.ball,
                cell.budget.epsilon,
                cell.role,
            )
            for image in record.images:
                facts = image.facts.get(explainer, {})
                if facts.get(fact) is not None and image.outcome in COUNTED:
                    groups.setdefault(aim, []).append((image, facts))
    return [Told(aim, tuple(items)) for aim, items in groups.items()]
