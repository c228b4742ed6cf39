"""TRADES: accuracy on clean images, and the same answer all around them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.streaming import run_model
from robustlab.core.types import Passes
from robustlab.core.untouched import frozen
from robustlab.training.examples import Examples, Reach
from robustlab.training.objectives.options import not_negative, starts_elsewhere


@dataclass(frozen=True, kw_only=True)
class Trades(Reach):
    """ℓ(f(x), y) + β · max_{‖x' − x‖∞ ≤ ε} KL(p(x) ‖ p(x')): Zhang et al., ICML 2019.

    Terms: *task*, of the clean images; *divergence*, β · mean KL, with a gradient through both
    p. Inner maximisation: PGD on the KL, p(x) held. Cost: a forward and a backward pass per
    inner step, and two of each for the step itself.

    Settings of the authors' code for MNIST: ε = 0.3, 40 steps of 0.01, β = 1; for CIFAR-10:
    ε = 0.031, 10 steps of 0.007, β = 6. Ours: ε = 0.1, 7 steps of 2.5·ε/7, β = ``weight`` = 6.
    Deviation: the paper starts at x + 0.001 · N(0, I), because the KL is flat at x; here the start
    is uniform in the ball.
    """

    epsilon: float = 0.1
    steps: int = 7
    weight: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("weight", self.weight)
        starts_elsewhere(self)

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        clean = run_model(net, examples.images)
        held = clean.detach()
        with frozen(net):
            worst = examples.worst(lambda x: divergence(held, run_model(net, x)), self)
        apart = divergence(clean, run_model(net, worst))
        return {
            "task": F.cross_entropy(clean, examples.labels),
            "divergence": self.weight * apart.mean(),
        }

    def cost(self) -> Passes:
        return Passes(self.steps + 2, self.steps + 2)


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p ‖ q) ``[B]`` of the softmax of both."""
    p, q = torch.log_softmax(logits, 1), torch.log_softmax(others, 1)
    return (p.exp() * (p - q)).sum(1)
