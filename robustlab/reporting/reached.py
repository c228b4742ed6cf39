"""Targeted success: how many images came to the class that their attack leads to."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from robustlab.records import REACHED, RunRecord

Places = Mapping[tuple[Any, ...], "Reached"]


class Reached(NamedTuple):
    """Images over all seeds: ``hits`` of ``aimed``. Those that were of the class before are
    neither, and what diverged or broke its budget proves nothing.
    """

    hits: int = 0
    aimed: int = 0

    @property
    def rate(self) -> float | None:
        return self.hits / self.aimed if self.aimed else None


def reached(records: Iterable[RunRecord]) -> Places:
    """(model, data, made_on, explainer, against, attack, norm, ε) → success of the attack."""
    found: dict[tuple[Any, ...], Reached] = {}
    for record in records:
        cell = record.cell
        where = cell.model, cell.data, cell.made_on or ""
        attack = cell.against or "", cell.attack, cell.budget.ball, cell.budget.epsilon
        for image in record.images:
            for explainer, facts in image.facts.items():
                hit = facts.get(REACHED)
                if hit is not None and image.outcome in ("ok", "infeasible"):
                    key = *where, explainer, *attack
                    hits, aimed = found.get(key, Reached())
                    found[key] = Reached(hits + int(hit), aimed + 1)
    return found
