"""One way to run any of foolbox's attacks: in micro-batches, on a model that stays as it was."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks.toward import Toward, classes_toward
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import micro_batch, run_model
from robustlab.core.types import Problem
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Wrapper

Against = Literal["prediction", "label"]
TARGETED = "pgd, mi_fgsm and carlini_wagner can be led to a class"


class _FastLayout(Wrapper):
    def forward(self, images: Tensor) -> Tensor:
        return run_model(self.inner, images)


def run_foolbox(
    make: Callable[[slice], Any],
    problem: Problem,
    budget: Budget,
    against: Against,
    toward: Toward | None = None,
) -> Tensor:
    """What foolbox's attack finds at this ε, every image as if it were alone.

    ``make(where)`` is the attack for those images. The criterion is to leave the class of
    ``against``, or to reach ``toward``.
    """
    foolbox = import_foolbox()
    if budget.epsilon == 0:
        return problem.images.clone()
    targeted = toward is not None
    classes = _left(problem, against) if toward is None else classes_toward(problem, toward)
    kind = foolbox.criteria.TargetedMisclassification if targeted else foolbox.Misclassification
    model: nn.Module = _FastLayout(problem.model)
    size = micro_batch(problem.images)
    parts = []
    with frozen(problem.model), torch.enable_grad():
        for start in range(0, len(problem.images), size):
            where = slice(start, min(start + size, len(problem.images)))
            part = problem.images[where].detach()
            wrapped = foolbox.PyTorchModel(
                model, bounds=(budget.lower, budget.upper), device=part.device
            )
            found = make(where)(wrapped, part, kind(classes[where]), epsilons=budget.epsilon)
            parts.append(found[1].detach())
    return budget.finished(torch.cat(parts), problem.images)


def refuse_target(toward: Toward | None, attack: str) -> None:
    """For attacks that can only leave a class.

    Raises:
        InvalidInput: naming those that can reach one.
    """
    if toward is not None:
        raise InvalidInput("toward", f"{attack} only leaves a class", TARGETED)


def import_foolbox() -> Any:
    """Imported late, because `import foolbox` wants a git program on the machine."""
    import os

    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import foolbox

    return foolbox


def _left(problem: Problem, against: Against) -> Tensor:
    labels = problem.predictions if against == "prediction" else problem.labels
    if bool((labels < 0).any()):
        raise InvalidInput("against", "'label' was asked for but some images have none",
                           "use against: prediction")  # fmt: skip
    return labels
