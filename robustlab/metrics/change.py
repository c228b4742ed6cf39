"""How far an attribution has moved, alone or for a change of something else: pure ratios.

``[n,...]`` in, one float64 number ``[n]`` out, differentiable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Rows
from robustlab.metrics.pairs import LARGEST, home

# (images, which of the problem's they are) -> the denominator [n], and which count, [n]
Below = Callable[[Tensor, Rows], tuple[Tensor, Tensor]]


def length(change: Tensor) -> Tensor:
    """‖·‖₂ of everything that belongs to an image; its slope at 0 is 0.

    Scaled by the largest number: squares of tiny or huge gradients leave the range of floats.
    """
    flat = exact(change).flatten(1)
    largest = flat.detach().abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    return (flat / scale).norm(dim=1) * scale.squeeze(1)


def moved(clean: Tensor, now: Tensor) -> Tensor:
    """‖Φ' − Φ‖₂ / ‖Φ‖₂, where an all-zero Φ counts as long as Φ'."""
    before, after = exact(clean), exact(now)
    zero = (before == 0).flatten(1).all(1)
    base = torch.where(zero, length(after), length(before))
    return _over(length(after - before), base)


def distance(clean: Tensor, now: Tensor) -> Tensor:
    """‖Φ' − Φ‖₂."""
    return length(exact(now) - exact(clean))


def relative(before: Tensor, after: Tensor, zero: float | None = None) -> Tensor:
    """‖(a' − a) / a‖₂, number by number.

    Where a is 0 it is left out, or with a ``zero`` divided by that instead.
    """
    a, b = exact(before), exact(after)
    nothing = a == 0
    base = torch.where(nothing, 1.0 if zero is None else zero, a)
    change = (b - a) / base
    return length(change.masked_fill(nothing, 0.0) if zero is None else change)


@dataclass(frozen=True, eq=False)
class Ratio:
    """``above(Φ, Φ')`` over ``below`` of the images: what a search can climb, and what counts.

    ``shown`` makes Φ' of a raw attribution; ``clean`` is Φ at the problem's images. Over a
    denominator of 0 the ratio is 0. A number beyond the range of float64 is its largest one.
    """

    clean: Tensor
    shown: Callable[[Tensor], Tensor]
    above: Callable[[Tensor, Tensor], Tensor]
    below: Below | None = None

    def loss(self, images: Tensor, raw: Tensor, rows: Rows) -> Tensor:
        return self._both(images, raw, rows)[0]

    def value(self, images: Tensor, raw: Tensor, rows: Rows) -> Tensor:
        check_finite(raw)
        with torch.no_grad():
            ratio, counts = self._both(images, raw, rows)
        return torch.where(counts, ratio.clamp(max=LARGEST), -torch.inf)

    def _both(self, images: Tensor, raw: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        far = self.above(self.clean[rows], self.shown(raw))
        if self.below is None:
            return far, torch.ones_like(far, dtype=torch.bool)
        denominator, counts = self.below(images, rows)
        return _over(far, denominator), counts


def check_finite(raw: Tensor) -> None:
    """Refuse an attribution that is no number somewhere, before it spoils a maximum or a mean.

    Raises:
        InvalidInput: NaN or infinite values.
    """
    if not bool(torch.isfinite(raw).all()):
        raise InvalidInput("explainer", "its attribution contains NaN or infinite values")


def exact(values: Tensor) -> Tensor:
    """In float64, where that can be had."""
    return values.to(home(values.device), torch.float64)


def _over(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), above * 0)
