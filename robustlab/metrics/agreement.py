"""Do the two maps have the same values, pixel by pixel or window by window?"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_choice
from robustlab.metrics.pairs import (
    LARGEST,
    by_parts,
    cosine,
    divided,
    dot,
    in_range,
    is_constant,
    minmax,
    peak,
    settle,
    unit_peak,
)

SSIMScale = Literal["minmax", "none"]
MSEScale = Literal["minmax", "none", "sum"]

# The Gaussian of Wang et al.: σ = 1.5, cut at 3.5 σ, which makes an 11x11 window.
_RADIUS: Final = 5
_WINDOW: Final = 2 * _RADIUS + 1
_BELL: Final = [math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-_RADIUS, _RADIUS + 1)]
_TAPS: Final = tuple(weight / sum(_BELL) for weight in _BELL)


@dataclass(frozen=True, kw_only=True)
class Pearson:
    """Pearson's correlation of the pixel values.

    ``Σ(a−ā)(b−b̄) / (‖a−ā‖ ‖b−b̄‖)``. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1].
    Blind to shifting and positive scaling of a map that is not constant.

    If either map is constant it is undefined: 1 for two exactly equal maps, otherwise 0.
    Ties play no role.

    Source: Pearson 1895; the PCC of Dombrowski et al., NeurIPS 2019.
    """

    name: ClassVar[str] = "pearson"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, _pearson)

    def chance(self, pixels: int) -> float | None:
        """0: independent maps are uncorrelated."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Cosine of the angle between the two maps, taken as vectors.

    ``⟨a, b⟩ / (‖a‖ ‖b‖)``. Maps ``[B,H,W]`` twice → ``[B]`` float64 in [-1, 1]. Unlike
    Pearson it sees a shift: two independent non-negative maps have a high cosine.

    If either map is all zero it is undefined: 1 for two all-zero maps, otherwise 0.
    Constant maps that are not zero, and ties, are nothing special.

    Source: Wang and Kong, NeurIPS 2022, who relate it to Kendall's τ.
    """

    name: ClassVar[str] = "cosine"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, _cosine)

    def chance(self, pixels: int) -> float | None:
        """None: depends on the maps' means."""
        return None


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError:
    """Mean squared difference of the pixels: ``Σ (a−b)² / HW`` of the scaled maps.

    Maps ``[B,H,W]`` twice → ``[B]`` float64, at least 0. Numbers of different ``scale``
    are never comparable; those of "sum" are of the order 1/HW², 1e-10 for ImageNet.

    A constant map becomes 0 under "minmax", an all-zero map stays 0 under "sum"; the
    formula does the rest. Values beyond the float64 range saturate at its largest number.
    Ties play no role.

    Source: Dombrowski et al., NeurIPS 2019 ("sum").

    Args:
        scale: what is done to each map first. "minmax": scaled to [0, 1], so that the
            value is at most 1. "sum": divided by Σ|m|. "none": taken as it is.
    """

    name: ClassVar[str] = "mse"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    scale: MSEScale = "minmax"

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, get_args(MSEScale))

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of)

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        apart = _scaled(a, self.scale) - _scaled(b, self.scale)
        return (dot(apart, apart) / a.shape[1:].numel()).clamp(max=LARGEST)

    def chance(self, pixels: int) -> float | None:
        """None: depends on the maps' values."""
        return None


@dataclass(frozen=True, kw_only=True)
class RelativeL2:
    """Length of the difference, in lengths of the clean map: ``‖a − b‖₂ / ‖a‖₂``.

    Maps ``[B,H,W]`` twice → ``[B]`` float64, at least 0. Not symmetric: ``a`` is the clean
    map. Blind to a positive scaling that both maps share. The maximum of this number over
    a neighbourhood is max-sensitivity.

    If the clean map is all zero, the perturbed one takes its place as the unit of length:
    0 if that is all zero too, otherwise exactly 1. Values beyond the float64 range
    saturate at its largest number. Constant maps and ties are nothing special.

    Source: Yeh et al., NeurIPS 2019 (normalised as in their code).
    """

    name: ClassVar[str] = "relative_l2"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, _relative_l2)

    def chance(self, pixels: int) -> float | None:
        """None: depends on the maps' values."""
        return None


