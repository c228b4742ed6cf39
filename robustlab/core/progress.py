"""How far a long computation is, for whoever shows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Told after every step of a training."""

    step: int
    steps: int
    parts: Mapping[str, float]


Watch = Callable[[Progress], None]
