"""Explainers that lie about themselves."""

from dataclasses import dataclass

from robustlab.core.types import Passes
from robustlab.explainers.gradient.plain import Gradient
from robustlab.explainers.gradient.smoothed import SmoothGrad


@dataclass(frozen=True, kw_only=True)
class UnderstatesItsCost(SmoothGrad):
    samples: int = 2

    def cost(self):
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class ForgetsTheBackwardPass(Gradient):
    def cost(self):
        return Passes(1, 0)


@dataclass(kw_only=True)
class CanBeEdited:
    score: str = "logit"
    differentiable = "exact"
    post = "abs_sum"

    def cost(self):
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class KeepsAList(Gradient):
    sizes: list[int] | None = None

    def __post_init__(self):
        object.__setattr__(self, "sizes", [1, 2])


@dataclass(frozen=True, kw_only=True, eq=False)
class OnlyEqualToItself(Gradient):
    __eq__, __hash__ = object.__eq__, object.__hash__


BROKEN = [
    (UnderstatesItsCost(), "states Passes"),
    (ForgetsTheBackwardPass(), "states Passes"),
    (CanBeEdited(), "not frozen"),
    (KeepsAList(), "not hashable"),
    (OnlyEqualToItself(), "a copy is not equal"),
]
