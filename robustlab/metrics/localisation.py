"""Does the map point at the object? Metrics of one map and a known region."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.metrics.pairs import divided, home, unit_peak


@dataclass(frozen=True, kw_only=True)
class EnergyInRegion:
    """Share of the map's positive mass inside the region: Σ_{i∈R} m⁺_i / Σ_i m⁺_i.

    Range [0, 1]; a map without positive mass gives 0. Chance: the region's share of the
    picture. The same number is called relevance_mass_accuracy by others. Source: the
    energy-based pointing game of Wang et al. 2020.
    """

    name: ClassVar[str] = "energy_in_region"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        return _mass_inside(maps, regions)

    def chance_in(self, regions: Tensor) -> Tensor:
        return _share(regions)


@dataclass(frozen=True, kw_only=True)
class RelevanceMassAccuracy:
    """energy_in_region, under the name that Arras et al. gave it: always the same number.

    The one difference: they pool channels first, so that their maps have no negative values.
    Range, empty maps and formula are as there. Chance: the region's share of the picture.
    Source: Arras, Osman & Samek 2022, CLEVR-XAI. Quantus does not clamp: of a signed map its
    quotient may leave [0, 1].
    """

    name: ClassVar[str] = "relevance_mass_accuracy"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        return _mass_inside(maps, regions)

    def chance_in(self, regions: Tensor) -> Tensor:
        return _share(regions)


@dataclass(frozen=True, kw_only=True)
class RelevanceRankAccuracy:
    """Share of the K highest pixels that lie inside the region, K being the region's size.

    |T_K(m) ∩ R| / K with K = |R|. Range [0, 1]; a region without pixels gives 0. Only the order
    of the pixels counts. Ties: first in reading order, as in top_k_intersection; a constant map
    selects its first K pixels, so beware of maps with fewer than K pixels that are not zero.
    Chance, exactly for maps without ties: the region's share of the picture.
    Source: Arras, Osman & Samek 2022, CLEVR-XAI.
    """

    name: ClassVar[str] = "relevance_rank_accuracy"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        values, inside = (each.flatten(1) for each in _checked(maps, regions))
        # + 0.0 makes −0 a 0, so that the two are a tie
        order = (values + 0.0).argsort(dim=1, descending=True, stable=True)
        size = inside.double().sum(1, keepdim=True)
        highest = torch.arange(values.shape[1], device=values.device) < size
        hits = (inside.gather(1, order) & highest).sum(1)
        return divided(hits, size.squeeze(1))

    def chance_in(self, regions: Tensor) -> Tensor:
        return _share(regions)


@dataclass(frozen=True, kw_only=True)
class PointingGame:
    """1 where the map's largest pixel lies inside the region, else 0.

    Of several largest pixels the first in reading order counts. Chance: the region's share
    of the picture. Source: Zhang et al. 2016; their tolerance of 15 pixels is not added.
    Quantus calls it a hit where any of the largest pixels lies inside.
    """

    name: ClassVar[str] = "pointing_game"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        values, inside = (each.flatten(1) for each in _checked(maps, regions))
        first = (values == values.amax(1, keepdim=True)).int().argmax(1, keepdim=True)
        return inside.gather(1, first).squeeze(1).double()

    def chance_in(self, regions: Tensor) -> Tensor:
        return _share(regions)


def _mass_inside(maps: Tensor, regions: Tensor) -> Tensor:
    """Σ_{i∈R} m⁺_i / Σ_i m⁺_i, ``[B]``: one number under two names."""
    values, inside = _checked(maps, regions)
    positive = unit_peak(values.clamp(min=0))  # so that no sum under- or overflows
    return divided((positive * inside).sum((1, 2)), positive.sum((1, 2)))


def _share(regions: Tensor) -> Tensor:
    return regions.to(home(regions.device), torch.float64).mean((1, 2))


def _checked(maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """The maps in float64, detached, and the regions beside them.

    Raises:
        InvalidInput: not maps ``[B,H,W]`` with a boolean region each, or NaN in a map.
    """
    if maps.ndim != 3 or maps.shape != regions.shape:
        raise InvalidInput(
            "regions", f"shape {tuple(regions.shape)} does not fit maps {tuple(maps.shape)}"
        )
    if regions.dtype != torch.bool:
        raise InvalidInput("regions", f"must be true or false at each pixel, got {regions.dtype}")
    if not bool(torch.isfinite(maps).all()):
        raise InvalidInput("maps", "contains NaN or infinite values")
    device = home(maps.device)
    return maps.detach().to(device, torch.float64), regions.to(device)
