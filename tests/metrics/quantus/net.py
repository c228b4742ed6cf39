"""The network of the fixtures: quantus' environment and ours build it from the same numbers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LAYERS = ("first", "second", "last")
UNIT = 64  # weights are whole numbers of 1/64, pixels and steps of 1/32: exact in any library
PIXEL = 32


class Drawn(nn.Module):
    """x Wᵀ + b; its "fresh random weights" are written down, so that no generator is asked."""

    def __init__(self, weight: Tensor, bias: Tensor, spare: Tensor, spare_bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("spare", spare)
        self.register_buffer("spare_bias", spare_bias)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(self.spare)
            self.bias.copy_(self.spare_bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Net(nn.Module):
    """Three matrices with tanh in between, on the pixels of a grey image."""

    def __init__(self, numbers: Mapping[str, Mapping[str, Sequence]]) -> None:
        super().__init__()
        for name in LAYERS:
            parts = (torch.tensor(part).double() / UNIT for part in numbers[name].values())
            setattr(self, name, Drawn(*parts))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x.flatten(1)))
        return self.last(torch.tanh(self.second(x)))


def slope(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """∂logit/∂pixel ``[B,1,H,W]``: the explanation of the fixtures."""
    x = images.detach().clone().requires_grad_()
    logits = net(x).gather(1, targets.unsqueeze(1)).sum()
    return torch.autograd.grad(logits, x)[0]
