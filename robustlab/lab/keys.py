"""Keys of units of work: a hash of everything that their numbers depend on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from robustlab.models.weight_files import weights_revision

SCHEMA: Final = 2  # another number when the same spec comes to mean other numbers


def key_and_place(numbers: Mapping[str, Any], contents: Mapping[str, str]) -> tuple[str, str]:
    """The key, and the same without the contents of the user's own files.

    What ships has the same key on every machine: contents that are "" do not count.
    """
    numbers = {"schema": SCHEMA, **numbers}
    owned = {name: content for name, content in contents.items() if content}
    place = digest(numbers)
    return digest({**numbers, "files": owned}) if owned else place, place


def weights_in(*cards: Mapping[str, Any]) -> str:
    """Hashes of the weight files that options of attacks and explainers name."""
    return "".join(weights_revision(value) for card in cards for value in card.values())


def digest(value: Any) -> str:
    """Twenty hexadecimal digits that stand for plain values."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
