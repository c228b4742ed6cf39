"""Projected gradient descent, the basic iterative method included."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attacks.control import RandomSign
from attacks.norms import BALLS, check_norm
from attacks.prediction.through_foolbox import Against, import_foolbox, run_foolbox
from attacks.toward import Toward, check_toward
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import uniform
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent on the cross entropy; returns the last iterate.

    Without ``random_start`` (the default) it is the basic iterative method, I-FGSM, of
    Kurakin et al. 2017. ``step_size`` in pixel units, by default 2.5·ε/steps.
    ``random_start`` draws the start uniformly in the ball (linf), per image. ``toward``: lower
    the cross entropy of that class, instead of raising that of ``against``. Cost: ``steps``
    gradient passes. Source: Madry et al. 2018; foolbox's LinfPGD and L2PGD.
    """

    steps: int = 10
    step_size: float | None = None
    random_start: bool = False
    against: Against = "prediction"
    toward: Toward | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
        if self.step_size is not None and not self.step_size > 0:
            raise InvalidInput("step_size", f"must be above 0, got {self.step_size}")
        check_finite("step_size", self.step_size)
        check_toward(self.toward)

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "pgd")
        attacks = import_foolbox().attacks
        base = attacks.LinfPGD if budget.norm == "linf" else attacks.L2PGD
        step = self.step_size if self.step_size is not None else 2.5 * budget.epsilon / self.steps

        def make(where: slice) -> Any:
            import eagerpy

            attack = base(abs_stepsize=step, steps=self.steps, random_start=self.random_start)
            if self.random_start:
                # foolbox would draw from the global generator, one draw for the whole batch
                part = problem.images[where]
                noise = uniform(part, problem.ids[where], problem.seed, "pgd/start")
                start = budget.free.project(part + budget.epsilon * noise, part)
                began = eagerpy.astensor(start)  # type: ignore[attr-defined]
                setattr(attack, "get_random_start", lambda *_, began=began: began)  # noqa: B010
            return attack

        return run_foolbox(make, problem, budget, self.against, self.toward)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()
