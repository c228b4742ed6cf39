"""Does the map point at the object? Metrics of one map and a known region."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class EnergyInRegion:
    """Share of the map's positive mass inside the region: Σ_{i∈R} m⁺_i / Σ_i m⁺_i.

    Range [0, 1]; a map without positive mass gives 0. Chance: the region's share of the
    picture. Source: the energy-based pointing game of Wang et al. 2020.
    """

    name: ClassVar[str] = "energy_in_region"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        positive = _checked(maps, regions).clamp(min=0)
        total = positive.sum((1, 2))
        inside = (positive * regions).sum((1, 2))
        return torch.where(total > 0, inside / total.clamp(min=1e-300), 0.0)

    def chance_in(self, regions: Tensor) -> Tensor:
        return regions.double().mean((1, 2))


@dataclass(frozen=True, kw_only=True)
class PointingGame:
    """1 where the map's largest pixel lies inside the region, else 0.

    Of several largest pixels the first in reading order counts. Chance: the region's share
    of the picture. Source: Zhang et al. 2016; their tolerance of 15 pixels is not added.
    """

    name: ClassVar[str] = "pointing_game"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        flat = _checked(maps, regions).flatten(1)
        first = (flat == flat.amax(1, keepdim=True)).int().argmax(1, keepdim=True)
        return regions.flatten(1).gather(1, first).squeeze(1).double()

    def chance_in(self, regions: Tensor) -> Tensor:
        return regions.double().mean((1, 2))


def _checked(maps: Tensor, regions: Tensor) -> Tensor:
    if maps.ndim != 3 or maps.shape != regions.shape:
        raise InvalidInput(
            "regions", f"shape {tuple(regions.shape)} does not fit maps {tuple(maps.shape)}"
        )
    if not bool(torch.isfinite(maps).all()):
        raise InvalidInput("maps", "contains NaN or infinite values")
    return maps.double()
