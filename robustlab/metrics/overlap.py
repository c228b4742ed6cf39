"""Do the most important areas of the two maps overlap? By value: of a signed map the most positive.

Of equal values the first in reading order counts as the higher.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.metrics.pairs import by_parts
from robustlab.metrics.ranks import check_count, check_fits, highest


@dataclass(frozen=True, kw_only=True)
class IoU:
    """Intersection over union of the areas that the two maps mark: ``|A ∩ B| / |A ∪ B|``.

    Each map is cut by itself: A holds its ``share`` of highest pixels, ⌊share·HW + ½⌋ and at
    least one, or, with ``threshold``, the pixels of at least that fraction of its own
    maximum. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [0, 1]. Numbers of different cuts
    are never comparable. With a share the two areas are of one size k, and the value
    i/(2k − i) says the same of i common pixels as the top-k intersection i/k does, on
    another scale.

    Ties: with a share the lowest flat index comes first, so a constant map marks its first
    pixels; with a threshold none matters, and a constant positive map marks every pixel.
    A map without a positive value has no maximum to be measured by and marks nothing: two
    such maps have IoU 1, one beside another map 0.

    Source: Jaccard 1901; for explanations Zhang et al. (ADV²), USENIX Security 2020, who do
    not publish their cut. A tenth is our choice.

    Args:
        share: of the pixels that are marked, above 0 and at most 1.
        threshold: fraction of the map's maximum, above 0 and at most 1; replaces ``share``.
    """

    name: ClassVar[str] = "iou"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    share: float = 0.1
    threshold: float | None = None

    def __post_init__(self) -> None:
        for field in ("share", "threshold"):
            value = getattr(self, field)
            if value is not None and not 0 < value <= 1:
                raise InvalidInput(field, f"must be above 0 and at most 1, got {value!r}")

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = self._marked(clean), self._marked(perturbed)
        both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
        return torch.where(either > 0, both / either.double(), 1.0)

    def _marked(self, maps: Tensor) -> Tensor:
        if self.threshold is None:
            count = self._count(maps.shape[1] * maps.shape[2])
            return highest(maps.flatten(1), count).view_as(maps)
        top = maps.amax((1, 2), keepdim=True)
        return (top > 0) & (maps > 0) & (maps >= self.threshold * top)

    def _count(self, pixels: int) -> int:
        return max(1, math.floor(self.share * pixels + 0.5))

    def chance(self, pixels: int) -> float | None:
        """Σ_i P(i)·i/(2k−i), P hypergeometric; None with a threshold, which fixes no size."""
        return None if self.threshold is not None else _chance_of_union(self._count(pixels), pixels)


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """What the two LENS metrics share."""

    k: int = 1000
    window: int = 1

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_count("window", self.window, least=0)

    def _share(self, near: Tensor, at: Tensor) -> Tensor:
        """Of the k highest pixels of ``at``, those beside one of the k highest of ``near``."""
        check_fits("k", self.k, near)
        a, b = (highest(m.flatten(1), self.k).view_as(m) for m in (near, at))
        return (widened(a, self.window) & b).sum((1, 2)).double() / self.k

    def chance(self, pixels: int) -> float | None:
        """None: a window at the border is smaller, so the height and width matter as well."""
        return None


@dataclass(frozen=True, kw_only=True)
class LensRecall(_Windows):
    """Share of the perturbed map's top pixels that lie beside some of the clean map's.

    ``|N_w(T_k(a)) ∩ T_k(b)| / k`` with T_k the k highest pixels and N_w all pixels at most w
    rows and columns away: a (2w+1)² window, cut off at the border. Maps ``[B,H,W]`` twice →
    ``[B]`` float64 in [0, 1]. At ``window`` 0 it is the top-k intersection, and never less
    than that at any other. Not symmetric: with the maps exchanged it is lens_precision.

    Ties among the highest: lowest flat index first, so a constant map has its first k
    pixels. Independent maps score 1 − mean_x C(n−m_x, k)/C(n, k), m_x the pixels in the
    window about x of n pixels, far above the k/n of the top-k intersection: read it beside
    its chance.

    Source: Kamath, Mittal, Chopra, Balasubramanian, AAAI 2024 (3x3 windows). Their code
    takes windows of the flattened map, which run over the border into the next row, and
    loses the first pixel; these are two-dimensional.

    Args:
        k: size of the set, from 1 to the number of pixels.
        window: w, how far to look, in pixels.
    """

    name: ClassVar[str] = "lens_recall"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._share)


@dataclass(frozen=True, kw_only=True)
class LensPrecision(_Windows):
    """Share of the clean map's top pixels that lie beside some of the perturbed map's.

    ``|T_k(a) ∩ N_w(T_k(b))| / k`` with T_k the k highest pixels and N_w all pixels at most w
    rows and columns away: a (2w+1)² window, cut off at the border. Maps ``[B,H,W]`` twice →
    ``[B]`` float64 in [0, 1]. It is lens_recall with the maps exchanged; where one map's top
    is scattered and the other's in one place, the two differ widely.

    Ties among the highest: lowest flat index first, so a constant map has its first k
    pixels. Chance is that of lens_recall.

    Source: Kamath, Mittal, Chopra, Balasubramanian, AAAI 2024; deviations as in lens_recall.

    Args:
        k: size of the set, from 1 to the number of pixels.
        window: w, how far to look, in pixels.
    """

    name: ClassVar[str] = "lens_precision"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, lambda a, b: self._share(b, a))


def widened(masks: Tensor, window: int) -> Tensor:
    """All pixels at most ``window`` rows and columns away from one of ``[B,H,W]``."""
    height, width = masks.shape[1:]
    near = masks.float().unsqueeze(1)
    for size, (down, across) in ((height, (1, 0)), (width, (0, 1))):
        reach = min(window, size - 1)  # further is no different, and would cost
        down, across = down * reach, across * reach
        near = F.max_pool2d(near, (2 * down + 1, 2 * across + 1), 1, (down, across))
    return near.squeeze(1) > 0


def _chance_of_union(k: int, pixels: int) -> float:
    """Mean of i/(2k − i), i the common pixels of two independent sets of k."""
    k = min(k, pixels)

    def log_choose(n: int, r: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(r + 1) - math.lgamma(n - r + 1)

    def likely(i: int) -> float:
        ways = log_choose(k, i) + log_choose(pixels - k, k - i)
        return math.exp(ways - log_choose(pixels, k))

    return math.fsum(likely(i) * i / (2 * k - i) for i in range(max(0, 2 * k - pixels), k + 1))
