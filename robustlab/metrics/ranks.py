"""Do the two maps put the pixels in the same order? Blind to any increasing rescaling.

They are not blind to ``abs`` or to how channels were reduced: maps are compared exactly
as they come, sign included.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.metrics.ordering import centred_ranks, ranking, slices, tau_b
from robustlab.metrics.pairs import check_pair, cosine, is_constant, settle

_LARGE: Final = 96 * 96  # from here on SciPy's loop over maps is not slower, and with ties faster


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
        check_count("k", self.k)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = check_pair(clean, perturbed)
        check_fits("k", self.k, a)
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
        ranks = (centred_ranks(maps.flatten(1)).view_as(maps) for maps in (a, b))
        return settle(cosine(*ranks), is_constant(a) | is_constant(b), a, b)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps are uncorrelated."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Kendall:
    """Kendall's τ-b: concordant minus discordant pairs of pixels, corrected for ties.

    ``(C − D) / √((n₀ − n₁)(n₀ − n₂))`` with n₀ all pairs of pixels, n₁ and n₂ the pairs
    tied in either map. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1]. Exact: every
    pair is counted, on the maps' own device, in whole numbers; large maps on the CPU by SciPy,
    one after the other.

    Ties have a price: if a fraction z of the clean pixels shares one value (black borders)
    and the perturbation separates them, |τ-b| stays below about √(1 − z²). If either map
    is constant τ is undefined: 1 for two exactly equal maps, otherwise 0.

    ``within`` looks only at the pixels that mattered before: the order of the rest, most of
    it noise, is left out. The value is then not symmetric, and ties for a place among them
    go to the lowest flat index. What is said of constant maps holds for those pixels.

    Source: Kendall 1945; for explanations Chen et al. (RAR), NeurIPS 2019. Singh et al. (ART),
    ECCV 2020, take τ of masked maps to select by; that the mask is the clean top k, and that
    the rest is left out rather than set to zero (which would tie it), is our reading.

    Args:
        within: only the k highest pixels of the clean map, at least 2; all without it.
    """

    name: ClassVar[str] = "kendall"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    within: int | None = None

    def __post_init__(self) -> None:
        if self.within is not None:
            check_count("within", self.within, least=2)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        a, b = check_pair(clean, perturbed)
        if self.within is not None:
            check_fits("within", self.within, a)
            top = highest(a.flatten(1), self.within)
            a, b = (m.flatten(1)[top].view(len(m), 1, self.within) for m in (a, b))
        tau = _tau(a.flatten(1), b.flatten(1))
        return settle(tau, is_constant(a) | is_constant(b), a, b)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps have as many concordant as discordant pairs."""
        return 0.0


def _tau(flat: Tensor, other: Tensor) -> Tensor:
    if _on_cpu(flat) and flat.shape[1] > _LARGE:
        from scipy.stats import kendalltau  # slow to import, and only large maps need it

        found = [kendalltau(x, y).statistic for x, y in zip(flat, other, strict=True)]
        return torch.tensor(found, dtype=torch.float64)
    tau = flat.new_empty(len(flat))
    for part in slices(flat):
        tau[part] = tau_b(ranking(flat[part]), ranking(other[part]))
    return tau


def highest(flat: Tensor, k: int) -> Tensor:
    """Boolean ``[B,n]``: the k largest of each row, lowest index first among equals."""
    threshold = _kth_largest(flat, k)
    above, tied = flat > threshold, flat == threshold
    room = k - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= room))


def check_count(field: str, value: object, *, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(field, f"must be a whole number of at least {least}, got {value!r}")


def check_fits(field: str, count: int, maps: Tensor) -> None:
    """Refuse more pixels than the maps ``[B,H,W]`` have."""
    height, width = maps.shape[1:]
    if count > height * width:
        raise InvalidInput(
            field,
            f"{count} is more than the {height * width} pixels of a {height}x{width} map",
            f"choose at most {height * width}",
        )


# On a CPU numpy partitions with vector instructions and torch does not: measured on a 224x224
# map, the k-th largest value takes it a fifth of the time.


def _on_cpu(flat: Tensor) -> bool:
    return flat.device.type == "cpu"


def _kth_largest(flat: Tensor, k: int) -> Tensor:
    if _on_cpu(flat):
        place = flat.shape[1] - k
        return torch.from_numpy(np.partition(flat.numpy(), place, axis=1)[:, place, None])
    return flat.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
