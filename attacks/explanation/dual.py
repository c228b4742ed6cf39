"""Zhang et al. 2020, "Interpretable deep learning under fire" (ADV²): wrong label, old map."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import Ascent, Path
from attacks.explanation.objectives import Imitate
from attacks.explanation.selection import Best
from attacks.explanation.steering import check_path, map_gradient
from attacks.norms import BALLS, check_norm
from attacks.toward import Toward, check_toward, classes_toward, pull
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class Dual:
    """Change the prediction and leave the explanation looking as it did.

    Steps x ← Π(x + α·steepest(−∇CE(x, c_t) − λ·∇‖ĝ_t(x) − ĝ‖²/‖ĝ‖²)), with c_t the class of
    ``toward``, ĝ_t the map of c_t on the disturbed image and ĝ the clean map of the clean
    class, both scaled to Σ|·| = 1. The ``first_stage``, a share of the ``steps``, has λ = 0;
    then λ goes from the first to the last ``weight`` by ``schedule``. Among all iterates that
    the true model predicts as c_t the one with the smallest map error is kept; where there is
    none, the last iterate, and the judge reports a prediction that stayed.

    Read it the other way round: success is a changed prediction with little drift. Judge it
    with ``target: current``, so that the map of the new class is compared with the old map;
    any other target compares the map of a class that was left. ``step_size`` (by default
    2.5·ε/steps), ``path``, ``beta`` and ``probe`` are those of the attacks on maps alone.

    Cost per step: a gradient, a forward pass and an explanation; after the first stage also
    three explanations (hessian_vector) or a double backward (double_backward).
    Deviations from the paper: the map error is relative, so that λ is O(1) for any explainer
    and size; surrogates are softplus nets, where the authors bend the backward pass of ReLU
    for gradient maps; the best iterate is kept for every explainer.
    """

    keeps_maps: ClassVar[bool] = True  # it beats its control where the map stays more alike
    steps: int = 40
    step_size: float | None = None
    toward: Toward = "runner_up"
    first_stage: float = 0.25
    weight: tuple[float, float] = (1.0, 10.0)
    schedule: Literal["linear", "geometric"] = "geometric"
    path: Path = "auto"
    beta: float | tuple[float, float] | Literal["auto"] | None = "auto"
    probe: float = 1.0

    def __post_init__(self) -> None:
        self._along()  # refuses steps, paths and surrogates that cannot be
        check_toward(self.toward)
        if not 0 <= self.first_stage <= 1:
            raise InvalidInput("first_stage", f"must be within 0..1, got {self.first_stage}")
        if not all(weight >= 0 for weight in self.weight):
            raise InvalidInput("weight", f"must be at least 0, got {self.weight}")
        check_finite("weight", self.weight)
        if self.schedule == "geometric" and 0 in self.weight:
            raise InvalidInput(
                "weight", f"no geometric way leads through {self.weight}", "schedule: linear"
            )

    @property
    def needs_explainer(self) -> bool:
        return True

    def gradient_path(self, explainer: Explainer) -> str:
        return self._along().gradient_path(explainer)

    def control(self) -> Attack | None:
        return RandomSign()

    def weight_at(self, step: int) -> float:
        """λ of a step, counted from 0."""
        begin = round(self.first_stage * self.steps)
        if step < begin:
            return 0.0
        first, last = self.weight
        share = (step - begin) / max(1, self.steps - 1 - begin)
        if self.schedule == "linear":
            return first + (last - first) * share
        return float(first * (last / first) ** share)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "dual")
        check_path(self._along(), problem.explainer)
        if budget.epsilon == 0:
            return problem.images.clone()
        wanted = classes_toward(problem, self.toward)
        aimed = replace(problem, targets=wanted)
        best = Best(aimed, Imitate(problem.maps), budget=budget, wanted=wanted)
        alpha = self.step_size or 2.5 * budget.epsilon / self.steps
        images = problem.images.clone()
        for step in range(self.steps):
            gradient = self._gradient(aimed, images, budget, step)
            moved = images + alpha * budget.steepest(gradient)
            images = budget.free.project(moved, problem.images)
            best.consider(images)
        last = budget.finished(images, problem.images)
        return torch.where(best.found.view(-1, 1, 1, 1), best.images, last)

    def _gradient(self, aimed: Problem, images: Tensor, budget: Budget, step: int) -> Tensor:
        gradient, weight = pull(aimed, images, aimed.targets), self.weight_at(step)
        if not weight:
            return gradient
        return gradient + weight * map_gradient(
            aimed,
            images,
            Imitate(aimed.maps),
            self._along(),
            step=step,
            probe=self.probe * budget.epsilon,
        )

    def _along(self) -> Ascent:
        """The same settings for the part of the gradient that comes from the map."""
        return Ascent(
            steps=self.steps,
            step_size=self.step_size,
            path=self.path,
            beta=self.beta,
            probe=self.probe,
        )
