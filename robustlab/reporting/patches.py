"""Whether a map shows the patch that changed the prediction: the section "On the patch"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import RunRecord
from robustlab.reporting.statistics import Interval
from robustlab.reporting.told import Told, told
from robustlab.reporting.wording import attack_name, budget, percent, with_interval

BEFORE: Final = "energy_in_patch_before"
AFTER: Final = "energy_in_patch"


@dataclass(frozen=True)
class Patched:
    """One explainer's maps under one patch: what share of them lies on its pixels.

    Attributes:
        aimed: was the patch made against this explainer?
        before: of the clean map on the same pixels. after: of the map with the patch.
    """

    model: str
    explainer: str
    attack: str
    area: str
    role: str
    aimed: bool
    before: Interval
    after: Interval
    changed: str

    @property
    def shown(self) -> tuple[str, str]:
        """Both shares with their intervals, as text."""
        pair = (self.before, self.after)
        before, after = (with_interval(i.mean, i.low, i.high) for i in pair)
        return before, after


def patched(records: Iterable[RunRecord]) -> list[Patched]:
    """One row per explainer and patch; empty without patches."""
    return [_row(one) for one in told(records, AFTER)]


def _row(one: Told) -> Patched:
    aim = one.aim
    return Patched(
        model=aim.model,
        explainer=aim.explainer,
        attack=attack_name(aim),
        area=budget(aim.ball, aim.epsilon),
        role=aim.role,
        aimed=aim.against == aim.explainer,
        before=one.mean(BEFORE),
        after=one.mean(AFTER),
        changed=f"{len(one.items) - one.kept} of {len(one.items)}",
    )


def patch_headlines(rows: Sequence[Patched]) -> list[str]:
    """One sentence for every patch that was made to hide from the explainer it is seen with."""
    return [_sentence(row, rows) for row in rows if row.role == "attack" and row.aimed]


def _sentence(row: Patched, rows: Sequence[Patched]) -> str:
    place = row.model, row.explainer, row.area
    beside = [
        other
        for other in rows
        if (other.model, other.explainer, other.area) == place
        and other.role == "attack"
        and not other.aimed
    ]
    rest = "".join(f", under {other.attack} {_share(other)}" for other in beside)
    return (
        f"{row.attack}, on {row.area} of the picture, holds {_share(row)} of {row.explainer}’s "
        f"map{rest}. It changed the prediction on {row.changed}."
    )


def _share(row: Patched) -> str:
    return "an unknown share" if row.after.mean is None else percent(row.after.mean)
