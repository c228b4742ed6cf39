"""What all metrics share: the check of a pair of maps, scaling, and the rule for 0/0."""

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

LARGEST = torch.finfo(torch.float64).max
SMALLEST = torch.finfo(torch.float64).smallest_normal


def check_pair(clean: Tensor, perturbed: Tensor) -> tuple[Tensor, Tensor]:
    """Both batches ``[B,H,W]`` in float64, detached: a metric measures, it has no gradient.

    Raises:
        InvalidInput: not two real tensors of one shape ``[B,H,W]`` on one device, maps
            without pixels, or NaN or infinite values.
    """
    for field, maps in (("clean", clean), ("perturbed", perturbed)):
        if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.is_complex():
            is_tensor = isinstance(maps, Tensor)
            got = f"{tuple(maps.shape)} {maps.dtype}" if is_tensor else type(maps).__name__
            raise InvalidInput(field, f"expected real maps [B,H,W], got {got}")
    if perturbed.shape != clean.shape:
        got = f"{tuple(perturbed.shape)}, but clean is {tuple(clean.shape)}"
        raise InvalidInput("perturbed", f"shape {got}")
    if perturbed.device != clean.device:
        raise InvalidInput("perturbed", f"on {perturbed.device}, but clean is on {clean.device}")
    if clean.shape[1] * clean.shape[2] == 0:
        raise InvalidInput("clean", f"maps without pixels: shape {tuple(clean.shape)}")
    device = home(clean.device)
    a = clean.detach().to(device, torch.float64)
    b = perturbed.detach().to(device, torch.float64)
    for field, maps in (("clean", a), ("perturbed", b)):
        # NaN wins both extremes; this reads the maps once where isfinite makes copies.
        extremes = torch.cat([maps.amin((1, 2)), maps.amax((1, 2))])
        if not bool(torch.isfinite(extremes).all()):
            raise InvalidInput(field, "contains NaN or infinite values")
    return a, b


def home(device: torch.device) -> torch.device:
    """Where to compute: the maps' own device, or the CPU if that one has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def peak(maps: Tensor) -> Tensor:
    """Largest absolute value of each map, ``[B,1,1]``."""
    return maps.abs().amax((1, 2), keepdim=True)


def divided(maps: Tensor, by: Tensor) -> Tensor:
    """``maps / by``, leaving a map as it is where ``by`` is zero."""
    return maps / torch.where(by > 0, by, 1.0)


def unit_peak(maps: Tensor) -> Tensor:
    """Each map over its largest absolute value, so that no square under- or overflows."""
    return divided(maps, peak(maps))


def minmax(maps: Tensor) -> Tensor:
    """Each map scaled to [0, 1]; a constant map becomes 0."""
    maps = unit_peak(maps)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return divided(maps - low, high - low)


def is_constant(maps: Tensor) -> Tensor:
    """Which maps have one value only, ``[B]``. Exact: a rounded variance is rarely 0."""
    return maps.amin((1, 2)) == maps.amax((1, 2))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between maps, ``[B]``; NaN where one is all zero."""
    dot, a2, b2 = (a * b).sum((1, 2)), a.square().sum((1, 2)), b.square().sum((1, 2))
    return (dot / (a2 * b2).sqrt()).clamp(-1.0, 1.0)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation, ``[B]``; undefined where one is constant."""
    a, b = unit_peak(a), unit_peak(b)
    return cosine(a - a.mean((1, 2), keepdim=True), b - b.mean((1, 2), keepdim=True))


def settle(value: Tensor, undefined: Tensor, clean: Tensor, perturbed: Tensor) -> Tensor:
    """Where the formula is 0/0: 1 if the two maps are exactly equal, otherwise 0."""
    equal = (clean == perturbed).all(2).all(1)
    return torch.where(undefined, equal.to(value.dtype), value)
