"""Do the two maps say the same of their most important pixels? By |value|, as their source has it.

Most maps of this lab are non-negative (every ``post`` but *signed* and *std*).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustlab.metrics.pairs import by_parts
from robustlab.metrics.ranks import check_count, check_fits, highest


@dataclass(frozen=True, kw_only=True)
class SignAgreement:
    """Share of the k strongest pixels that the two maps have in common, with the same sign.

    ``|{i ∈ T_k(|a|) ∩ T_k(|b|) : sign a_i = sign b_i}| / k`` with T_k the k largest. Maps
    ``[B,H,W]`` twice → ``[B]`` float64 in [0, 1]. Zero is a sign of its own. Of
    non-negative maps there is no sign to compare: the value is the top-k intersection.

    Ties: among equal |values| the lowest flat index comes first; a constant map selects its
    first k pixels.

    Source: Krishna et al. 2022, "The disagreement problem in explainable machine learning".

    Args:
        k: how many pixels, from 1 to all.
    """

    name: ClassVar[str] = "sign_agreement"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    k: int = 1000

    def __post_init__(self) -> None:
        check_count("k", self.k)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        check_fits("k", self.k, clean)
        a, b = clean.flatten(1), perturbed.flatten(1)
        shared = highest(a.abs(), self.k) & highest(b.abs(), self.k)
        return (shared & (a.sign() == b.sign())).sum(1).double() / self.k

    def chance(self, pixels: int) -> float | None:
        """None: depends on how many pixels are negative (k/n if none is)."""
        return None


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """Share of the k first places of importance that the two maps give to the same pixel.

    ``|{r ≤ k : i_r(a) = i_r(b)}| / k`` with i_r(m) the pixel that is r-th in |m|. Maps
    ``[B,H,W]`` twice → ``[B]`` float64 in [0, 1]. It is made for a handful of features: of a
    thousand pixels few keep their place under any disturbance, however like the maps look,
    and chance is 1/n, not k/n.

    Ties: among equal |values| the lowest flat index comes first; a constant map puts its
    pixels in reading order.

    Source: Krishna et al. 2022, "The disagreement problem in explainable machine learning".
    OpenXAI's code asks besides that both ranks, counted without gaps, are equal, which is
    the same where nothing is tied.

    Args:
        k: how many places, from 1 to the number of pixels.
    """

    name: ClassVar[str] = "rank_agreement"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    k: int = 1000

    def __post_init__(self) -> None:
        check_count("k", self.k)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        check_fits("k", self.k, clean)
        a, b = _strongest(clean, self.k), _strongest(perturbed, self.k)
        return (a == b).sum(1).double() / self.k

    def chance(self, pixels: int) -> float | None:
        """1/n: each place goes to any pixel alike."""
        return 1 / pixels


def _strongest(maps: Tensor, k: int) -> Tensor:
    """The k pixels of largest |value|, strongest first and lowest index first: ``[B,k]``."""
    flat = maps.flatten(1).abs()
    places = highest(flat, k).nonzero()[:, 1].view(len(flat), k)
    order = flat.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)
