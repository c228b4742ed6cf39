"""Does the model use what the map points at? Pixels removed, or shown, in the map's order.

All three walk through one picture's pixels in the map's order and read the softmax
probability of the target on the way. Pixels are compared by value, so of a signed map the
most positive come first; of equal ones the first in reading order. Only the order counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Passes
from robustlab.metrics.asking import answers, places, scored
from robustlab.metrics.stand_in import Baseline, check_baseline, stand_in


@dataclass(frozen=True, kw_only=True)
class _Removal:
    """What the three share: how many parts the pixels are divided into, and what replaces them.

    Attributes:
        steps: parts, removed or shown one after the other.
        baseline: *black*; *mean*, the image's own mean colour; *blur*, the image under a Gaussian
            whose standard deviation is ``blur`` times its shorter side.
    """

    only_order: ClassVar[bool] = True
    steps: int = 28
    baseline: Baseline = "mean"
    blur: float = 0.15

    def __post_init__(self) -> None:
        steps = self.steps
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise InvalidInput("steps", f"must be a whole number of at least 1, got {steps!r}")
        check_baseline(self.baseline, self.blur)

    def cost(self) -> Passes:
        return Passes(self.steps + 1, 0)


@dataclass(frozen=True, kw_only=True)
class Deletion(_Removal):
    """Area under the target's probability while the most important pixels are removed first.

    p_k is softmax(f)_t of the image whose first n_k = ⌊k·n/steps⌋ of n pixels, most important
    first, show the baseline instead, k = 0..steps. With x_k = n_k/n the value is the
    trapezoid area Σ_k (x_{k+1} − x_k)(p_k + p_{k+1})/2, in [0, 1]: lower is more faithful.

    ``baseline``: *black*; *mean*, the image's own mean colour; *blur*, the image under a
    Gaussian whose standard deviation is ``blur`` times its shorter side. Maps ``[B,H,W]``,
    one float64 number per image. Ties: first in reading order; a constant map removes pixels
    in reading order. Chance: a random order on the same image. Cost: steps + 1 forward passes.
    Memory: one micro-batch, whatever ``steps`` is.

    Source: Petsiuk, Das & Saenko 2018, RISE, who remove H pixels of H² at a time and put zero
    in their place after normalisation, which is the mean colour of all their images.

    Raises:
        InvalidInput: more steps than pixels, maps that do not fit the images, NaN in a map.
    """

    name: ClassVar[str] = "deletion"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        removed = stand_in(images, self.baseline, self.blur)
        return _area(*_walk(model, images, removed, targets, maps, self.steps))


@dataclass(frozen=True, kw_only=True)
class Insertion(_Removal):
    """Area under the target's probability while the most important pixels are shown first.

    As *deletion*, from the other end: p_k is softmax(f)_t of the baseline whose first
    n_k = ⌊k·n/steps⌋ of n pixels, most important first, show the image, k = 0..steps, and the
    value Σ_k (x_{k+1} − x_k)(p_k + p_{k+1})/2 with x_k = n_k/n, in [0, 1]: higher is more
    faithful.

    ``baseline``: *black*; *mean*, the image's own mean colour; *blur*, the image under a
    Gaussian whose standard deviation is ``blur`` times its shorter side. Maps ``[B,H,W]``,
    one float64 number per image. Ties: first in reading order; a constant map shows pixels
    in reading order. Chance: a random order on the same image. Cost: steps + 1 forward passes.
    Memory: one micro-batch, whatever ``steps`` is.

    Source: Petsiuk, Das & Saenko 2018, RISE, who show H pixels of H² at a time and blur with
    an 11×11 kernel, hardly wide enough to hide an object.

    Raises:
        InvalidInput: more steps than pixels, maps that do not fit the images, NaN in a map.
    """

    name: ClassVar[str] = "insertion"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    baseline: Baseline = "blur"

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        hidden = stand_in(images, self.baseline, self.blur)
        return _area(*_walk(model, hidden, images, targets, maps, self.steps))


@dataclass(frozen=True, kw_only=True)
class PixelFlipping(_Removal):
    """Mean loss of the target's probability while the most important pixels are removed first.

    AOPC = 1/(L+1) Σ_k (p_0 − p_k), k = 0..L with L = ``steps`` and p_k as in *deletion*, in
    [−1, 1]: higher is more faithful, and a random order is what to compare with.

    It is deletion, told as a loss. Where n/L is whole, deletion is the area A with the two
    ends counted half, and AOPC = p_0 − (L·A + (p_0 + p_L)/2)/(L+1). Neither p_0, the image,
    nor p_L, the bare baseline, depends on the map: on one image both rank maps alike. They
    differ between images and models, where AOPC asks what was lost of the confidence that
    was there, and deletion what is left.

    ``baseline``: *black*; *mean*, the image's own mean colour; *blur*, the image under a
    Gaussian whose standard deviation is ``blur`` times its shorter side. Maps ``[B,H,W]``,
    one float64 number per image. Ties: first in reading order; a constant map removes pixels
    in reading order. Chance: a random order on the same image. Cost: steps + 1 forward passes.
    Memory: one micro-batch, whatever ``steps`` is.

    Source: Bach et al. 2015 for the flipping, Samek et al. 2017 for AOPC. They replace square
    regions by noise and stop early; here single pixels by a baseline, to the last one.

    Raises:
        InvalidInput: more steps than pixels, maps that do not fit the images, NaN in a map.
    """

    name: ClassVar[str] = "pixel_flipping"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        removed = stand_in(images, self.baseline, self.blur)
        _, said = _walk(model, images, removed, targets, maps, self.steps)
        return (said[:1] - said).mean(0)


def _walk(
    model: nn.Module, start: Tensor, end: Tensor, targets: Tensor, maps: Tensor, steps: int
) -> tuple[list[float], Tensor]:
    """Shares of pixels ``[steps+1]`` that have gone from ``start`` to ``end`` in the map's
    order, and what the model then says of the target, ``[steps+1,B]`` in float64.
    """
    place = places(maps, start)
    pixels = place[0].numel() if len(place) else steps
    if steps > pixels:
        raise InvalidInput("steps", f"{steps} is more than the {pixels} pixels of a map")
    cuts = [k * pixels // steps for k in range(steps + 1)]

    def alter(part: Tensor, k: int, where: slice) -> Tensor:
        return torch.where((place[where] < cuts[k]).unsqueeze(1), end[where], part)

    said = answers(model, start, targets, steps + 1, alter, scored("prob"))
    return [cut / pixels for cut in cuts], said


def _area(shares: Sequence[float], said: Tensor) -> Tensor:
    """Trapezoids; rounding may leave the bounds by a hair."""
    return torch.trapezoid(said, said.new_tensor(shares), dim=0).clamp(0.0, 1.0)
