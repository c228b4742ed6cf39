"""A convolutional network with CBAM: gates that weigh the channels, then the positions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.models.any_size import AnySize
from robustlab.models.stage import WIDTHS, convolutions


class ChannelGate(nn.Module):
    """One factor per channel: σ(MLP(GAP(A)) + MLP(GMP(A))), one MLP for both, no biases.

    GMP is the largest value of each channel. Source: Woo et al. 2018, eq. 2.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, K, h, w]`` to the same shape."""
        pooled = features.mean((2, 3)), features.amax((2, 3))
        mean, largest = (self.fc2(F.relu(self.fc1(p))) for p in pooled)
        return features * torch.sigmoid(mean + largest)[:, :, None, None]


class SpatialGate(nn.Module):
    """One factor per position: σ(BN(conv 7×7 of [mean_k A; max_k A])).

    Source: Woo et al. 2018, eq. 3. The batch norm is not in the formula but in their code;
    without it the gate soon stands open everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, K, h, w]`` to the same shape."""
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * torch.sigmoid(self.bn(self.conv(pooled)))


class CbamCnnNet(nn.Module):
    """Three stages of two 3×3 convolutions with batch norm and both gates; GAP and one matrix."""

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
        ChannelGate(after),
        SpatialGate(),
    )


@dataclass(frozen=True)
class CbamCnn(AnySize):
    """CBAM, gates that weigh the channels, then the positions: ``CbamCnnNet``."""

    network: ClassVar = CbamCnnNet
    arch: ClassVar = "cbam_cnn"
