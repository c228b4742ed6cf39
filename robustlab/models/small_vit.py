"""A vision transformer small enough to train on a few thousand digits."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.models.classifier import Classifier, at_least
from robustlab.models.seeding import seeded
from robustlab.models.shipped import give_weights

_PATCH, _WIDTH, _HEADS, _LAYERS = 4, 64, 4, 3


class Attention(nn.Module):
    """Multi-head self-attention, written out: softmax(Q Kᵀ / √d) V for each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, T, width]`` to the same shape."""
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, d]
            for part in self.qkv(tokens).chunk(3, dim=2)
        )
        alike = queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5
        mixed = torch.softmax(alike, dim=-1) @ values
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)) with GELU and a doubled width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, T, width]`` to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


class SmallVitNet(nn.Module):
    """Patches of 4×4 pixels and a class token, three layers, one matrix on the class token.

    Source: Dosovitskiy et al. 2021, in small: width 64, 4 heads, learnt positions.
    """

    def __init__(self, in_channels: int = 1, classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, _WIDTH, kernel_size=_PATCH, stride=_PATCH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        tokens = 1 + (image_size // _PATCH) ** 2
        self.positions = nn.Parameter(torch.randn(1, tokens, _WIDTH) * 0.02)
        self.layers = nn.Sequential(*(Layer(_WIDTH, _HEADS) for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.fc = nn.Linear(_WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of ``[B, in_channels, image_size, image_size]``."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = self.layers(tokens + self.positions)
        return self.fc(self.norm(tokens[:, 0]))


@dataclass(frozen=True)
class SmallVit:
    """A vision transformer small enough to train on a few thousand digits.

    ``SmallVitNet`` without normalisation.

    Attributes:
        weights: "mnist_5k" (shipped), "none" (random) or a .safetensors or .pth file.
        seed: of random weights.
        in_channels, classes: shape of the network.
        image_size: side of its images, a multiple of 4.
    """

    weights: str | Path = "mnist_5k"
    seed: int = 0
    in_channels: int = 1
    classes: int = 10
    image_size: int = 28

    def __post_init__(self) -> None:
        at_least("in_channels", self.in_channels, 1)
        at_least("classes", self.classes, 2)
        if self.image_size < _PATCH or self.image_size % _PATCH:
            raise InvalidInput("image_size", f"must be a multiple of 4, got {self.image_size}")

    def load(self, name: str) -> Classifier:
        """Build it with its weights.

        Raises:
            InvalidInput: weights that are missing or do not fit.
        """
        with seeded(self.seed):
            net = SmallVitNet(self.in_channels, self.classes, self.image_size)
        give_weights(net, "small_vit", self.weights)
        size = (self.in_channels, self.image_size, self.image_size)
        classes = self.classes
        return Classifier(net, 0, 1, classes, input_size=size, fixed_size=True, name=name).eval()
