"""What a pixel shows that has been removed."""

from typing import Literal, get_args

import torch
from torch import Tensor

from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_choice

Baseline = Literal["black", "mean", "blur"]


def stand_in(images: Tensor, baseline: Baseline, blur: float) -> Tensor:
    """The pictures without anything to see, ``[B,C,H,W]``.

    *black*; *mean*, the image's own mean colour; *blur*, the image under a Gaussian whose
    standard deviation is ``blur`` times its shorter side.
    """
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return gaussian_blur(images, blur * min(images.shape[-2:]))


def check_baseline(baseline: str, blur: float) -> None:
    """Refuse a baseline that is not known, and a blur without width."""
    check_choice("baseline", baseline, get_args(Baseline))
    if not blur > 0:
        raise InvalidInput("blur", f"must be above 0, got {blur}")
