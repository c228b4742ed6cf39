"""What all metrics share: the check of a pair of maps, scaling, and the rule for 0/0."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

LARGEST = torch.finfo(torch.float64).max

_CACHED: Final = 1 << 16  # numbers in a part of the batch
_AT_ONCE: Final = 1 << 24  # the same on another device


def by_parts(
    clean: Tensor,
    perturbed: Tensor,
    formula: Callable[[Tensor, Tensor], Tensor],
    *,
    keep_float32: bool = False,
) -> Tensor:
    """A formula's values for two batches ``[B,H,W]``: a few pairs of maps at a time.

    The formula gets them in float64 (with ``keep_float32``, as they are if both are float32),
    detached (a metric measures, it has no gradient), and must treat each pair alone. What is
    made of a part stays in the cache; threads were tried for the parts, and bring nothing
    (numpy and torch hand too little to them at a time).

    Raises:
        InvalidInput: not two real tensors of one shape ``[B,H,W]`` on one device, maps
            without pixels, or NaN or infinite values.
    """
    check_maps("clean", clean)
    check_like(perturbed, clean.shape, clean.device)

    read = finite if keep_float32 and clean.dtype == perturbed.dtype else exact

    def of(part: slice) -> Tensor:
        return formula(read("clean", clean[part]), read("perturbed", perturbed[part]))

    parts = slices(clean) or [slice(0)]  # options are checked for an empty batch, too
    return torch.cat([of(part) for part in parts])


def check_maps(field: str, maps: Tensor) -> None:
    """Refuse what is no batch of real maps ``[B,H,W]`` with pixels."""
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.is_complex():
        is_tensor = isinstance(maps, Tensor)
        got = f"{tuple(maps.shape)} {maps.dtype}" if is_tensor else type(maps).__name__
        raise InvalidInput(field, f"expected real maps [B,H,W], got {got}")
    if maps.shape[1] * maps.shape[2] == 0:
        raise InvalidInput(field, f"maps without pixels: shape {tuple(maps.shape)}")


def check_like(perturbed: Tensor, shape: torch.Size, device: torch.device) -> None:
    """Refuse maps that cannot be held against clean ones of this shape on this device."""
    check_maps("perturbed", perturbed)
    if perturbed.shape != shape:
        got = f"{tuple(perturbed.shape)}, but clean is {tuple(shape)}"
        raise InvalidInput("perturbed", f"shape {got}")
    if perturbed.device != device:
        raise InvalidInput("perturbed", f"on {perturbed.device}, but clean is on {device}")


def finite(field: str, maps: Tensor) -> Tensor:
    """Maps detached, where there is float64, in that or in float32; refuses NaN and infinity."""
    maps = maps.detach().to(home(maps.device))
    if maps.dtype != torch.float32:
        maps = maps.double()
    # A finite sum has finite terms, and is read off faster; a sum may overflow all the same.
    if not bool(torch.isfinite(maps.sum())) and not bool(torch.isfinite(maps).all()):
        raise InvalidInput(field, "contains NaN or infinite values")
    return maps


def exact(field: str, maps: Tensor) -> Tensor:
    """The same, in float64."""
    return finite(field, maps).double()


def home(device: torch.device) -> torch.device:
    """Where to compute: the maps' own device, or the CPU if that one has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def peak(maps: Tensor) -> Tensor:
    """Largest absolute value of each map, ``[B,1,1]``."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.maximum(-low, high)


def divided(maps: Tensor, by: Tensor) -> Tensor:
    """``maps / by``, leaving a map as it is where ``by`` is zero."""
    return maps / torch.where(by > 0, by, 1.0)


def unit_peak(maps: Tensor) -> Tensor:
    """Each map over its largest absolute value, so that no square under- or overflows."""
    return divided(maps, peak(maps))


def minmax(maps: Tensor) -> Tensor:
    """Each map scaled to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    fits = torch.isfinite(high - low)
    if not bool(fits.all()):
        half = torch.where(fits, 1.0, 0.5)
        maps, low, high = maps * half, low * half, high * half
    return divided(maps - low, high - low)


def is_constant(maps: Tensor) -> Tensor:
    """Which maps have one value only, ``[B]``. Exact: a rounded variance is rarely 0."""
    return maps.amin((1, 2)) == maps.amax((1, 2))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between maps, ``[B]``; NaN where one is all zero."""
    return (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the products of each two maps' pixels, ``[B]``."""
    if len(a) == 1:  # half the time of the batch's way
        return torch.dot(a.flatten(), b.flatten()).view(1)
    return (a * b).sum((1, 2))


def in_range(squares: Tensor) -> bool:
    """Whether no sum of squares has under- or overflown: nearly always, and cheaper to see than
    to scale the maps first.
    """
    return bool(((squares > 1e-150) & (squares < 1e150)).all())


def slices(maps: Tensor) -> list[slice]:
    """Parts of a batch: a few maps at a time, so that what is made of them stays in the cache,
    or on another device as many as do not take too much of its memory.
    """
    size = max(1, maps[0].numel()) if len(maps) else 1
    step = max(1, (_CACHED if maps.device.type == "cpu" else _AT_ONCE) // size)
    return [slice(i, i + step) for i in range(0, len(maps), step)]


def settle(value: Tensor, undefined: Tensor, clean: Tensor, perturbed: Tensor) -> Tensor:
    """Where the formula is 0/0: 1 if the two maps are exactly equal, otherwise 0."""
    if not bool(undefined.any()):
        return value
    equal = (clean == perturbed).all(2).all(1)
    return torch.where(undefined, equal.to(value.dtype), value)
