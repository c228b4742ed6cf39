"""DeepFool: to the nearest boundary of a linearised model."""

from dataclasses import dataclass

from torch import Tensor

from attacks.control import RandomSign
from attacks.norms import BALLS, check_norm
from attacks.prediction.through_foolbox import Against, import_foolbox, refuse_target, run_foolbox
from attacks.toward import Toward
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """DeepFool: steps to the nearest boundary of the model linearised at the iterate.

    With f the logits, c the clean prediction, k among the ``candidates`` likeliest classes
    (None: all) and q = 1 for linf (‖·‖₁), q = 2 for l2, the class with the smallest
    |f_k − f_c| / ‖∇(f_k − f_c)‖_q is approached by that distance; the sum of all steps is
    stretched by ``overshoot``. An image stops where its prediction has left the class of
    ``against``, after ``steps`` at the latest. The result is then cut to the ball: where the
    boundary lies beyond ε, the prediction stays. There is no targeted form in foolbox, so
    ``toward`` must stay None. Cost: up to ``steps``·(candidates − 1) gradient passes.
    Source: Moosavi-Dezfooli et al. 2016; foolbox's LinfDeepFoolAttack and L2DeepFoolAttack,
    where each step is 1e-4 longer than the formula.
    """

    steps: int = 50
    candidates: int | None = 10
    overshoot: float = 0.02
    against: Against = "prediction"
    toward: Toward | None = None

    def __post_init__(self) -> None:
        refuse_target(self.toward, "deep_fool")
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
        if self.candidates is not None and self.candidates < 2:
            raise InvalidInput("candidates", f"must be at least 2, got {self.candidates}")
        if not self.overshoot >= 0:
            raise InvalidInput("overshoot", f"must be at least 0, got {self.overshoot}")
        check_finite("overshoot", self.overshoot)

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "deep_fool")
        attacks = import_foolbox().attacks
        base = attacks.LinfDeepFoolAttack if budget.norm == "linf" else attacks.L2DeepFoolAttack
        # its loop stops when all images are done, but leaves alone those that are: no coupling
        return run_foolbox(
            lambda _: base(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot),
            problem,
            budget,
            self.against,
        )

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()
