"""Smooth activations from the start: a network that cannot bend sharply."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objective import task
from robustlab.training.objectives.options import positive_or_none
from robustlab.training.objectives.smooth import refuse_kinks


@dataclass(frozen=True, kw_only=True)
class Softplus:
    """E ℓ(f(x), y) of a network whose activations are softplus_β(z) = log(1 + e^{βz}) / β.

    The Hessian of a logit, and with it how fast a gradient map can turn, grows with β: a small
    one is a defence by itself. Dombrowski et al., Pattern Recognition 121, 2022.

    Terms: *task*. No inner maximisation. Cost: one forward and one backward pass. The network is
    made with the option ``beta`` and explained as it is, without ReLU ever. The paper compares
    several β; 10 is ours. It may have any other smooth activation as well: what is refused is a
    piecewise linear one.
    """

    beta: float = 10.0

    def __post_init__(self) -> None:
        positive_or_none("beta", self.beta)

    def model_options(self) -> Mapping[str, Any]:
        return {"beta": self.beta}

    def check(self, net: nn.Module, images: Tensor) -> None:
        refuse_kinks(net, images, "this objective is about smooth ones")

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        return {"task": task(net, examples.images, examples.labels).mean()}

    def cost(self) -> Passes:
        return Passes(1, 1)
