"""LRP rules: how one linear layer hands relevance from its output to its input.

Notation: z = f(x; w, b) is the layer, linear in x; fᵀ(s; w) its transpose in x; R the
relevance at the output; w⁺ = max(w, 0), w⁻ = min(w, 0), likewise x⁺, x⁻, b⁺, b⁻;
stab(z) = z + ε·sign(z) with sign(0) = +1. Every rule returns the relevance of x. All are
built of differentiable operations, so relevance can be differentiated in x and w.

Biases: with ``bias=True`` they stand in the denominators and absorb relevance; with False
they are left out and relevance is conserved layer by layer up to the stabiliser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.linear import Layer

STABILISER = 1e-6


class Rule(Protocol):
    """Relevance of ``x`` from the relevance ``r`` of ``z = layer(x)``; ``box`` as for z^B."""

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor: ...


def stabilised(z: Tensor, epsilon: float = STABILISER) -> Tensor:
    """Lead a denominator away from zero: z + ε·sign(z); two of three kernels in place.

    The sign of −0 is taken as −1: a zero of that sign only arises where every contribution
    is zero, and then there is nothing to share.
    """
    return z.abs().add_(epsilon).copysign_(z)


@dataclass(frozen=True)
class Epsilon:
    """LRP-ε: x ⊙ fᵀ(R / stab_ε(z); w). ε → 0 is LRP-0, input × gradient on a ReLU net.

    Cost: a gradient pass. Source: Bach et al. 2015.
    """

    epsilon: float = STABILISER
    bias: bool = True

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        if not self.bias and layer.bias is not None:
            z = z - _per_channel(layer, z)
        return _times(layer.transpose(over(r, z, self.epsilon), layer.weight, x), x)


@dataclass(frozen=True)
class AlphaBeta:
    """LRP-αβ: α·(share of the positive parts) − β·(share of the negative parts), α − β = 1.

    Positive parts: x⁺w⁺ + x⁻w⁻ (+ b⁺); negative parts: x⁺w⁻ + x⁻w⁺ (+ b⁻). α = 1, β = 0 is
    the z⁺ rule, here for inputs of any sign. Source: Bach et al. 2015; Montavon et al. 2017.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise InvalidInput(
                "alpha",
                f"alpha − beta must be 1 and neither negative, got {self.alpha}, {self.beta}",
            )

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        positive, negative = (
            partial(layer.weight.clamp, **side) for side in ({"min": 0}, {"max": 0})
        )
        up, down = _parts(layer.bias) if self.bias and layer.bias is not None else (None, None)
        shares = _two_sided(layer, x, positive, negative, up, r)
        if not self.beta:  # and α is 1
            return shares
        less = _two_sided(layer, x, negative, positive, down, r)
        return torch.sub(self.alpha * shares, less, alpha=self.beta)


def z_plus(bias: bool = True) -> AlphaBeta:
    """The z⁺ rule: only positive contributions count (deep Taylor's hidden-layer rule)."""
    return AlphaBeta(1.0, 0.0, bias)


@dataclass(frozen=True)
class Gamma:
    """LRP-γ, generalised to inputs of any sign: positive contributions are favoured by γ.

    Where z > 0: shares of x⁺(w + γw⁺) + x⁻(w + γw⁻) + (b + γb⁺); where z < 0: shares of
    x⁺(w + γw⁻) + x⁻(w + γw⁺) + (b + γb⁻). For x ≥ 0 and z > 0 this is the original rule.
    Source: Montavon et al. 2019; the generalisation is Andéol et al. 2021.
    """

    gamma: float = 0.25
    bias: bool = True

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        more = partial(self._favoured, layer.weight, min=0)
        less = partial(self._favoured, layer.weight, max=0)
        up = down = None
        if self.bias and layer.bias is not None:
            up, down = self._favoured(layer.bias, min=0), self._favoured(layer.bias, max=0)
        return _two_sided(layer, x, more, less, up, r * (z > 0)) + _two_sided(
            layer, x, less, more, down, r * (z < 0)
        )

    def _favoured(self, value: Tensor, **side: int) -> Tensor:
        return value + self.gamma * value.clamp(**side)


@dataclass(frozen=True)
class ZBox:
    """z^B for inputs in a box [l, h]: shares of x·w − l·w⁺ − h·w⁻; the bias cancels.

    The lab pushes the pixel box [0,1] through the model's own normalisation to get l and h.
    Source: Montavon et al. 2017.
    """

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        if box is None:
            raise InvalidInput("rule", "z_box needs a layer that sees the image itself")
        low, high = (b.to(x).expand(len(b), *x.shape[1:]) for b in box)
        positive, negative = _parts(layer.weight)
        terms = ((x, layer.weight, 1.0), (low, positive, -1.0), (high, negative, -1.0))
        total = sum(sign * layer.apply(value, weight) for value, weight, sign in terms)
        s = over(r, total)  # type: ignore[arg-type]
        return sum(  # type: ignore[return-value]
            sign * value * layer.transpose(s, weight, x) for value, weight, sign in terms
        )


@dataclass(frozen=True)
class WSquare:
    """w²: shares of the squared weights, whatever the input. Source: Montavon et al. 2017."""

    bias: bool = True

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        squared = layer.weight.square()
        bias = layer.bias.square() if self.bias and layer.bias is not None else None
        total = layer.apply(torch.ones_like(x), squared, bias)
        return layer.transpose(over(r, total), squared, x)


@dataclass(frozen=True)
class Flat:
    """Flat: equal shares for all inputs of a unit. Source: Lapuschkin et al. 2019."""

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        ones = torch.ones_like(layer.weight)
        return layer.transpose(over(r, layer.apply(torch.ones_like(x), ones)), ones, x)


def _two_sided(
    layer: Layer,
    x: Tensor,
    on_plus: Callable[[], Tensor],
    on_minus: Callable[[], Tensor],
    bias: Tensor | None,
    r: Tensor,
) -> Tensor:
    """Shares of x⁺·on_plus + x⁻·on_minus + bias. Behind a ReLU x⁻ = 0 and half is skipped."""
    to_plus = on_plus()
    if bool(x.amin() >= 0):
        s = over(r, layer.apply(x, to_plus, bias))
        return _times(layer.transpose(s, to_plus, x), x)
    to_minus = on_minus()
    plus, minus = x.clamp(min=0), x.clamp(max=0)
    s = over(r, layer.apply(plus, to_plus, bias) + layer.apply(minus, to_minus))
    return _times(layer.transpose(s, to_plus, x), plus) + _times(
        layer.transpose(s, to_minus, x), minus
    )


def over(r: Tensor, z: Tensor, epsilon: float = STABILISER) -> Tensor:
    """Divide: R / stab(z), in place where no graph is wanted (memory is what relevance costs)."""
    denominator = stabilised(z, epsilon)
    if torch.is_grad_enabled():
        return r / denominator
    return torch.div(r, denominator, out=denominator)


def _times(fresh: Tensor, x: Tensor) -> Tensor:
    """Multiply, in place where no graph is wanted: ``fresh`` must be ours alone."""
    return fresh * x if torch.is_grad_enabled() else fresh.mul_(x)


def _parts(value: Tensor) -> tuple[Tensor, Tensor]:
    return value.clamp(min=0), value.clamp(max=0)


def _per_channel(layer: Layer, z: Tensor) -> Tensor:
    assert layer.bias is not None  # noqa: S101
    return layer.bias.view(-1, *(1,) * (z.ndim - 2)) if layer.kind == "conv" else layer.bias
