"""How large a network's slopes are, measured on pictures that belong to nobody.

A manipulation must be the same network whichever images share its batch, so it cannot take
its scale from them.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.randomness import generator
from robustlab.core.streaming import each_micro_batch, input_gradient, logits_of

COUNT: Final = 16
COARSE: Final = 8  # places along a side; finer noise leaves deep networks unmoved


def probes(like: Tensor) -> Tensor:
    """Smooth random pictures ``[16,C,H,W]`` in [0, 1], the same for every call of one shape."""
    channels, height, width = like.shape[1:]
    coarse = torch.rand(
        (COUNT, channels, COARSE, COARSE), generator=generator(0, "probes", "manipulation")
    )
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return smooth.to(like)


def largest_gradient(model: nn.Module, like: Tensor) -> float:
    """max ‖∂f_t/∂x‖₂ over the probes, t the predicted class; 1 where every gradient is zero."""

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        return input_gradient(model, part, labels).flatten(1).norm(dim=1)

    images = probes(like)
    targets = logits_of(model, images).argmax(1)
    return float(each_micro_batch(images, targets, run).max()) or 1.0
