"""An attention branch network: maps of every class, trained to classify, gate the features."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.models.any_size import AnySize
from robustlab.models.stage import WIDTHS, convolutions


class AttentionBranch(nn.Module):
    """Class maps C ``[B, classes, h, w]``, and from them a mask M = σ(conv 1×1 of ReLU(BN(C))).

    The mean of C over the positions is this branch's own prediction, which makes C_c the
    evidence for class c at each place.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.class_maps = nn.Conv2d(channels, classes, 1)
        self.mask_bn = nn.BatchNorm2d(classes)
        self.mask = nn.Conv2d(classes, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, channels, h, w]`` to (C, M)."""
        maps = self.class_maps(F.relu(self.bn(self.conv(features))))
        return maps, torch.sigmoid(self.mask(F.relu(self.mask_bn(maps))))


class AbnCnnNet(nn.Module):
    """Features A, the attention branch, and a perception branch that sees (1 + M) ⊙ A.

    Source: Fukui et al. 2019, eq. 3 for the gate. Smaller than theirs, and the class maps
    are those that are averaged; their code has one more 1×1 convolution before the average.
    """

    def __init__(self, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.features = nn.Sequential(
            nn.Sequential(*convolutions(in_channels, first, stride=2)),
            nn.Sequential(*convolutions(first, second, stride=1)),
        )
        self.attention = AttentionBranch(second, classes)
        self.perception = nn.Sequential(*convolutions(second, third, stride=2))
        self.fc = nn.Linear(third, classes)

    def branches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the attention branch and of the perception branch, to train both."""
        features = self.features(images)
        maps, mask = self.attention(features)
        perceived = self.perception(features * (1 + mask))
        return maps.mean((2, 3)), self.fc(perceived.mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of ``[B, in_channels, H, W]``, at least 4×4 pixels."""
        return self.branches(images)[1]


@dataclass(frozen=True)
class AbnCnn(AnySize):
    """An attention branch network, gated by the maps of its own classes: ``AbnCnnNet``."""

    network: ClassVar = AbnCnnNet
    arch: ClassVar = "abn_cnn"
