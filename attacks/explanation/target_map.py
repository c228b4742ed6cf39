"""Dombrowski et al. 2019: "Explanations can be manipulated and geometry is to blame"."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import Ascent, ascend
from attacks.explanation.objectives import Imitate, Objective, Resemble
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.types import Attack, Problem


@dataclass(frozen=True, kw_only=True)
class TargetMap(Ascent):
    """Make the map of one image look like a chosen map, while picture and output stay.

    Ascends −‖ĝ(x') − t̂‖²/‖t̂‖² − output_weight·‖p(x') − p(x)‖², maps scaled to sum 1, with
    Adam, and on the double-backward path with β growing geometrically from 10 to 100;
    ``likeness`` = pearson ascends the correlation with t instead of the first term.
    The target t is the problem's own ``target_maps``; without them the clean map, for its
    own class, of the *next* image of the batch (the last one takes the first). In an
    experiment it is that of the next image of the experiment, whatever the batches are.

    Deviations from the paper: the error is relative, so that weights are O(1); there is an
    ε-ball, where the paper limits the change by step size and count alone; the best feasible
    iterate is kept, where the paper keeps the last; the explained class stays the clean one
    also in the final evaluation.
    """

    steps: int = 100
    optimiser: Literal["sign", "adam"] = "adam"
    output_weight: float = 1.0
    likeness: Literal["mse", "pearson"] = "mse"

    def objective(self, problem: Problem) -> Objective:
        target = self.target(problem)
        return Imitate(target) if self.likeness == "mse" else Resemble(target)

    def target(self, problem: Problem) -> Tensor:
        """The maps ``[B,H,W]`` to imitate, by the problem's explainer."""
        if problem.target_maps is not None:
            return problem.target_maps.to(problem.maps)
        if len(problem.ids) < 2:
            raise InvalidInput(
                "target_maps",
                "a single image has no next one to imitate",
                "take two images or more, or give target_maps",
            )
        return problem.maps.roll(-1, 0)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return ascend(problem, budget, self.objective(problem), self)

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps * self.restarts, like=self)
