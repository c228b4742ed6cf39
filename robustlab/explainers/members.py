"""Explainers named inside other components: in one stored form, however they were written."""

from collections.abc import Mapping
from typing import Any

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import build, options_of
from robustlab.core.types import Explainer

# an explainer by name, with all its options: plain, hashable, and the same after JSON
Member = tuple[str, tuple[tuple[str, Any], ...]]
# ``gradient``, or with options ``{name: smooth_grad, samples: 8}``, or as it is stored
Given = str | Member | Mapping[str, Any]


def read_member(given: Given) -> tuple[str, Explainer]:
    """The name and the explainer that is meant; a refusal names the field ``of``.

    Raises:
        InvalidInput: no name, an unknown one, or wrong options.
    """
    name, options = _parsed(given)
    try:
        return name, build(_table(), "explainer", name, options)
    except InvalidInput as error:
        raise error.within("of") from None


def stored(name: str, explainer: Explainer) -> Member:
    """With all options, also those at their defaults: a record says what was computed."""
    return name, tuple(options_of(explainer).items())


def rebuilt(member: Member) -> Explainer:
    """The explainer that was stored."""
    name, options = member
    return _table()[name](**dict(options))


def _parsed(given: Given) -> tuple[str, dict[str, Any]]:
    """Name and options, however they were written."""
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping):
        if "name" not in given:
            raise InvalidInput("of", f"{dict(given)} names no explainer", "write {name: ...}")
        return given["name"], {key: value for key, value in given.items() if key != "name"}
    name, options = given
    return name, dict(options)


def _table() -> Mapping[str, type[Explainer]]:
    # The table holds the aggregate itself, so it exists only after this file has been imported.
    from robustlab.explainers import EXPLAINERS

    return EXPLAINERS
