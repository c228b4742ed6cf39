"""How far an attack may go, and the one place where images are projected and measured."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Budget:
    """A ball around the clean image, intersected with the pixel box [lower, upper].

    ``epsilon`` is in pixel units of [0,1] images: 8/255 for the usual L∞ budget. For
    ``l2`` it is the length of the whole difference image.
    """

    norm: Norm = "linf"
    epsilon: float = 8 / 255
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", parse_number("epsilon", self.epsilon))
        if self.norm not in ("linf", "l2"):
            raise InvalidInput("norm", f"unknown norm {self.norm!r}", "known: linf, l2")
        if not self.lower < self.upper:
            raise InvalidInput("lower", f"box [{self.lower}, {self.upper}] is empty")
        if not self.epsilon >= 0:
            raise InvalidInput("epsilon", f"must be at least 0, got {self.epsilon}")
        if self.norm == "linf" and self.epsilon > self.upper - self.lower:
            raise InvalidInput(
                "epsilon",
                f"{self.epsilon:.4g} is wider than the pixel box [{self.lower}, {self.upper}]",
                "epsilon is in pixel units of [0,1] images: write 8/255, not 8",
            )

    def project(self, candidate: Tensor, origin: Tensor) -> Tensor:
        """The feasible image nearest to ``candidate`` (exact for linf, see below for l2).

        linf: argmin ‖y−candidate‖ over ‖y−origin‖∞ ≤ ε and the box, a clamp of each pixel.
        l2: first the ball, then the box. Both sets contain ``origin`` and clamping to the
        box cannot lengthen the difference, so the result is feasible; it is the nearest
        point only where the box does not bind.
        """
        if self.epsilon == 0:
            return origin.clone()
        if self.norm == "linf":
            low = (origin - self.epsilon).clamp(min=self.lower)
            high = (origin + self.epsilon).clamp(max=self.upper)
            return torch.minimum(torch.maximum(candidate, low), high)
        delta = candidate - origin
        length = _per_image_l2(delta)
        scale = (self.epsilon / length.clamp(min=1e-30)).clamp(max=1.0)
        return (origin + delta * scale.view(-1, 1, 1, 1)).clamp(self.lower, self.upper)

    def radius(self, candidate: Tensor, origin: Tensor) -> Tensor:
        """Distance ``[B]`` of each candidate from its origin, in this budget's norm."""
        delta = candidate - origin
        return delta.flatten(1).abs().amax(1) if self.norm == "linf" else _per_image_l2(delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Unit step of steepest ascent: sign for linf, gradient over its length for l2."""
        if self.norm == "linf":
            return gradient.sign()
        tiny = torch.finfo(gradient.dtype).tiny
        return gradient / _per_image_l2(gradient).clamp(min=tiny).view(-1, 1, 1, 1)


def _per_image_l2(delta: Tensor) -> Tensor:
    """Scaled by the largest pixel: the squares of tiny or huge gradients leave float32."""
    flat = delta.flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(delta.dtype).tiny)
    return (flat / largest).square().sum(1).sqrt() * largest.squeeze(1)


def parse_number(field: str, value: object) -> float:
    """A number, or a fraction written as text: ``"8/255"`` is how papers state budgets."""
    if isinstance(value, str):
        try:
            top, _, bottom = value.partition("/")
            return float(top) / float(bottom or 1)
        except (ValueError, ZeroDivisionError):
            raise InvalidInput(
                field, f"{value!r} is not a number or fraction", "write 8/255"
            ) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(field, f"expected a number or a fraction, got {value!r}")
    return float(value)
