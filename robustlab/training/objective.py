"""What every training objective has, and the cross entropy that most of them share."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.streaming import run_model
from robustlab.core.types import Passes
from robustlab.training.examples import Examples


class TrainingObjective(Protocol):
    """A frozen dataclass of settings; holds no model, no data and no inner attack."""

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        """Named scalars, means over the images; their sum is descended."""
        ...

    def cost(self) -> Passes:
        """Passes of one image in one step, the step's own backward pass among them.

        A backward pass through a backward pass counts as two: it goes back through both.
        """
        ...


@runtime_checkable
class Shaping(Protocol):
    """An objective that asks something of the network itself."""

    def model_options(self) -> Mapping[str, Any]:
        """Options that the network is made with, such as a smooth activation."""
        ...

    def check(self, net: nn.Module, images: Tensor) -> None:
        """Refuse a network for which the objective is meaningless.

        Raises:
            InvalidInput: with the reason.
        """
        ...


def task(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy ``[B]`` of each image."""
    return F.cross_entropy(run_model(net, images), labels, reduction="none")
