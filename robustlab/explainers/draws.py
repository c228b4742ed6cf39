"""Which explainers draw random numbers, and the same explainer with other draws."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from robustlab.core.types import Explainer
from robustlab.explainers.defended.aggregate import Aggregate
from robustlab.explainers.gradient.path import IntegratedGradients
from robustlab.explainers.members import read_member, stored
from robustlab.explainers.perturbation.extremal import ExtremalPerturbation
from robustlab.explainers.perturbation.occlusion import Occlusion

ONLY_WITH: Final[Mapping[type[Any], tuple[str, object]]] = {
    IntegratedGradients: ("baseline", "uniform"),
    Occlusion: ("infill", "noise"),
    ExtremalPerturbation: ("infill", "noise"),
}
"""Explainers that draw numbers only with one value of an option."""


def other_draws(explainer: Explainer) -> Explainer | None:
    """The same explainer with the next seed; None where it draws nothing.

    ``fixed_map`` has a seed, but with another one it is another control, not another draw.
    """
    if isinstance(explainer, Aggregate):
        return _aggregate(explainer)
    choice = ONLY_WITH.get(type(explainer))
    draws = choice is None or getattr(explainer, choice[0]) == choice[1]
    seeded: Any = explainer
    if explainer.about.family == "control" or not draws:
        return None
    if "seed" not in {field.name for field in fields(seeded)}:
        return None
    return replace(seeded, seed=seeded.seed + 1)


def _aggregate(explainer: Aggregate) -> Explainer | None:
    members = [read_member(given) for given in explainer.of]
    again = [(name, member, other_draws(member)) for name, member in members]
    if not any(other for _, _, other in again):
        return None
    return replace(explainer, of=tuple(stored(n, other or own) for n, own, other in again))
