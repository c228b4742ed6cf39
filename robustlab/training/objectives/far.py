"""FAR: no image within reach may have another map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustlab.core.types import Passes
from robustlab.core.untouched import frozen
from robustlab.explainers.gradient.plain import smoothed
from robustlab.training.examples import Examples, Reach
from robustlab.training.objective import task
from robustlab.training.objectives.options import (
    at_least,
    not_negative,
    positive_or_none,
    starts_elsewhere,
)
from robustlab.training.objectives.path_loss import path_attribution
from robustlab.training.objectives.slopes import cosine, leaf, of_class, outputs, slope

Similarity = Literal["pearson", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Far(Reach):
    """ℓ(f(·), y) + δ · max_{‖x̃ − x‖∞ ≤ ε} d(A(x), A(x̃)), FAR: Ivankay et al., BMVC 2021.

    d = 1 − (s + 1)/2 in [0, 1] with s the Pearson correlation or the cosine of both maps as
    vectors, signs and all. The cross entropy is of x in the form *aat*, of x̃ in *adv_aat*. A is
    the gradient of the label's logit, or its integrated gradients from a black image with
    ``points`` points, on the same weights with softplus_β for ReLU (``beta``; None takes the
    network as it is, whose logit gradient has no slope if it is piecewise linear).

    Terms: *task*; *distance*, δ · mean d. Inner maximisation: PGD on d from a random start (at x it
    is 0 and flat). Cost: 3 backward passes for each forward pass through A, which is taken once
    in every inner step and twice in the step itself; and one of each for the task.

    Settings: δ = ``weight`` = 0.5 is that of the authors' later code for text; ε, steps and β are
    ours, as the vision code is not public. Chen et al.'s IG-NORM (`RarNorm`) has the same form
    with ‖·‖₁ of the loss's attribution for d.
    """

    epsilon: float = 0.1
    steps: int = 7
    form: Literal["aat", "adv_aat"] = "adv_aat"
    map: Literal["gradient", "integrated_gradients"] = "gradient"
    similarity: Similarity = "pearson"
    points: int = 5
    weight: float = 0.5
    beta: float | None = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("points", self.points, 1)
        not_negative("weight", self.weight)
        positive_or_none("beta", self.beta)
        starts_elsewhere(self)

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        images, labels = examples.images, examples.labels
        clean = self.explained(net, images, labels)
        held = clean.detach()

        def gain(x: Tensor) -> Tensor:
            return distance(held, self.explained(net, x, labels), self.similarity)

        with frozen(net):
            worst = examples.worst(gain, self)
        apart = distance(clean, self.explained(net, worst, labels), self.similarity)
        answered = images if self.form == "aat" else worst
        return {
            "task": task(net, answered, labels).mean(),
            "distance": self.weight * apart.mean(),
        }

    def explained(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """A ``[B,C,H,W]`` with its graph."""
        smooth, images = smoothed(net, self.beta), leaf(images)
        if self.map == "gradient":
            return slope(of_class(outputs(smooth, images), labels), images)
        black = torch.zeros_like(images)
        return path_attribution(smooth, black, images, labels, self.points, of_class)[1]

    def cost(self) -> Passes:
        along = (self.steps + 2) * (1 if self.map == "gradient" else self.points)
        return Passes(along + 1, 3 * along + 1)


def distance(first: Tensor, second: Tensor, similarity: Similarity) -> Tensor:
    """d = 1 − (s + 1)/2 ``[B]``: 0 for positively proportional maps, 1 for opposite ones."""
    if similarity == "pearson":
        first, second = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (first, second))
    return (1 - cosine(first, second)) / 2
