"""How well maps were made to look like others: the section "Imitated maps"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import RunRecord
from robustlab.reporting.told import Told, told
from robustlab.reporting.wording import attack_name, budget, with_interval

MOST: Final = 4
BEFORE: Final = "pearson_to_target_before"
AFTER: Final = "pearson_to_target"
ORIGINAL: Final = "pearson_to_original"
PICTURE: Final = "image_ssim"
OUTPUT: Final = "output_change"


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
    aimed: bool


def imitations(records: Iterable[RunRecord]) -> list[Imitation]:
    """One row per explainer, attack or control, and budget; empty where nothing imitates."""
    return [_row(one) for one in told(records, AFTER)]


def _row(one: Told) -> Imitation:
    def mean(fact: str) -> str:
        values = one.mean(fact)
        return with_interval(values.mean, values.low, values.high)

    return Imitation(
        model=one.aim.model,
        explainer=one.aim.explainer,
        attack=attack_name(one.aim),
        epsilon=budget(one.aim.ball, one.aim.epsilon),
        role=one.aim.role,
        before=mean(BEFORE),
        after=mean(AFTER),
        original=mean(ORIGINAL),
        picture=mean(PICTURE),
        output=mean(OUTPUT),
        kept=f"{one.kept} of {len(one.items)}",
        aimed=one.aim.against == one.aim.explainer,
    )


def imitation_headlines(rows: Sequence[Imitation]) -> list[str]:
    """How near the first few imitations came to their targets, by the explainer they fool."""
    chosen = [row for row in rows if row.role == "attack" and row.aimed]
    return [
        f"{row.attack}: {row.explainer}’s map correlates with the wanted one by {row.after}, "
        f"{row.before} before, and with its own original by {row.original}."
        for row in chosen[:MOST]
    ]
