"""Attacks on the prediction, through foolbox: they do not look at the explanation at all."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks.control import RandomSign
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import uniform
from robustlab.core.streaming import micro_batch, run_model
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Wrapper

Against = Literal["prediction", "label"]


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """Fast gradient sign: x + ε·sign(∂CE/∂x), clipped to the box (l2: the unit gradient).

    ``against`` says whose class is left: the clean *prediction* (works without labels, and
    any change is the attack's doing) or the true *label* (adversarial accuracy). Cost: one
    gradient pass. Source: Goodfellow et al. 2015; foolbox's LinfFastGradientAttack.
    """

    against: Against = "prediction"

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        import foolbox.attacks

        kind = {"linf": "LinfFastGradientAttack", "l2": "L2FastGradientAttack"}[budget.norm]
        return _run_foolbox(
            lambda _: getattr(foolbox.attacks, kind)(random_start=False),
            problem,
            budget,
            self.against,
        )

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent on the cross entropy; returns the last iterate.

    ``step_size`` in pixel units, by default 2.5·ε/steps. ``random_start`` draws the start
    uniformly in the ball (linf), per image. Cost: ``steps`` gradient passes.
    Source: Madry et al. 2018; foolbox's LinfPGD and L2PGD.
    """

    steps: int = 10
    step_size: float | None = None
    random_start: bool = False
    against: Against = "prediction"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
        if self.step_size is not None and not self.step_size > 0:
            raise InvalidInput("step_size", f"must be above 0, got {self.step_size}")
        check_finite("step_size", self.step_size)

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        import eagerpy
        import foolbox.attacks

        base = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[budget.norm]
        step = self.step_size if self.step_size is not None else 2.5 * budget.epsilon / self.steps

        def make(where: slice) -> Any:
            attack = base(abs_stepsize=step, steps=self.steps, random_start=self.random_start)
            if self.random_start:
                # foolbox would draw from the global generator, one draw for the whole batch
                part = problem.images[where]
                noise = uniform(part, problem.ids[where], problem.seed, "pgd/start")
                start = budget.project(part + budget.epsilon * noise, part)
                began = eagerpy.astensor(start)  # type: ignore[attr-defined]
                setattr(attack, "get_random_start", lambda *_, began=began: began)  # noqa: B010
            return attack

        return _run_foolbox(make, problem, budget, self.against)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()


class _FastLayout(Wrapper):
    def forward(self, images: Tensor) -> Tensor:
        return run_model(self.inner, images)


def _run_foolbox(make: Any, problem: Problem, budget: Budget, against: Against) -> Tensor:
    """One foolbox attack, in micro-batches, with the model's parameters left alone."""
    foolbox = _import_foolbox()
    if budget.epsilon == 0:
        return problem.images.clone()
    labels = problem.predictions if against == "prediction" else problem.labels
    if bool((labels < 0).any()):
        raise InvalidInput("against", "'label' was asked for but some images have none",
                           "use against: prediction")  # fmt: skip
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
            parts.append(make(where)(wrapped, part, labels[where], epsilons=budget.epsilon)[1])
    return torch.cat(parts).detach()


def _import_foolbox() -> Any:
    """Imported late, because `import foolbox` wants a git program on the machine."""
    import os

    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import foolbox

    return foolbox
