"""Adversarial training: the task on the worst images within reach."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from robustlab.core.types import Passes
from robustlab.training.examples import Examples, Reach
from robustlab.training.objective import task


@dataclass(frozen=True, kw_only=True)
class Adversarial(Reach):
    """E max_{‖δ‖∞ ≤ ε} ℓ(f(x + δ), y): Madry et al., ICLR 2018.

    Terms: *task*, of the disturbed images alone. Inner maximisation: PGD on ℓ from a random
    start in the ball. Cost: a forward and a backward pass per inner step, and one of each for
    the step itself.

    Settings of the paper for MNIST: ε = 0.3, 40 steps of 0.01. Chen et al. 2019 take ε = 0.1
    and 20 steps of 0.01 for Fashion-MNIST. Ours: ε = 0.1, 7 steps of 2.5·ε/7.
    """

    epsilon: float = 0.1
    steps: int = 7

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        worst = examples.worst(lambda x: task(net, x, examples.labels), self)
        return {"task": task(net, worst, examples.labels).mean()}

    def cost(self) -> Passes:
        return Passes(self.steps + 1, self.steps + 1)
