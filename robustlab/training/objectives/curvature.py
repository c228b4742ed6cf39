"""A price on curvature: gradient maps that turn slowly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objectives.options import not_negative, positive_or_none
from robustlab.training.objectives.slopes import leaf, of_class, outputs, slope
from robustlab.training.objectives.smooth import refuse_kinks


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """ℓ(f(x), y) + ζ · ‖H‖²_F with H = ∇²_x f_c(x): Dombrowski et al., Pattern Recognition 2022.

    A gradient map cannot move by more than max ‖H‖_F · ‖δ‖. ‖H‖²_F = E_v ‖Hv‖² for v ~ N(0, I):
    one probe for each image and step, another in each, so the estimate is unbiased. c is the
    *label*'s class or the *prediction* at that moment.

    Terms: *task*; *curvature*, ζ · mean ‖Hv‖². No inner maximisation. Cost: one forward pass and 7
    backward ones (the gradient, twice as much for Hv, and back through all of it).

    The network is made with the option ``beta``, softplus_β for ReLU, unless that is None; a
    piecewise linear one is refused, because its H is zero almost everywhere. The paper varies ζ =
    ``weight``, and its values could not be checked; ours is.
    """

    weight: float = 0.01
    beta: float | None = 10.0
    of: Literal["label", "prediction"] = "prediction"

    def __post_init__(self) -> None:
        not_negative("weight", self.weight)
        positive_or_none("beta", self.beta)

    def model_options(self) -> Mapping[str, Any]:
        return {} if self.beta is None else {"beta": self.beta}

    def check(self, net: nn.Module, images: Tensor) -> None:
        refuse_kinks(net, images, "the penalty on their second derivative would always be 0")

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        images = leaf(examples.images)
        logits = outputs(net, images)
        classes = examples.labels if self.of == "label" else logits.argmax(1)
        probes = examples.normal("hutchinson")
        squares = hessian_square(of_class(logits, classes), images, probes)
        return {
            "task": F.cross_entropy(logits, examples.labels),
            "curvature": self.weight * squares.mean(),
        }

    def cost(self) -> Passes:
        return Passes(1, 7)


def hessian_square(values: Tensor, images: Tensor, probes: Tensor) -> Tensor:
    """‖H v‖² ``[B]`` of each image's value and probe; its mean over v ~ N(0, I) is ‖H‖²_F."""
    first = slope(values, images)
    return slope(first, images, probes).flatten(1).square().sum(1)
