"""A region that a model uses and its maps no longer show: the section "Hidden reasons"."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import RunRecord
from robustlab.reporting.statistics import Interval
from robustlab.reporting.told import Told, told
from robustlab.reporting.wording import attack_name, percent, with_interval

AFTER: Final = "energy_hidden"
LEFT: Final = 0.5
"""Less than this share of what a map showed in the region counts as concealed."""


@dataclass(frozen=True)
class Concealed:
    """One explainer under one concealment.

    Attributes:
        aimed: was the model trained against this explainer?
        before, after: the share of the map that lies in the region.
        changed_before, changed: predictions that change when the region is hidden.
        right_before, right: accuracy when the region is hidden.
    """

    model: str
    explainer: str
    attack: str
    against: str
    aimed: bool
    before: Interval
    after: Interval
    changed_before: Interval
    changed: Interval
    right_before: Interval
    right: Interval

    @property
    def fooled(self) -> str:
        """Does this explainer still show the region? In words."""
        if self.before.mean is None or self.after.mean is None:
            return "–"
        return "yes" if self.after.mean < LEFT * self.before.mean else "no"

    @property
    def cells(self) -> tuple[str, ...]:
        """The numbers with their intervals, in the table's order."""
        shares = (self.before, self.after, self.changed_before, self.changed)
        return tuple(
            with_interval(i.mean, i.low, i.high) for i in (*shares, self.right_before, self.right)
        )


def concealed(records: Iterable[RunRecord]) -> list[Concealed]:
    """One row per explainer and concealment; empty without any."""
    return [_row(one) for one in told(records, AFTER)]


def _row(one: Told) -> Concealed:
    aim = one.aim
    return Concealed(
        model=aim.model,
        explainer=aim.explainer,
        attack=attack_name(aim),
        against=aim.against,
        aimed=aim.against == aim.explainer,
        before=one.mean(f"{AFTER}_before"),
        after=one.mean(AFTER),
        changed_before=one.mean("changed_when_hidden_before"),
        changed=one.mean("changed_when_hidden"),
        right_before=one.mean("right_when_hidden_before"),
        right=one.mean("right_when_hidden"),
    )


def concealed_headlines(rows: Sequence[Concealed]) -> list[str]:
    """One sentence for every model, with the explainers that still tell."""
    return [_sentence(row, rows) for row in rows if row.aimed]


def _sentence(row: Concealed, rows: Sequence[Concealed]) -> str:
    others = [o for o in rows if (o.model, o.against) == (row.model, row.against) and not o.aimed]
    others = [o for o in others if o.attack.startswith(row.attack)]
    fooled, honest = ([o.explainer for o in others if o.fooled == word] for word in ("yes", "no"))
    text = (
        f"{row.attack}: the region holds {_share(row.after)} of {row.explainer}’s map, "
        f"{_share(row.before)} before, yet hiding it changes {_share(row.changed)} of the "
        f"predictions, {_share(row.changed_before)} before."
    )
    text += f" Deceived as well: {', '.join(fooled)}." if fooled else ""
    return text + (f" Not deceived: {', '.join(honest)}." if honest else "")


def _share(interval: Interval) -> str:
    return "an unknown share" if interval.mean is None else percent(interval.mean)
