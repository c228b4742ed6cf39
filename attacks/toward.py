"""The class that a targeted attack leads to, and the gradient that leads there."""

from typing import Literal

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import each_micro_batch, input_gradient, logits_of
from robustlab.core.types import Problem

# runner_up: the likeliest class but the prediction. least_likely: the unlikeliest. A number:
# that class for every image, those that are of it already included.
Toward = Literal["runner_up", "least_likely"] | int


def check_toward(toward: Toward | None) -> None:
    """Refuse what is no class before there is a model to count classes.

    Raises:
        InvalidInput: naming the words that are understood.
    """
    number = isinstance(toward, int) and not isinstance(toward, bool) and toward >= 0
    if not (toward is None or number or toward in ("runner_up", "least_likely")):
        raise InvalidInput(
            "toward", f"{toward!r} is not known", "runner_up, least_likely or a class index"
        )


def classes_toward(problem: Problem, toward: Toward) -> Tensor:
    """The target class ``[B]`` of each image, by its clean logits: one forward pass.

    Raises:
        InvalidInput: the model does not have that class, or has no second one.
    """
    logits = logits_of(problem.model, problem.images)
    classes = logits.shape[1]
    if isinstance(toward, int):
        if toward >= classes:
            raise InvalidInput(
                "toward", f"class {toward} is out of range", f"the model has 0..{classes - 1}"
            )
        return torch.full_like(problem.predictions, toward)
    if classes < 2:
        raise InvalidInput("toward", "the model has one class, so there is no other to go to")
    own = problem.predictions.unsqueeze(1)
    if toward == "runner_up":
        return logits.scatter(1, own, -torch.inf).argmax(1)
    return logits.scatter(1, own, torch.inf).argmin(1)


def pull(problem: Problem, images: Tensor, wanted: Tensor) -> Tensor:
    """∂ log p_t/∂x ``[B,C,H,W]``, minus the gradient of the cross entropy: one gradient pass."""

    def run(part: Tensor, classes: Tensor, _: slice) -> Tensor:
        return input_gradient(problem.model, part, classes, score="logprob")

    return each_micro_batch(images, wanted, run)
