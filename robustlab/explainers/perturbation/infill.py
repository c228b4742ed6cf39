"""What stands in for a hidden pixel: a constant, a blur, noise, or colours from around it."""

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.blur import gaussian_blur
from robustlab.core.randomness import normal, uniform

Infill = Literal["mean", "blur", "noise"] | float

SPECKLE: Final = 0.2  # standard deviation of the noise about its colour, as in FIDO's code
NOTHING_KEPT: Final = 0.5  # mid-grey, where no colour is left to spread


def infill_of(
    images: Tensor,
    infill: Infill,
    *,
    blur: float,
    ids: Sequence[str] | None,
    seed: int,
    purpose: str,
) -> Tensor:
    """``[B,C,H,W]`` to be seen where a mask hides an image; differentiable in the images.

    A number is that pixel value everywhere. *mean*: the image's own mean colour. *blur*: the
    image under a Gaussian whose standard deviation is ``blur`` times its shorter side.
    *noise*: one random colour per image and speckle about it, clipped to [0, 1].
    """
    if infill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if infill == "blur":
        return blurred(images, blur)
    if infill == "noise":
        colour = (uniform(images[:, :, :1, :1], ids, seed, f"{purpose}/colour") + 1) / 2
        return (colour + SPECKLE * normal(images, ids, seed, purpose)).clamp(0, 1)
    return torch.full_like(images, infill)


def blurred(images: Tensor, share: float) -> Tensor:
    """Under a Gaussian whose standard deviation is ``share`` of the shorter side; 0 is none."""
    return gaussian_blur(images, share * min(images.shape[-2:])) if share else images


def diffused(images: Tensor, keep: Tensor) -> Tensor:
    """The colours of kept pixels spread into the holes, from coarse to fine: pull-push.

    ``keep`` ``[B,1,H,W]`` in [0, 1] says how well a pixel is known. Pull: colours are
    averaged by that weight over blocks of 2, 4, 8, ... pixels. Push: a block that holds no
    known pixel takes its colour from the coarser blocks around it. Hidden pixels have no
    influence; where an image keeps none at all, the result is mid-grey. Gortler et al. 1996.
    """
    return _spread(images * keep, keep)


def _spread(colours: Tensor, weight: Tensor) -> Tensor:
    """From weighted sums of colours and sums of weights to a colour everywhere."""
    known = weight.clamp(max=1)
    own = colours / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    if weight[0].numel() == 1:
        return torch.lerp(torch.full_like(own, NOTHING_KEPT), own, known)
    coarser = _spread(_block_sums(colours), _block_sums(weight))
    around = F.interpolate(coarser, weight.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(around, own, known)


def _block_sums(values: Tensor) -> Tensor:
    """Sums over blocks of 2 × 2; an odd last row or column stands alone."""
    return F.avg_pool2d(values, 2, ceil_mode=True, divisor_override=1)
