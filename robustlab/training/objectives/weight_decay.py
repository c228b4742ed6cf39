"""Small weights: the oldest bound on how sharply a network can bend."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objective import task
from robustlab.training.objectives.options import not_negative


@dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """ℓ(f(x), y) + λ · Σ_l ‖W_l‖²_F over the layers' weights.

    The norms of a logit's gradient and Hessian are bounded by products of ‖W_l‖: one of three
    levers of Dombrowski et al., Pattern Recognition 121, 2022, beside softplus and curvature.
    Weights are the trained parameters of two or more dimensions; biases and the scales of
    normalisations do not count.

    Terms: *task*; *weights*, λ · Σ ‖W‖². No inner maximisation. Cost: one forward and one backward
    pass. Part of the loss, hence scaled by Adam like the rest of it (L2 regularisation, not
    decoupled decay). λ is ours.
    """

    weight: float = 1e-3

    def __post_init__(self) -> None:
        not_negative("weight", self.weight)

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        squares = [w.square().sum() for w in net.parameters() if w.ndim > 1 and w.requires_grad]
        return {
            "task": task(net, examples.images, examples.labels).mean(),
            "weights": self.weight * torch.stack(squares).sum(),
        }

    def cost(self) -> Passes:
        return Passes(1, 1)
