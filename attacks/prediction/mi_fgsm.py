"""The momentum iterative method."""

from dataclasses import dataclass

from torch import Tensor

from attacks.control import RandomSign
from attacks.norms import BALLS, check_norm
from attacks.prediction.through_foolbox import Against, import_foolbox, run_foolbox
from attacks.toward import Toward, check_toward
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """Momentum iterative FGSM: g ← μ·g + u, x ← Π(x + α·sign(g)); the last iterate.

    u is the sign of ∂CE/∂x (l2: the unit gradient, and so is the step), μ = ``momentum``;
    0 makes it the basic iterative method. ``step_size`` α in pixel units, by default ε/steps
    as in the paper. ``toward``: lower the cross entropy of that class, instead of raising
    that of ``against``. Cost: ``steps`` gradient passes. Source: Dong et al. 2018; foolbox's
    L{inf,2}MomentumIterativeFastGradientMethod. Deviation, foolbox's: the paper adds up
    gradients divided by their L1 norm, where signs weigh every pixel alike.
    """

    steps: int = 10
    step_size: float | None = None
    momentum: float = 1.0
    against: Against = "prediction"
    toward: Toward | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
        if self.step_size is not None and not self.step_size > 0:
            raise InvalidInput("step_size", f"must be above 0, got {self.step_size}")
        if not self.momentum >= 0:
            raise InvalidInput("momentum", f"must be at least 0, got {self.momentum}")
        check_finite("step_size", self.step_size)
        check_finite("momentum", self.momentum)
        check_toward(self.toward)

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "mi_fgsm")
        attacks = import_foolbox().attacks
        base = {
            "linf": attacks.LinfMomentumIterativeFastGradientMethod,
            "l2": attacks.L2MomentumIterativeFastGradientMethod,
        }[budget.norm]
        step = self.step_size if self.step_size is not None else budget.epsilon / self.steps
        return run_foolbox(
            lambda _: base(abs_stepsize=step, steps=self.steps, momentum=self.momentum),
            problem,
            budget,
            self.against,
            self.toward,
        )

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()
