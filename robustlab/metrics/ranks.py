"""Do the two maps put the pixels in the same order? Blind to any increasing rescaling.

They are not blind to ``abs`` or to how channels were reduced: maps are compared exactly
as they come, sign included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.metrics.ordering import Ranking, along, ranking, rho, tau_b
from robustlab.metrics.pairs import by_parts, check_like, check_maps, finite, home, slices

Against = Callable[[Tensor], Tensor]
"""Perturbed maps ``[B,H,W]`` → ``[B]``, held against clean ones that it knows."""


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
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        check_fits("k", self.k, clean)
        shared = highest(clean.flatten(1), self.k) & highest(perturbed.flatten(1), self.k)
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
        return self.against(clean)(perturbed)

    def against(self, clean: Tensor) -> Against:
        """The same for any number of perturbed batches: the clean maps are ranked only once.

        Keeps 8 bytes for each of their pixels.
        """
        return _against(clean, rho)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps are uncorrelated."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Kendall:
    """Kendall's τ-b: concordant minus discordant pairs of pixels, corrected for ties.

    ``(C − D) / √((n₀ − n₁)(n₀ − n₂))`` with n₀ all pairs of pixels, n₁ and n₂ the pairs
    tied in either map. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1]. Exact: every
    pair is counted, on the maps' own device, in whole numbers.

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
        return self.against(clean)(perturbed)

    def against(self, clean: Tensor) -> Against:
        """The same for any number of perturbed batches: the clean maps are ranked only once.

        Keeps 8 bytes for each of their pixels.
        """
        return _against(clean, tau_b, self.within)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps have as many concordant as discordant pairs."""
        return 0.0


def _against(
    clean: Tensor, formula: Callable[[Ranking, Ranking], Tensor], within: int | None = None
) -> Against:
    check_maps("clean", clean)
    shape, device = clean.shape, clean.device
    if within is not None:
        check_fits("within", within, clean)
    flat, parts = clean.flatten(1), slices(clean)
    known = [_Known.of(finite("clean", flat[part]), within) for part in parts]

    def measure(perturbed: Tensor) -> Tensor:
        check_like(perturbed, shape, device)
        rows = perturbed.flatten(1)
        found = [torch.empty(0, dtype=torch.float64, device=home(device))]
        for own, part in zip(known, parts, strict=True):
            found.append(own.compared(finite("perturbed", rows[part]), formula))
        return torch.cat(found)

    return measure


@dataclass(frozen=True)
class _Known:
    """What is kept of a few clean maps: which of their pixels count, and the order of those."""

    top: Tensor | None
    ranking: Ranking
    corner: Tensor  # a value; that of all pixels if the map is constant

    @classmethod
    def of(cls, rows: Tensor, within: int | None) -> "_Known":
        top = None if within is None else highest(rows, within)
        rows = _chosen(rows, top)
        return cls(top, ranking(rows).kept(), rows[:, 0].clone())

    def compared(self, rows: Tensor, formula: Callable[[Ranking, Ranking], Tensor]) -> Tensor:
        """The formula's value; where that is 0/0, 1 if both maps are equal, otherwise 0."""
        rows = _chosen(rows, self.top)
        other = along(self.ranking, rows)
        one, two = self.ranking.constant, other.constant
        equal = one & two & (self.corner == rows[:, 0])
        return torch.where(one | two, equal.double(), formula(self.ranking, other))


def _chosen(rows: Tensor, top: Tensor | None) -> Tensor:
    return rows if top is None else rows[top].view(len(rows), -1)


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
