"""Plain JSON values: what a record may hold, and nothing that JSON cannot say."""

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """``value`` as JSON's own types, with NaN and infinities as None.

    Array libraries' scalars are unwrapped by their ``item()``, so that this room needs
    none of these libraries. Floats keep every bit: JSON text is their shortest exact form.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):  # also a subclass: its repr need not be a number
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no plain JSON form")


def dumps(value: Any) -> str:
    """Readable JSON text that ends in a newline; equal values give equal text."""
    return json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
