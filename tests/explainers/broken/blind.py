"""Controls that explain, or explainers that call themselves free."""

from dataclasses import dataclass

from robustlab.core.types import Passes
from robustlab.explainers.control.fixed import FixedMap
from robustlab.explainers.gradient.plain import Gradient


@dataclass(frozen=True, kw_only=True)
class CostsNothing(Gradient):
    def cost(self):
        return Passes(0, 0)


@dataclass(frozen=True, kw_only=True)
class LooksAtTheClass(FixedMap):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw + targets.view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class LooksAtTheImage(FixedMap):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw + 1e-12 * images.detach().mean((1, 2, 3), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class HasAGraph(FixedMap):
    differentiable = "exact"


BROKEN = [
    (CostsNothing(), "cost is not a number of passes"),
    (LooksAtTheClass(), "a control looks at something"),
    (LooksAtTheImage(), "a control looks at something"),
    (HasAGraph(), "a control with a gradient"),
]