@dataclass(frozen=True, kw_only=True)
class SSIM:
    """Structural similarity: the mean over all 11x11 windows that fit into the map.

    Per window, with Gaussian-weighted (σ = 1.5) means μ, population variances σ² and
    covariance σ_ab, ``C₁ = (0.01 R)²`` and ``C₂ = (0.03 R)²``:
    ``(2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂))``.
    Maps ``[B,H,W]`` twice, at least 11x11 → ``[B]`` float64 in [-1, 1]. Equal to
    scikit-image's with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.
    The value depends strongly on the scaling and on R.

    Two float32 maps are compared in float32, as there, unless R may be below what they span:
    within 1e-5 of the value in float64, mostly 1e-8. All others are compared in float64.

    A constant map becomes 0 under "minmax", so two constant maps have SSIM 1 whatever
    their values; where a factor is 0/0 it counts as 1. Ties play
    no role.

    Source: Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004.

    Args:
        data_range: R. Without it, 1 under "minmax" and each pair's joint maximum minus
            minimum under "none".
        scale: "minmax" scales each map to [0, 1] first; "none" takes it as it is.
    """

    name: ClassVar[str] = "ssim"
    higher_is_more_stable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    data_range: float | None = None
    scale: SSIMScale = "minmax"

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, get_args(SSIMScale))
        if self.data_range is not None and not 0 < self.data_range < math.inf:
            raise InvalidInput(
                "data_range", f"must be positive and finite, got {self.data_range!r}"
            )

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        return by_parts(clean, perturbed, self._of, keep_float32=self._forgiving())

    def _forgiving(self) -> bool:
        """Whether R is as large as all that the maps span, and C₂ then far above rounding."""
        return self.data_range is None or (self.scale == "minmax" and self.data_range >= 1)

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        if min(a.shape[1:]) < _WINDOW:
            raise InvalidInput(
                "clean",
                f"maps of {a.shape[1]}x{a.shape[2]} pixels are smaller than SSIM's window",
                f"they must be at least {_WINDOW}x{_WINDOW}",
            )
        a, b = _scaled(a, self.scale), _scaled(b, self.scale)
        data_range = self.data_range
        if data_range is None and self.scale == "minmax":
            data_range = 1.0
        # One pair at a time: its blurred planes stay in the cache, which doubles the speed.
        value = a.new_empty(len(a), dtype=torch.float64)
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            value[i] = _ssim(x, y, data_range)
        return value

    def chance(self, pixels: int) -> float | None:
        """None: depends on the maps' values and smoothness."""
        return None


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    x, y = _centred(a), _centred(b)
    a2, b2 = dot(x, x), dot(y, y)
    if _harmless(a, a2) and _harmless(b, b2):
        return (dot(x, y) / (a2 * b2).sqrt()).clamp(-1.0, 1.0)
    value = cosine(_centred(unit_peak(a)), _centred(unit_peak(b)))
    return settle(value, is_constant(a) | is_constant(b), a, b)


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean((1, 2), keepdim=True)


def _harmless(maps: Tensor, squares: Tensor) -> bool:
    """Whether sums of squares about the mean are no rounded zero, and none under- or overflows:
    nearly always, and cheaper to see than to scale the maps.
    """
    flat = maps[:, 0, 0].square() * maps.shape[1:].numel()  # 1e-30 of it are rounding
    return in_range(squares) and bool((squares > 1e-20 * flat).all())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    a2, b2 = dot(a, a), dot(b, b)
    if in_range(a2) and in_range(b2):
        return (dot(a, b) / (a2 * b2).sqrt()).clamp(-1.0, 1.0)
    undefined = (torch.minimum(peak(a), peak(b)) == 0).flatten()
    return settle(cosine(unit_peak(a), unit_peak(b)), undefined, a, b)


