"""Training: one fit loop, and the small networks that ship with the project."""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.tables import build as _build

TRAINING: Final[Mapping[str, type]] = {}


def build(name: str, **options: Any) -> Any:
    """The training objective of that name; unknown names get the nearest spelling."""
    return _build(TRAINING, "training", name, options)
