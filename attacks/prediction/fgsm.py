"""The fast gradient sign method."""

from dataclasses import dataclass

from torch import Tensor

from attacks.control import RandomSign
from attacks.norms import BALLS, check_norm
from attacks.prediction.through_foolbox import Against, import_foolbox, refuse_target, run_foolbox
from attacks.toward import Toward
from robustlab.core.budget import Budget
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """Fast gradient sign: x + ε·sign(∂CE/∂x), clipped to the box (l2: the unit gradient).

    ``against`` says whose class is left: the clean *prediction* (works without labels, and
    any change is the attack's doing) or the true *label* (adversarial accuracy). Foolbox has
    no targeted form, so ``toward`` must stay None. Cost: one gradient pass.
    Source: Goodfellow et al. 2015; foolbox's LinfFastGradientAttack.
    """

    against: Against = "prediction"
    toward: Toward | None = None

    def __post_init__(self) -> None:
        refuse_target(self.toward, "fgsm")

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "fgsm")
        attacks = import_foolbox().attacks
        linf = budget.norm == "linf"
        kind = attacks.LinfFastGradientAttack if linf else attacks.L2FastGradientAttack
        return run_foolbox(lambda _: kind(random_start=False), problem, budget, self.against)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()
