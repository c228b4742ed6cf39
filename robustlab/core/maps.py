"""From a raw attribution to a map: the post-processing, by name.

Rank metrics do not change under positive scaling but do under ``abs`` and the channel
reduction, so numbers made with different post-processing must never be compared.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput, nearest

Post = Literal[
    "signed",
    "abs_sum",
    "positive",
    "max_abs",
    "mean_abs",
    "ghorbani",
    "dombrowski",
    "minmax",
    "std",
]
TINY = 1e-30  # gradients of a saturated softmax are as small as 1e-20


def to_maps(raw: Tensor, post: Post, size: tuple[int, int]) -> Tensor:
    """Turn ``[B,C,h,w]`` into maps ``[B,H,W]``; differentiable.

    A smaller raw attribution is first upsampled bilinearly (``align_corners=False``).
    With ``a`` the raw attribution and sums over channels ``c``, per image:

    ========== ==================================================================
    signed     Σ_c a
    abs_sum    Σ_c |a|
    positive   max(0, Σ_c a)
    max_abs    max_c |a|
    mean_abs   mean_c |a|
    ghorbani   abs_sum, divided by its sum, times H·W  (Ghorbani 2019)
    dombrowski abs_sum, divided by its sum  (Dombrowski 2019)
    minmax     abs_sum scaled to [0, 1]; a constant map becomes 0
    std        per-channel z-score (+1e-5), then max over channels  (Noppel 2023)
    ========== ==================================================================
    """
    if post not in get_args(Post):
        raise InvalidInput(
            "post", f"unknown post-processing {post!r}", nearest(post, get_args(Post))
        )
    if raw.shape[-2:] != size:
        raw = F.interpolate(raw, size=size, mode="bilinear", align_corners=False)
    if post == "signed":
        return raw.sum(1)
    if post == "positive":
        return raw.sum(1).clamp(min=0)
    if post == "max_abs":
        return raw.abs().amax(1)
    if post == "mean_abs":
        return raw.abs().mean(1)
    if post == "std":
        centred = raw - raw.mean((2, 3), keepdim=True)
        return (centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + 1e-5)).amax(1)
    maps = raw.abs().sum(1)
    if post == "ghorbani":
        return shares(maps)
    if post == "dombrowski":
        return shares(maps) / (size[0] * size[1])
    if post == "minmax":
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low).clamp(min=TINY)
    return maps


def shares(maps: Tensor) -> Tensor:
    """Scale each map so that Σ|m| = H·W (Ghorbani's normalisation); all-zero maps stay zero."""
    total = maps.abs().sum((1, 2), keepdim=True)
    return maps * (maps.shape[1] * maps.shape[2]) / torch.clamp(total, min=TINY)
