"""Where does the mass of the two maps lie?"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from robustlab.core.tables import check_choice
from robustlab.metrics.pairs import by_parts, divided

Ground = Literal["euclidean", "city_block"]


@dataclass(frozen=True, kw_only=True)
class CenterShift:
    """Distance in pixels between the two maps' centres of mass.

    ``‖C(a) − C(b)‖₂`` with ``C(m) = Σ |m_ij|·(i, j) / Σ |m_ij|``. Maps ``[B,H,W]`` twice →
    ``[B]`` float64, at least 0 and at most the diagonal ``√((H−1)² + (W−1)²)``. Real
    valued: Ghorbani's code truncates the centres to whole pixels, this does not.

    An all-zero map has its centre in the middle of the picture, as has any constant map.
    Ties play no role.

    Source: Ghorbani, Abid and Zou, AAAI 2019.
    """

    name: ClassVar[str] = "center_shift"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, _apart)

    def chance(self, pixels: int) -> float | None:
        """None: depends on how the maps' mass is spread."""
        return None


@dataclass(frozen=True, kw_only=True)
class EarthMoversDistance:
    """How far the mass has to travel, in pixels: earth mover's distance along both axes.

    Each map is a distribution ``|m| / Σ|m|`` over the grid. W_r and W_c are the exact earth
    mover's distances (Wasserstein-1) of the masses per row and per column,
    ``W = Σ_i |F_a(i) − F_b(i)|`` with F the cumulative sums. Maps ``[B,H,W]`` twice →
    ``[B]`` float64, at least 0 and at most the picture's extent.

    - *euclidean*: ``√(W_r² + W_c²)``; *city_block*: ``W_r + W_c``.

    This is never more than the exact two-dimensional distance of that ground distance, whose
    price (a linear program over all pairs of pixels) is out of reach for pictures. It equals
    it where one map is the other moved as a whole, and between single pixels. It misses mass
    that changes places without changing any row or column: a diagonal against the other
    diagonal is 0. Euclidean, it is never less than center_shift; unlike that, it sees
    mass that spreads about a centre that stays.

    An all-zero map counts as a constant one, mass the same everywhere. Ties play no role.

    Source: Rubner, Tomasi and Guibas, IJCV 2000, for the distance; the rows and columns are
    two slices of Bonneel et al.'s sliced one (JMIV 2015), without their average.

    Args:
        ground: how distance on the grid is measured.
    """

    name: ClassVar[str] = "emd"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    ground: Ground = "euclidean"

    def __post_init__(self) -> None:
        check_choice("ground", self.ground, get_args(Ground))

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = _mass(clean), _mass(perturbed)
        rows, columns = (
            (a.sum(axis) - b.sum(axis)).cumsum(1).abs().sum(1) for axis in (2, 1)
        )  # the last sum of each is 0 but for rounding
        return torch.hypot(rows, columns) if self.ground == "euclidean" else rows + columns

    def chance(self, pixels: int) -> float | None:
        """None: depends on how the maps' mass is spread."""
        return None


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return (_center(a) - _center(b)).square().sum(1).sqrt()


def _center(maps: Tensor) -> Tensor:
    """Row and column ``[B,2]`` of each map's centre of mass."""
    weight = _weight(maps)
    by_row, by_column = weight.sum(2), weight.sum(1)
    rows = torch.arange(maps.shape[1], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    centers = torch.stack([(by_row * rows).sum(1), (by_column * columns).sum(1)], 1)
    return centers / by_row.sum(1, keepdim=True)


def _mass(maps: Tensor) -> Tensor:
    """Weight over its sum: what each pixel holds of a mass of 1."""
    weight = _weight(maps)
    return weight / weight.sum((1, 2), keepdim=True)


def _weight(maps: Tensor) -> Tensor:
    """|m|, scaled where its sum is near an end of the numbers; 1 everywhere for an all-zero map."""
    weight = maps.abs()
    largest = weight.amax((1, 2), keepdim=True)
    if bool(((largest > 1e-250) & (largest < 1e250)).all()):
        return weight
    return torch.where(largest == 0, 1.0, divided(weight, largest))
