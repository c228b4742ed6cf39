"""How far an attack may go, and the one place where images are projected and measured."""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput

Norm = Literal["linf", "l2", "patch"]

# A pixel k/255 and a radius of 2/255 are both rounded: without this, in grey levels, float32
# would often reach one level less. It stays below the judge's own tolerance.
LEVEL_TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Budget:
    """A ball around the clean image, intersected with the pixel box [lower, upper].

    ``epsilon`` is in pixel units of [0,1] images: 8/255 for the usual L∞ budget. For ``l2``
    it is the length of the whole difference image. For ``patch`` it is the largest share of
    the picture that a square may cover; inside the square any value in the box is allowed.

    ``bits`` = 8 asks for pixels that an 8-bit file can hold: k/255 with a whole k, rounded
    once in the images' own precision, which is what reading such a file gives.
    """

    norm: Norm = "linf"
    epsilon: float = 8 / 255
    lower: float = 0.0
    upper: float = 1.0
    bits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", parse_number("epsilon", self.epsilon))
        if self.norm not in ("linf", "l2", "patch"):
            raise InvalidInput("norm", f"unknown norm {self.norm!r}", "known: linf, l2, patch")
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
        if self.norm == "patch" and self.epsilon > 1:
            raise InvalidInput(
                "epsilon",
                f"a patch cannot cover {self.epsilon:.4g} times the picture",
                "for norm patch it is a share of the area: 0.05 is a twentieth",
            )
        if self.bits not in (None, 8) or isinstance(self.bits, float):
            raise InvalidInput(
                "bits", f"expected 8 or nothing, got {self.bits!r}", "8 is what PNG and JPEG hold"
            )

    @property
    def free(self) -> "Budget":
        """The same ball without the grid: for iterates, whose steps rounding would swallow."""
        return self if self.bits is None else replace(self, bits=None)

    def finished(self, images: Tensor, origin: Tensor) -> Tensor:
        """Images inside the ball as they are handed over: on the grid, where one is asked for."""
        return images if self.bits is None else self.project(images, origin)

    def project(self, candidate: Tensor, origin: Tensor) -> Tensor:
        """The feasible image nearest to ``candidate`` (exact for linf, see below).

        linf: argmin ‖y−candidate‖ over ‖y−origin‖∞ ≤ ε and the box, a clamp of each pixel.
        l2: first the ball, then the box. Both sets contain ``origin`` and clamping to the
        box cannot lengthen the difference, so the result is feasible; it is the nearest
        point only where the box does not bind.
        patch: the box; then, unless all changes fit a square of side s = ⌊√(ε·H·W)⌋, only
        those inside the s×s window with the largest Σ(candidate−origin)² remain (the first
        such window, row by row). Pixels that did not change stay bit for bit.

        With ``bits`` = 8 and L = {0, 1/255, ..., 1}, per pixel:
        linf: argmin |y−candidate| over L ∩ [max(lower, origin−ε), min(upper, origin+ε)].
        l2: y as above, then the value of L between origin and y that is nearest to y: no
        difference grows, so neither does the length. patch: inside the window the value of
        L ∩ [lower, upper] nearest to the candidate. A pixel for which there is no such value
        keeps its origin, so that pixels between two levels may remain there.
        """
        if self.epsilon == 0:
            return origin.clone()
        if self.norm == "patch":
            return self._project_patch(candidate, origin)
        if self.norm == "linf":
            if self.bits is not None:
                exact = origin.double()
                low, high = exact - self.epsilon, exact + self.epsilon
                return self._nearest_level(candidate, origin, low, high)
            low = (origin - self.epsilon).clamp(min=self.lower)
            high = (origin + self.epsilon).clamp(max=self.upper)
            return torch.minimum(torch.maximum(candidate, low), high)
        delta = candidate - origin
        length = _per_image_l2(delta)
        scale = (self.epsilon / length.clamp(min=1e-30)).clamp(max=1.0).view(-1, 1, 1, 1)
        inside = (origin + delta * scale).clamp(self.lower, self.upper)
        return inside if self.bits is None else _level_towards(inside, origin)

    def radius(self, candidate: Tensor, origin: Tensor) -> Tensor:
        """Distance ``[B]`` of each candidate from its origin, in this budget's norm.

        patch: s²/(H·W) with s the side of the smallest square that covers all changed pixels.
        """
        if self.norm == "patch":
            side = _side_of(candidate != origin)
            return side.to(origin.dtype).square() / (origin.shape[-2] * origin.shape[-1])
        delta = candidate - origin
        return delta.flatten(1).abs().amax(1) if self.norm == "linf" else _per_image_l2(delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Unit step of steepest ascent: gradient over its length for l2, else its sign."""
        if self.norm != "l2":
            return gradient.sign()
        tiny = torch.finfo(gradient.dtype).tiny
        return gradient / _per_image_l2(gradient).clamp(min=tiny).view(-1, 1, 1, 1)

    def side(self, images: Tensor) -> int:
        """Side in pixels of the largest square that a patch budget allows: ⌊√(ε·H·W)⌋."""
        return int(sqrt(self.epsilon * images.shape[-2] * images.shape[-1]) + 1e-9)

    def _project_patch(self, candidate: Tensor, origin: Tensor) -> Tensor:
        changed = candidate != origin
        inside = torch.full_like(origin, self.lower), torch.full_like(origin, self.upper)
        wanted = (
            candidate.clamp(self.lower, self.upper)
            if self.bits is None
            else self._nearest_level(candidate, origin, *inside)
        )
        wanted = torch.where(changed, wanted, origin)
        changed = wanted != origin
        height, width = origin.shape[-2:]
        side = min(self.side(origin), height, width)
        if side == 0:
            return origin.clone()
        fits = _side_of(changed) <= self.side(origin)
        keep = _heaviest_window((wanted - origin).double().square().sum(1), side)
        keep = (keep | fits.view(-1, 1, 1)).unsqueeze(1)
        return torch.where(keep, wanted, origin)

    def _nearest_level(self, wanted: Tensor, origin: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The value of L ∩ [low, high] ∩ box nearest to ``wanted``; ``origin`` if there is none."""
        low, high = low.double().clamp(min=self.lower), high.double().clamp(max=self.upper)
        first = (255 * low - LEVEL_TOLERANCE).ceil().clamp(min=0)
        last = (255 * high + LEVEL_TOLERANCE).floor().clamp(max=255)
        level = (255 * wanted.double()).round()
        level = torch.minimum(torch.maximum(level, first), last)
        return torch.where(first <= last, _value_of(level, origin), origin)


def _level_towards(wanted: Tensor, origin: Tensor) -> Tensor:
    """The value of L nearest to ``wanted`` on the way back to ``origin``; else the origin.

    The tolerance is a share of each pixel's own difference, hence of the whole length.
    """
    change = 255 * (wanted.double() - origin.double())
    slack = LEVEL_TOLERANCE * change.abs() + LEVEL_TOLERANCE / 10
    target = 255 * wanted.double()
    level = torch.where(change > 0, (target + slack).floor(), (target - slack).ceil())
    ahead = (level - 255 * origin.double()) * change > 0
    return torch.where(ahead & (level >= 0) & (level <= 255), _value_of(level, origin), origin)


def _value_of(level: Tensor, like: Tensor) -> Tensor:
    """k/255 rounded once: dividing by a number multiplies by 1/255 on some devices."""
    level = level.to(like.dtype)
    return level / torch.full_like(level, 255)


def _side_of(changed: Tensor) -> Tensor:
    """Side ``[B]`` of the smallest square around all true pixels of ``[B,C,H,W]``; 0 for none."""
    changed = changed.any(1)
    sides = []
    for axis in (1, 2):
        line = changed.any(axis)
        places = torch.arange(line.shape[1], device=line.device)
        first = torch.where(line, places, line.shape[1]).amin(1)
        last = torch.where(line, places, -1).amax(1)
        sides.append((last - first + 1).clamp(min=0))
    return torch.maximum(*sides)


def _heaviest_window(weight: Tensor, side: int) -> Tensor:
    """Membership ``[B,H,W]`` of the side×side window with the largest sum, the first of equals."""
    rows = F.avg_pool2d(weight.unsqueeze(1), (1, side), stride=1)
    sums = F.avg_pool2d(rows, (side, 1), stride=1).squeeze(1)
    best = sums.flatten(1).argmax(1)
    top, left = best // sums.shape[2], best % sums.shape[2]
    down = torch.arange(weight.shape[1], device=weight.device) - top.unsqueeze(1)
    right = torch.arange(weight.shape[2], device=weight.device) - left.unsqueeze(1)
    inside = ((down >= 0) & (down < side)), ((right >= 0) & (right < side))
    return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)


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
