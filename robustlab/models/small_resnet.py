"""A residual network small enough to train in a minute."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.models.any_size import AnySize

_WIDTHS = (20, 40, 80)


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm beside a shortcut; functional activations.

    Functional on purpose: much of the code out there is, and tools that look for
    ``nn.ReLU`` modules silently give the plain gradient on it.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, images: Tensor) -> Tensor:
        """``[B, before, H, W]`` to ``[B, after, H/stride, W/stride]``."""
        features = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(features)) + self.shortcut(images))


class SmallResnetNet(nn.Module):
    """A 3×3 stem, three residual stages, global average pooling and one linear layer."""

    def __init__(self, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.stage1 = Block(_WIDTHS[0], _WIDTHS[0], stride=2)
        self.stage2 = Block(_WIDTHS[0], _WIDTHS[1], stride=1)
        self.stage3 = Block(_WIDTHS[1], _WIDTHS[2], stride=2)
        self.fc = nn.Linear(_WIDTHS[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of ``[B, in_channels, H, W]``, at least 4×4 pixels."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.stage3(self.stage2(self.stage1(features)))
        return self.fc(features.mean((2, 3)))


@dataclass(frozen=True)
class SmallResnet(AnySize):
    """A residual network with batch norm, small enough to train in a minute: ``SmallResnetNet``."""

    network: ClassVar = SmallResnetNet
    arch: ClassVar = "small_resnet"
