"""Move a map as far as it goes, wherever to: by cosine, correlation or relative length."""

from dataclasses import dataclass

from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import Ascent, ascend
from attacks.explanation.objectives import Measure, MoveAway, Objective
from robustlab.core.budget import Budget
from robustlab.core.types import Attack, Problem


@dataclass(frozen=True, kw_only=True)
class MapDistance(Ascent):
    """Move the whole map away from the clean one, by a distance of two maps.

    ``measure``: *cosine* or *pearson* (1 − similarity), or *sensitivity* ‖m' − m‖₂ / ‖m‖₂,
    the quantity whose largest value in a ball Yeh et al. 2019 call max-sensitivity and
    estimate by sampling; what this attack finds is a lower bound as well, and a higher one.

    All three are smallest at the clean image, where their slope is zero, so that the start
    is random by default.
    """

    measure: Measure = "cosine"
    random_start: bool = True

    def objective(self, problem: Problem) -> Objective:
        return MoveAway(problem.maps, self.measure)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return ascend(problem, budget, self.objective(problem), self)

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps * self.restarts, like=self)
