"""Do the two maps put the pixels in the same order? Blind to any increasing rescaling.

They are not blind to ``abs`` or to how channels were reduced: maps are compared exactly
as they come, sign included.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.metrics.pairs import check_pair, cosine, is_constant, settle


@dataclass(frozen=True, kw_only=True)
class TopKIntersection:
    """Share of the k highest pixels that the two maps have in common.

    ``|T_k(a) ∩ T_k(b)| / k`` with T_k the set of the k largest (signed) values. Maps
    ``[B,H,W]`` twice → ``[B]`` float64 in [0, 1].

    Ties: among equal values the lowest flat (row-major) index comes first, as in a stable
    sort. A constant map therefore selects its first k pixels. Beware of maps with fewer
    than k non-zero pixels: what the rest of the set is, this rule decides.

    Source: Ghorbani, Abid and Zou, AAAI 2019 (k=1000 on ImageNet, 100 on CIFAR-10).

    Args:
        k: size of the set, from 1 to the number of pixels.
    """

    name: ClassVar[str] = "top_k_intersection"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    k: int = 1000

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise InvalidInput("k", f"must be a whole number of at least 1, got {self.k!r}")

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = check_pair(clean, perturbed)
        pixels = a.shape[1] * a.shape[2]
        if self.k > pixels:
            size = f"{a.shape[1]}x{a.shape[2]}"
            raise InvalidInput(
                "k",
                f"{self.k} is more than the {pixels} pixels of a {size} map",
                f"choose 1 to {pixels}",
            )
        shared = highest(a.flatten(1), self.k) & highest(b.flatten(1), self.k)
        return shared.sum(1).to(torch.float64) / self.k

    def chance(self, pixels: int) -> float | None:
        """k/n, at most 1: what two independent maps share on average."""
        return min(1.0, self.k / pixels)


@dataclass(frozen=True, kw_only=True)
class Spearman:
    """Spearman's ρ: the Pearson correlation of the pixels' ranks.

    Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1].

    Ties get the average of the ranks that they span. If either map is constant ρ is
    undefined: 1 for two exactly equal maps, otherwise 0.

    Source: Spearman 1904; for explanations Ghorbani, Abid and Zou, AAAI 2019.
    """

    name: ClassVar[str] = "spearman"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = check_pair(clean, perturbed)
        ranks = (_centred_ranks(maps.flatten(1)).view_as(maps) for maps in (a, b))
        return settle(cosine(*ranks), is_constant(a) | is_constant(b), a, b)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps are uncorrelated."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Kendall:
    """Kendall's τ-b: concordant minus discordant pairs of pixels, corrected for ties.

    ``(C − D) / √((n₀ − n₁)(n₀ − n₂))`` with n₀ all pairs of pixels, n₁ and n₂ the pairs
    tied in either map. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1]. Exact, map by
    map on the CPU with scipy, O(n log n).

    Ties have a price: if a fraction z of the clean pixels shares one value (black borders)
    and the perturbation separates them, |τ-b| stays below about √(1 − z²). If either map
    is constant τ is undefined: 1 for two exactly equal maps, otherwise 0.

    Source: Kendall 1945; for explanations Chen et al. (RAR), NeurIPS 2019.
    """

    name: ClassVar[str] = "kendall"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        from scipy.stats import kendalltau  # slow to import, and only this metric needs it

        a, b = check_pair(clean, perturbed)
        undefined = is_constant(a) | is_constant(b)
        taus = [
            0.0 if skip else float(kendalltau(x, y).statistic)
            for x, y, skip in zip(a.cpu().numpy(), b.cpu().numpy(), undefined.tolist(), strict=True)
        ]
        return settle(a.new_tensor(taus), undefined, a, b)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps have as many concordant as discordant pairs."""
        return 0.0


def highest(flat: Tensor, k: int) -> Tensor:
    """Boolean ``[B,n]``: the k largest of each row, lowest index first among equals."""
    threshold = _kth_largest(flat, k)
    above, tied = flat > threshold, flat == threshold
    room = k - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= room))


def _centred_ranks(flat: Tensor) -> Tensor:
    """Ranks ``[B,n]`` about their mean, each run of equal values sharing its average."""
    order = _order(flat)
    ordered = flat.gather(1, order)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones_like(flat[:, :1], dtype=torch.bool)
    place = torch.arange(flat.shape[1], device=flat.device)
    # A run's first place is the latest start at or before a pixel; its last place, the
    # earliest end at or after it.
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(1).values
    ends = torch.where(torch.cat([differs, edge], 1), place, flat.shape[1])
    last = ends.flip(1).cummin(1).values.flip(1)
    centred = (first + last - (flat.shape[1] - 1)).to(flat.dtype) / 2
    return torch.empty_like(flat).scatter_(1, order, centred)


# On a CPU numpy sorts and partitions with vector instructions and torch does not: measured
# on a 224x224 map, its order takes a third of the time and its k-th largest value a fifth.


def _on_cpu(flat: Tensor) -> bool:
    return flat.device.type == "cpu"


def _order(flat: Tensor) -> Tensor:
    if _on_cpu(flat):
        return torch.from_numpy(np.argsort(flat.numpy(), axis=1))
    return flat.argsort(1)


def _kth_largest(flat: Tensor, k: int) -> Tensor:
    if _on_cpu(flat):
        place = flat.shape[1] - k
        return torch.from_numpy(np.partition(flat.numpy(), place, axis=1)[:, place, None])
    return flat.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
