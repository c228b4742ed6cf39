"""How well maps were made to look like others: the section "Imitated maps"."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from robustlab.records import ImageRow, RunRecord
from robustlab.reporting.samples import COUNTED
from robustlab.reporting.statistics import interval
from robustlab.reporting.wording import attack_name, budget, with_interval

BEFORE: Final = "pearson_to_target_before"
AFTER: Final = "pearson_to_target"
ORIGINAL: Final = "pearson_to_original"
PICTURE: Final = "image_ssim"
OUTPUT: Final = "output_change"


@dataclass(frozen=True)
class _Aim:
    """What a row is about, as the words for attacks want it."""

    model: str
    explainer: str
    against: str
    attack: str
    made_on: str
    ball: str
    epsilon: float
    role: str


@dataclass(frozen=True)
class Imitation:
    """A row of the section: means with their intervals, as text."""

    model: str
    explainer: str
    attack: str
    epsilon: str
    role: str
    before: str
    after: str
    original: str
    picture: str
    output: str
    kept: str


def imitations(records: Iterable[RunRecord]) -> list[Imitation]:
    """One row per explainer, attack or control, and budget; empty where nothing imitates."""
    groups: dict[_Aim, list[tuple[ImageRow, Mapping[str, float | None]]]] = {}
    for record in records:
        cell = record.cell
        for explainer in cell.explainers:
            aim = _Aim(
                cell.model,
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
                if AFTER in facts and image.outcome in COUNTED:
                    groups.setdefault(aim, []).append((image, facts))
    return [_row(aim, items) for aim, items in groups.items()]


def _row(aim: _Aim, items: list[tuple[ImageRow, Mapping[str, float | None]]]) -> Imitation:
    def mean(fact: str) -> str:
        found: dict[str, list[float]] = {}
        for image, facts in items:
            value = facts.get(fact)
            if value is not None:
                found.setdefault(image.id, []).append(value)
        values = interval([sum(v) / len(v) for v in found.values()])
        return with_interval(values.mean, values.low, values.high)

    kept = sum(bool(image.kept) for image, _ in items)
    return Imitation(
        model=aim.model,
        explainer=aim.explainer,
        attack=attack_name(aim),
        epsilon=budget(aim.ball, aim.epsilon),
        role=aim.role,
        before=mean(BEFORE),
        after=mean(AFTER),
        original=mean(ORIGINAL),
        picture=mean(PICTURE),
        output=mean(OUTPUT),
        kept=f"{kept} of {len(items)}",
    )
