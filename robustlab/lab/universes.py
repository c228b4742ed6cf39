"""One experiment under many reasonable choices: explainers, each with every combination.

The idea is the multiverse analysis of Steegen, Tuerlinckx, Gelman & Vanpaemel 2016 ("Increasing
transparency through a multiverse analysis"): a conclusion that depends on a choice that nobody
argues for is no conclusion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Final, get_args

from robustlab import explainers
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.judge import Named
from robustlab.core.tables import options_of
from robustlab.lab.waging import Measured, located

TARGETS: Final = get_args(Named)
OWN: Final = "own"
"""The value of a choice that leaves an explainer as the experiment has it."""
TARGET: Final = "target"
Choices = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Universe:
    """One combination, and who stands for each explainer in it.

    Attributes:
        choices: option → value, in the order of the file.
        members: the explainer's label in the file → its variant's label.
    """

    choices: Choices
    members: tuple[tuple[str, str], ...]


def expanded(
    measured: Sequence[Measured], choices: Mapping[str, Sequence[Any]]
) -> tuple[tuple[Measured, ...], tuple[Universe, ...]]:
    """All variants, those of one explainer together, and the universes that they make.

    A choice that an explainer does not have leaves it alone, and variants that come out the
    same are one; the variant that is the explainer itself keeps its label.

    Raises:
        InvalidInput: an option that no explainer has, or a value that is refused.
    """
    if not choices:
        return tuple(measured), ()
    _check(measured, choices)
    combined = [tuple(zip(choices, values, strict=True)) for values in product(*choices.values())]
    known: dict[str, dict[str, Measured]] = {one.label: {} for one in measured}
    members: list[list[tuple[str, str]]] = [[] for _ in combined]
    for one in measured:
        for place, picked in enumerate(combined):
            made = located("multiverse", lambda o=one, p=picked: _variant(o, p))
            made = known[one.label].setdefault(repr(made.card()), made)
            members[place].append((one.label, made.label))
    variants = tuple(made for found in known.values() for made in found.values())
    universes = tuple(
        Universe(picked, tuple(found)) for picked, found in zip(combined, members, strict=True)
    )
    return variants, universes


def _variant(one: Measured, picked: Choices) -> Measured:
    options = {k: v for k, v in picked if k in _options(one) and v != OWN}
    target = options.pop(TARGET, one.target)
    if target not in TARGETS and not isinstance(target, int):
        raise InvalidInput(TARGET, f"unknown value {target!r}", nearest(str(target), TARGETS))
    changed = explainers.build(one.name, **{**options_of(one.explainer), **options})
    made = replace(one, explainer=changed, target=target)
    before, after = _settings(one), _settings(made)
    said = [f"{key}={after[key]}" for key, _ in picked if after.get(key) != before.get(key)]
    return replace(made, label=f"{one.label} ({', '.join(said)})") if said else made


def _settings(one: Measured) -> dict[str, Any]:
    return {**options_of(one.explainer), TARGET: one.target}


def _options(one: Measured) -> set[str]:
    explainer: Any = one.explainer
    return {TARGET, *(field.name for field in fields(explainer))}


def _check(measured: Sequence[Measured], choices: Mapping[str, Sequence[Any]]) -> None:
    known = sorted(set().union(*map(_options, measured)))
    for option, values in choices.items():
        if option not in known:
            raise InvalidInput(
                f"multiverse.{option}", "no explainer has this option", nearest(option, known)
            )
        if len({repr(value) for value in values}) != len(values):
            raise InvalidInput(f"multiverse.{option}", f"{list(values)} names a value twice")
