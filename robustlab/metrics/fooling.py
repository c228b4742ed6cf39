"""Has a manipulated model's map gone where it was told to?

The three distances are differentiable: the attacks descend what the metric judges.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import TINY
from robustlab.core.tables import check_finite
from robustlab.metrics.pairs import by_parts, unit_peak
from robustlab.metrics.ranks import highest

Goal = Literal["location", "top_k", "center_mass"]
FOOLED: Final[dict[Goal, tuple[float, float]]] = {
    "location": (0.0, 0.2),
    "top_k": (0.0, 0.3),
    "center_mass": (0.1, 1.0),
}
"""The published thresholds: a distance in this interval is a success."""
TENTH: Final = 10
FRAME: Final = 7  # the frame is a seventh of the shorter side wide


@dataclass(frozen=True, kw_only=True)
class FoolingSuccessRate:
    """Share of images whose map a manipulated model has put where it was told to: 1 or 0 each.

    Maps ``[B,H,W]`` twice, of the true and of the manipulated model, → ``[B]`` float64. With
    h the map's positive part over its largest value and T(h) the distance of ``goal``:

    - *location*: mean (M − h)², M = 1 on a frame of width ⌊min(H, W)/7⌋ and 0 inside;
    - *top_k*: mean of h² over the ⌈H·W/10⌉ highest pixels of the true model's map;
    - *center_mass*: √((Δr² + Δc²)/2), the shift of the centre of mass, as shares of the
      height and width less one.

    An image counts where ``low`` ≤ T ≤ ``high``, by default the published intervals [0, 0.2],
    [0, 0.3] and [0.1, 1], *and* the true model's own map is not in the interval already,
    which is our addition: the rate of a model held against itself is 0. A map without a
    positive part points nowhere and counts as a constant one: extinguishing a map is no
    success. Ties among the highest pixels go to the first in reading order.

    A rate says nothing of a model that has forgotten its task: read it beside the accuracy.

    Source: Heo, Joo and Moon, NeurIPS 2019.
    """

    name: ClassVar[str] = "fooling_success_rate"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    goal: Goal = "location"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            check_finite(name, getattr(self, name))
        low, high = self.interval
        if not low < high:
            raise InvalidInput("low", f"{low:g} is not below high = {high:g}")

    @property
    def interval(self) -> tuple[float, float]:
        """Distances between these two are successes."""
        low, high = FOOLED[self.goal]
        return (low if self.low is None else self.low, high if self.high is None else self.high)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        before, after = (
            self._within(distance(self.goal, clean, maps)) for maps in (clean, perturbed)
        )
        return (after & ~before).double()

    def _within(self, distances: Tensor) -> Tensor:
        low, high = self.interval
        return (low <= distances) & (distances <= high)

    def chance(self, pixels: int) -> float | None:
        """None: depends on how the maps' values are spread."""
        return None


def distance(goal: Goal, clean: Tensor, maps: Tensor) -> Tensor:
    """T of maps ``[B,H,W]`` beside the true model's: ``[B]``, differentiable in ``maps``."""
    if goal == "location":
        return frame_error(maps)
    if goal == "top_k":
        return top_strength(maps, highest_share(clean))
    return centers_apart(clean, maps)


def frame_error(maps: Tensor) -> Tensor:
    """Mean square of frame − h, ``[B]``: 0 for a map that is the frame."""
    return (frame(maps) - brightness(maps)).square().mean((1, 2))


def top_strength(maps: Tensor, top: Tensor) -> Tensor:
    """Mean of h² over the pixels ``top`` (bool ``[B,H,W]``), ``[B]``."""
    return (brightness(maps).square() * top).sum((1, 2)) / top.sum((1, 2))


def centers_apart(clean: Tensor, maps: Tensor) -> Tensor:
    """Root mean square shift of the centre of h along both axes, each as a share: ``[B]``."""
    shift = center(maps) - center(clean)
    # the square root has no slope at 0, where an unmoved centre is
    return (shift.square().mean(1) + TINY).sqrt() * (shift != 0).any(1)


def center(maps: Tensor) -> Tensor:
    """Centre of mass ``[B,2]`` of h, 0 in the first row and column and 1 in the last."""
    weight = brightness(maps)
    weight = weight / weight.sum((1, 2), keepdim=True)
    height, width = maps.shape[1:]
    rows = torch.linspace(0, 1, height, dtype=maps.dtype, device=maps.device)
    columns = torch.linspace(0, 1, width, dtype=maps.dtype, device=maps.device)
    return torch.stack([(weight.sum(2) * rows).sum(1), (weight.sum(1) * columns).sum(1)], 1)


def brightness(maps: Tensor) -> Tensor:
    """h: the positive part over its largest value; 1 everywhere where there is none."""
    positive = unit_peak(maps).clamp(min=0)
    top = positive.amax((1, 2), keepdim=True)
    return torch.where(top > 0, positive / top.clamp(min=TINY), 1.0)


def frame(like: Tensor) -> Tensor:
    """M ``[H,W]``: 1 on the border, a seventh of the shorter side wide and at least a pixel."""
    height, width = like.shape[-2:]
    wide = max(1, min(height, width) // FRAME)
    picture = torch.ones(height, width, dtype=like.dtype, device=like.device)
    picture[wide : height - wide, wide : width - wide] = 0
    return picture


def highest_share(maps: Tensor) -> Tensor:
    """The tenth of the pixels with the highest values, bool ``[B,H,W]``."""
    pixels = maps.shape[1] * maps.shape[2]
    return highest(maps.flatten(1), ceil(pixels / TENTH)).view_as(maps)
