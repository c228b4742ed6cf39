"""How maps are compared: names of the three images, tolerances, forced micro-batches."""

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from robustlab.core import streaming

IDS = ("ada", "bob", "cyd")
AGREE = 1e-10


def noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def close(got: Tensor, expected: Tensor, breach: str, tolerance: float = AGREE) -> None:
    """Equal up to ``tolerance`` times the largest value of each image."""
    assert got.shape == expected.shape, f"{breach}: shape {got.shape} against {expected.shape}"
    scale = expected.flatten(1).abs().amax(1)
    gap = (got - expected).flatten(1).abs().amax(1)
    worst = float((gap / scale.clamp(min=1e-300)).max())
    assert worst <= tolerance, f"{breach}: off by {worst:.3g} of the largest value"


def micro_batches_of(count: int, images: Tensor) -> Any:
    """Force micro-batches of at most ``count`` images of this size."""
    pixels = count * images.shape[-1] * images.shape[-2]
    return mock.patch.object(streaming, "PIXELS_PER_MICRO_BATCH", pixels)
