"""Masks of a few cells: their size, their way to the pixels, and how they are learnt."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.score import Score
from robustlab.core.streaming import Start, each_micro_batch, input_gradient

# a mask's parameters -> (images seen through it, the weight of each one's score, a price)
Game = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
# (images, targets, ids) -> their masks
Learn = Callable[[Tensor, Tensor, Sequence[str] | None], Tensor]

MOMENTUM, SQUARES, TINY = 0.9, 0.999, 1e-8  # Adam's usual constants


def cell_grid(cells: int, images: Tensor) -> tuple[int, int]:
    """Rows and columns of nearly square cells, ``cells`` along the shorter side.

    No cell is smaller than a pixel: an image with fewer pixels has one cell for each.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    cells = min(cells, side)
    return round(cells * height / side), round(cells * width / side)


def enlarged(mask: Tensor, images: Tensor) -> Tensor:
    """``[n,1,h,w]`` cells at the pixels of ``images``, bilinearly."""
    return F.interpolate(mask, images.shape[-2:], mode="bilinear", align_corners=False)


def learnt(images: Tensor, targets: Tensor, ids: Sequence[str] | None, learn: Learn) -> Tensor:
    """Masks of all images, learnt a micro-batch of images at a time."""

    def run(part: Tensor, labels: Tensor, where: slice) -> Tensor:
        with torch.no_grad():
            return learn(part, labels, None if ids is None else ids[where])

    return each_micro_batch(images.detach(), targets, run)


def slope(
    model: nn.Module, point: Tensor, targets: Tensor, game: Game, score: Score | Start
) -> Tensor:
    """The gradient of Σ_i weight_i · s(seen_i) + price in a mask's parameters.

    One forward and one backward pass of the model for each image seen, in micro-batches. The
    mask's own algebra is differentiated apart, so that no graph of the model outlives its
    micro-batch. ``score`` is a name, or what the backward pass starts with.
    """
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        seen, weight, price = game(point)

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        if isinstance(score, str):
            return input_gradient(model, part, labels, score=score)
        return input_gradient(model, part, labels, start=score)

    pull = each_micro_batch(seen.detach(), targets, run) * weight.view(-1, 1, 1, 1)
    return torch.autograd.grad((seen, price), point, (pull, torch.ones_like(price)))[0]


class Adam:
    """Kingma & Ba 2015, element by element, so that images never influence each other.

    torch.optim's takes seconds to import and wants to own the point; this is its arithmetic.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean = self.square = torch.zeros(())

    def __call__(self, point: Tensor, gradient: Tensor) -> Tensor:
        """The next point."""
        self.steps += 1
        self.mean = MOMENTUM * self.mean.to(point) + (1 - MOMENTUM) * gradient
        self.square = SQUARES * self.square.to(point) + (1 - SQUARES) * gradient.square()
        mean = self.mean / (1 - MOMENTUM**self.steps)
        square = self.square / (1 - SQUARES**self.steps)
        return point - self.rate * mean / (square.sqrt() + TINY)
