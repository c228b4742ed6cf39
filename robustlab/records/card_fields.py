"""How the parts of a scorecard are read, beyond what every record needs."""

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

from robustlab.records.checking import Fields

T = TypeVar("T")


def names(part: type) -> tuple[str, ...]:
    """The fields that the object of a part has."""
    return tuple(field.name for field in fields(part))


def optional(read: Fields, key: str, part: Callable[[Fields], T]) -> T | None:
    """The part that was measured, or None; left out is not the same, and refused."""
    return None if read.get(key) is None else part(read.object(key))


def each(read: Fields, key: str) -> list[Fields]:
    """The objects of a list."""
    place = read.path(key)
    return [Fields.of(item, f"{place}[{i}]") for i, item in enumerate(read.items(key))]


def count(read: Fields, key: str) -> int:
    """How many: no less than none."""
    value = read.whole(key)
    if value < 0:
        raise ValueError(f"{read.path(key)}: cannot be {value}")
    return value