def _relative_l2(a: Tensor, b: Tensor) -> Tensor:
    apart = a - b
    a2, apart2 = dot(a, a), dot(apart, apart)
    if in_range(a2) and in_range(apart2):
        return (apart2 / a2).sqrt()
    base = torch.where(peak(a) > 0, a, b)
    # Lengths are taken of maps scaled to a peak near 1, so that no square overflows.
    joint = torch.maximum(peak(a), peak(b))
    moved = _length(divided(a, joint) - divided(b, joint))
    ratio = moved / _length(unit_peak(base)) * (joint / peak(base)).flatten()
    return torch.where(moved > 0, ratio, 0.0).clamp(max=LARGEST)


def _ssim(x: Tensor, y: Tensor, data_range: float | None) -> Tensor:
    """Mean SSIM of one pair ``[H,W]``; without a range, that of the pair."""
    # SSIM does not change if maps and range are scaled together, nor do variances if a map is
    # shifted: so neither overflow nor, where a map is flat, cancellation needs to happen.
    (low_x, high_x), (low_y, high_y) = x.aminmax(), y.aminmax()
    low, high = torch.minimum(low_x, low_y), torch.maximum(high_x, high_y)
    smallest = torch.finfo(x.dtype).smallest_normal
    unit = torch.maximum(-low, high).clamp(min=data_range or smallest)
    unit = unit / (2 * unit.frexp().mantissa)  # a power of two, so that nothing is rounded
    spread = high / unit - low / unit if data_range is None else data_range / unit
    x, y = x / unit, y / unit
    level_x, level_y = x.mean(), y.mean()
    # Only the sum of the two variances is needed: four planes to blur instead of five.
    planes = x.new_empty(4, *x.shape)
    torch.sub(x, level_x, out=planes[0])
    torch.sub(y, level_y, out=planes[1])
    _products(planes[0], planes[1], planes[2], planes[3])
    mean_x, mean_y, power, product = _blur(planes)
    squares, cross = _products(mean_x, mean_y, *planes.new_empty(2, *mean_x.shape))
    variances, covariance = power.sub_(squares), product.sub_(cross)
    _products(mean_x.add_(level_x), mean_y.add_(level_y), squares, cross)
    c1, c2 = (0.01 * spread).square(), (0.03 * spread).square()
    luminance = _fraction(cross.mul_(2).add_(c1), squares.add_(c1))
    structure = _fraction(covariance.mul_(2).add_(c2), variances.add_(c2))
    return luminance.mul_(structure).mean(dtype=torch.float64)


def _products(x: Tensor, y: Tensor, squares: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """x² + y² and x·y, in place of what stood there; the same bits for (y, x)."""
    torch.mul(y, y, out=cross)
    torch.mul(x, x, out=squares).add_(cross)
    return squares, torch.mul(x, y, out=cross)


def _blur(planes: Tensor) -> Tensor:
    """Gaussian mean of every window that fits: ``[N,H,W]`` → ``[N,H−10,W−10]``.

    Sums of shifted planes: as fast as a banded matrix, several times as fast as torch's
    convolution, and not subject to the precision that a program allows matrices.
    """
    for axis in (1, 2):
        size = planes.shape[axis] - 2 * _RADIUS
        blurred = planes.narrow(axis, _RADIUS, size) * _TAPS[_RADIUS]
        for i in range(_RADIUS):
            blurred.add_(planes.narrow(axis, i, size), alpha=_TAPS[i])
            blurred.add_(planes.narrow(axis, 2 * _RADIUS - i, size), alpha=_TAPS[i])
        planes = blurred
    return planes


def _fraction(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, in [-1, 1] but for rounding; 1 where rounding left nothing to divide by."""
    return torch.where(denominator > 0, numerator / denominator, 1.0).clamp(-1.0, 1.0)


def _scaled(maps: Tensor, scale: MSEScale) -> Tensor:
    if scale == "minmax":
        return minmax(maps)
    if scale == "sum":
        maps = unit_peak(maps)
        return divided(maps, maps.abs().sum((1, 2), keepdim=True))
    return maps


def _length(maps: Tensor) -> Tensor:
    return maps.square().sum((1, 2)).sqrt()
