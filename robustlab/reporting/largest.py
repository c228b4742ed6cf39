"""What a page shows first: everything at its largest budget, the smaller ones folded away."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar


class Placed(Protocol):
    """Something that was measured at one or several budgets in the same place."""

    @property
    def place(self) -> Hashable: ...
    @property
    def epsilon(self) -> float: ...


T = TypeVar("T", bound=Placed)


def largest(found: Sequence[T]) -> tuple[list[T], list[T]]:
    """Those at the largest budget of their place, and the others; both in the order given."""
    most: dict[Hashable, float] = {}
    for item in found:
        most[item.place] = max(item.epsilon, most.get(item.place, item.epsilon))
    shown = [item for item in found if item.epsilon == most[item.place]]
    return shown, [item for item in found if item.epsilon < most[item.place]]
