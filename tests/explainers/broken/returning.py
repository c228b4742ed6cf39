"""Explainers that return the wrong thing."""

from dataclasses import dataclass

from robustlab.explainers.gradient.plain import Gradient, InputXGradient


@dataclass(frozen=True, kw_only=True)
class SinglePrecision(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw).float()


@dataclass(frozen=True, kw_only=True)
class ReturnsMaps(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw).sum(1)


@dataclass(frozen=True, kw_only=True)
class NotFinite(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw / (raw.abs() > raw.abs().mean())


@dataclass(frozen=True, kw_only=True)
class KeepsItsGraph(InputXGradient):
    """Multiplies by images that may want a gradient: the graph lacks half the derivative."""

    def explain(self, model, images, targets, **kw):
        return images * self._gradient.explain(model, images, targets, **kw)


BROKEN = [
    (SinglePrecision(), "another dtype"),
    (ReturnsMaps(), r"not \[B,C,h,w\]"),
    (NotFinite(), "not finite"),
    (KeepsItsGraph(), "carries a graph"),
]
