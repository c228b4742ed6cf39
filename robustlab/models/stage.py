"""The convolutions of a stage, which the networks with attention have in common."""

from typing import Final

from torch import nn

WIDTHS: Final = (20, 40, 80)
"""Channels of the three stages."""


def convolutions(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
    """Two 3×3 convolutions, each with batch norm and ReLU; the first has the stride."""
    return (
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
