"""Training for accuracy alone: what every defence is held against."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objective import task


@dataclass(frozen=True, kw_only=True)
class Natural:
    """Cross entropy of the images as they are: E ℓ(f(x), y).

    Terms: *task*. Cost: one forward and one backward pass.
    """

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        return {"task": task(net, examples.images, examples.labels).mean()}

    def cost(self) -> Passes:
        return Passes(1, 1)
