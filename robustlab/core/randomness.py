"""Randomness that belongs to an image, never to a batch or to the global generator.

Every draw is a function of (seed, image id, purpose): the same image gets the same
numbers in any batch, on any worker, on any device, in any order.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def generator(seed: int, image_id: str, purpose: str) -> torch.Generator:
    """A CPU generator for one image and one purpose ("smooth_grad", "start", ...)."""
    digest = hashlib.sha256(f"{seed}\x1f{image_id}\x1f{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(like: Tensor, ids: Sequence[str] | None, seed: int, purpose: str) -> Tensor:
    """Standard normal noise in the shape of ``like``, drawn per image on the CPU."""
    return _draw(like, ids, seed, purpose, lambda shape, g: torch.randn(shape, **_on_cpu(g)))


def uniform(like: Tensor, ids: Sequence[str] | None, seed: int, purpose: str) -> Tensor:
    """Noise uniform on [-1, 1] in the shape of ``like``."""
    return _draw(like, ids, seed, purpose, lambda shape, g: torch.rand(shape, **_on_cpu(g)) * 2 - 1)


def signs(like: Tensor, ids: Sequence[str] | None, seed: int, purpose: str) -> Tensor:
    """Independent fair signs ±1 in the shape of ``like``."""
    return _draw(
        like,
        ids,
        seed,
        purpose,
        lambda shape, g: torch.randint(0, 2, shape, **_on_cpu(g)) * 2 - 1,
    )


def _on_cpu(generator: torch.Generator) -> dict[str, Any]:
    """Whatever the program's default dtype and device: both would change the stream."""
    return {"generator": generator, "dtype": torch.float32, "device": "cpu"}


def _draw(
    like: Tensor,
    ids: Sequence[str] | None,
    seed: int,
    purpose: str,
    draw: Callable[[torch.Size, torch.Generator], Tensor],
) -> Tensor:
    names = [""] * len(like) if ids is None else ids
    noise = torch.stack([draw(like.shape[1:], generator(seed, name, purpose)) for name in names])
    return noise.to(device=like.device, dtype=like.dtype)
