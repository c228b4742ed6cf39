"""Gaussian blur of images: a baseline for paths, and what perturbations fade into."""

import math

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Each channel of ``[B,C,H,W]`` convolved with a Gaussian of ``sigma`` pixels; same shape.

    Along each axis: weights ∝ exp(−o²/2σ²) at offsets |o| ≤ ⌈3σ⌉ (at most the axis' length
    minus 1), normalised to sum 1; the border reflects without repeating its edge pixel, as
    torch's "reflect" padding does. Linear in the images, so differentiable to any order.

    Raises:
        InvalidInput: ``sigma`` is not above 0.
    """
    if not 0 < sigma < math.inf:
        raise InvalidInput("sigma", f"a blur needs a width above 0, got {sigma}")
    height, width = images.shape[-2:]
    return _matrix(height, sigma).to(images) @ images @ _matrix(width, sigma).to(images).T


def _matrix(size: int, sigma: float) -> Tensor:
    """The blur along one axis as a matrix ``[size, size]``, reflections folded in.

    A product with it costs less than a convolution once σ is a few pixels, whatever σ is.
    """
    radius = min(math.ceil(3 * sigma), size - 1)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    weights /= weights.sum()
    seen = (torch.arange(size)[:, None] + offsets).abs()  # reflected at the first pixel
    seen = size - 1 - (size - 1 - seen).abs()  # and at the last
    matrix = torch.zeros(size, size, dtype=torch.double)
    return matrix.scatter_add_(1, seen, weights.expand(size, -1))
