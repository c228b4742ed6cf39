"""Integrated gradients along the line between two images, as training wants them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustlab.training.objectives.slopes import leaf, outputs, slope

Score = Callable[[Tensor, Tensor], Tensor]
"""Logits and labels in, the number ``[B]`` that is explained out."""


def path_attribution(
    net: nn.Module, start: Tensor, end: Tensor, labels: Tensor, points: int, score: Score
) -> tuple[Tensor, Tensor]:
    """IG = (x' − x) ⊙ (1/m) Σ_{k=1..m} ∇s(x + (k/m)(x' − x)) and the logits at x'.

    Right Riemann sum with m ``points``; Σ IG → s(x') − s(x) with an error of O(1/m). The last
    point is x' itself, hence the logits for nothing. All points of all images go through the
    network together. Differentiable in ``start`` and ``end``, the factor x' − x included, and
    in the weights.
    """
    line = [start + k / points * (end - start) for k in range(1, points)]
    stack = leaf(torch.cat([*line, end]))
    logits = outputs(net, stack)
    slopes = slope(score(logits, labels.repeat(points)), stack)
    return logits[-len(end) :], (end - start) * slopes.view(points, *end.shape).mean(0)
