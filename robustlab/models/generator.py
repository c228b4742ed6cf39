"""A small generator: makes digits out of sixteen numbers, for explanations that search there."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.models.seeding import seeded
from robustlab.models.shipped import load_shipped
from robustlab.models.weight_files import fit_weights, read_weights

SHIPPED = {"mnist": "generator_mnist_5k"}


class GeneratorNet(nn.Module):
    """linear, conv transposed 4×4/2 twice; ReLU between them, a sigmoid at the end.

    Codes ``[B, code]``, standard normal by design, to images ``[B, channels, size, size]``
    in (0, 1); ``size`` is a multiple of 4.
    """

    def __init__(
        self, code: int = 16, channels: int = 1, size: int = 28, widths: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__()
        self.code_shape = torch.Size([code])
        self.image_shape = torch.Size([channels, size, size])
        self.fc = nn.Linear(code, widths[0] * (size // 4) ** 2)
        self.up1 = nn.ConvTranspose2d(widths[0], widths[1], kernel_size=4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(widths[1], channels, kernel_size=4, stride=2, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Images of codes."""
        return self.logits(codes).sigmoid()

    def logits(self, codes: Tensor) -> Tensor:
        """The same before the sigmoid, for the likelihood in training."""
        side = self.image_shape[-1] // 4
        features = self.fc(codes).relu().unflatten(1, (-1, side, side))
        return self.up2(self.up1(features).relu())


def load_generator(name: str) -> GeneratorNet:
    """A generator that ships (*mnist*), or one of a user's file of the same architecture.

    Code length, widths, channels and image size are read off the tensors of the file, as
    ``python -m robustlab.training.generator`` writes it. In evaluation mode, on the CPU.

    Raises:
        InvalidInput: no such generator or file, or the file holds something else.
    """
    if name in SHIPPED:
        with seeded():
            net = GeneratorNet()
        load_shipped(net, SHIPPED[name])
        return net.eval()
    path = Path(name).expanduser()
    if not path.is_file():
        known = f"known: {', '.join(SHIPPED)}, or a .safetensors file"
        raise InvalidInput("generator", f"{name!r} neither ships nor is a file", known)
    state = read_weights(path)
    with seeded():
        net = _shaped_as(state, name)
    fit_weights(net, state, name)
    return net.eval()


def _shaped_as(state: dict[str, Tensor], source: str) -> GeneratorNet:
    """A net with random weights whose tensors have the shapes of ``state``."""
    needed = {"fc.weight": 2, "up1.weight": 4, "up2.weight": 4}
    if any(name not in state or state[name].ndim != rank for name, rank in needed.items()):
        make = "make one: python -m robustlab.training.generator --data NAME --out FOLDER"
        raise InvalidInput("generator", f"{source} holds no generator", make)
    units, code = state["fc.weight"].shape
    widths = state["up1.weight"].shape[:2]
    channels = state["up2.weight"].shape[1]
    size = 4 * max(1, math.isqrt(units // max(1, widths[0])))
    return GeneratorNet(code, channels, size, (widths[0], widths[1]))
