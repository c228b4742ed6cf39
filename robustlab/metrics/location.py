"""Where does the mass of the two maps lie?"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.metrics.pairs import check_pair, unit_peak


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
        a, b = check_pair(clean, perturbed)
        return (_center(a) - _center(b)).square().sum(1).sqrt()

    def chance(self, pixels: int) -> float | None:
        """None: depends on how the maps' mass is spread."""
        return None


def _center(maps: Tensor) -> Tensor:
    """Row and column ``[B,2]`` of each map's centre of mass."""
    weight = unit_peak(maps).abs()
    empty = weight.amax((1, 2), keepdim=True) == 0
    weight = torch.where(empty, 1.0, weight)
    rows = torch.arange(maps.shape[1], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    row = (weight.sum(2) * rows).sum(1)
    column = (weight.sum(1) * columns).sum(1)
    return torch.stack([row, column], 1) / weight.sum((1, 2)).unsqueeze(1)
