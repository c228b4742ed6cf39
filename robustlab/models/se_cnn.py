"""A convolutional network with squeeze-and-excitation: gates that weigh the channels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.models.any_size import AnySize
from robustlab.models.stage import WIDTHS, convolutions


class SqueezeExcitation(nn.Module):
    """One factor per channel and image: y_k = g_k A_k, g = σ(W₂ ReLU(W₁ GAP(A) + b₁) + b₂).

    The hidden layer is ``reduction`` times narrower. Source: Hu, Shen & Sun 2018, eq. 2-4;
    the biases are those of the usual implementations.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, K, h, w]`` to the same shape."""
        squeezed = features.mean((2, 3))
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(squeezed))))
        return features * gates[:, :, None, None]


class SeCnnNet(nn.Module):
    """Three stages of two 3×3 convolutions with batch norm and a gate; GAP and one matrix."""

    def __init__(self, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.stage1 = _stage(in_channels, first, stride=2)
        self.stage2 = _stage(first, second, stride=1)
        self.stage3 = _stage(second, third, stride=2)
        self.fc = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of ``[B, in_channels, H, W]``, at least 4×4 pixels."""
        features = self.stage3(self.stage2(self.stage1(images)))
        return self.fc(features.mean((2, 3)))


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *convolutions(before, after, stride),
        SqueezeExcitation(after),
    )


@dataclass(frozen=True)
class SeCnn(AnySize):
    """Squeeze-and-excitation, gates that weigh the channels: ``SeCnnNet``."""

    network: ClassVar = SeCnnNet
    arch: ClassVar = "se_cnn"
