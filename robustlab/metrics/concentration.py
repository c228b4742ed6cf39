"""On how few pixels does one map put its weight? It needs neither a second map nor a model.

A map that is easy to read need not be true: a map of one pixel has the best values there are.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.metrics.pairs import check_maps, divided, exact, unit_peak


@dataclass(frozen=True, kw_only=True)
class Sparseness:
    """Gini index of the absolute values: 0 for a constant map, 1 − 1/n for a single pixel.

    ``Σ_i (2i − n − 1) v_i / (n Σ_i v_i)`` with v the |values| in increasing order, i = 1..n.
    Maps ``[B,H,W]`` → ``[B]`` float64 in [0, 1]. Blind to scaling, sign and position; ties
    play no role. An all-zero map counts as constant: 0.

    Source: Chalasani et al., ICML 2020. Quantus adds 1e-7 to every |value| first; we do not.
    """

    name: ClassVar[str] = "sparseness"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def describe(self, maps: Tensor) -> Tensor:
        values = _weights(maps).sort(dim=1).values
        size = values.shape[1]
        step = 2 * torch.arange(1, size + 1, dtype=values.dtype, device=values.device) - size - 1
        return ((values * step).sum(1) / size).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Entropy of the map's weight in nats: 0 for a single pixel, ln n for a constant map.

    ``−Σ_i p_i ln p_i`` with ``p = |m| / Σ|m|`` and 0 ln 0 = 0. Maps ``[B,H,W]`` → ``[B]``
    float64, at least 0. Blind to scaling, sign and position; ties play no role. An all-zero
    map counts as constant: ln n.

    Source: Bhatt, Weller and Moura, IJCAI 2020; as in Quantus.
    """

    name: ClassVar[str] = "complexity"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def describe(self, maps: Tensor) -> Tensor:
        return torch.special.entr(_weights(maps)).sum(1).clamp(min=0.0)


def _weights(maps: Tensor) -> Tensor:
    """|m| / Σ|m|, ``[B,n]``; the same everywhere for an all-zero map."""
    check_maps("maps", maps)
    flat = unit_peak(exact("maps", maps)).abs().flatten(1)
    total = flat.sum(1, keepdim=True)
    return torch.where(total > 0, divided(flat, total), 1 / flat.shape[1])
