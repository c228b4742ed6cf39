"""The floors that every attack must beat: nothing, noise, and random signs at equal budget."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best, Selection
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal, signs, uniform
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class NoAttack:
    """Returns the clean image bit for bit: what re-explaining alone changes."""

    idle: ClassVar[bool] = True  # staying is its purpose; for any other attack it is a failure

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return problem.images.clone()

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """Noise inside the ball: uniform on [−ε, ε] per pixel (linf), a random direction of
    length ε (l2). One draw per image.
    """

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "random_noise")
        if budget.norm == "linf":
            noise = uniform(problem.images, problem.ids, problem.seed, "random_noise")
            return budget.project(problem.images + budget.epsilon * noise, problem.images)
        noise = normal(problem.images, problem.ids, problem.seed, "random_noise")
        step = budget.epsilon * budget.steepest(noise)
        return budget.project(problem.images + step, problem.images)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


@runtime_checkable
class Selective(Attack, Protocol):
    """An attack with an objective, whose selection a fair control has to share."""

    def objective(self, problem: Problem) -> Objective: ...


@runtime_checkable
class Selecting(Attack, Protocol):
    """An attack with a selection of its own."""

    def selection(self, problem: Problem) -> Selection: ...


@dataclass(frozen=True, kw_only=True)
class RandomSign:
    """Random signs: every pixel moves by ±ε (linf), or by ±ε/√d (l2).

    With ``tries`` = 1 and no ``like``, one draw per image, whatever it does to the
    prediction. With ``like``, the best of ``tries`` independent draws by that attack's own
    objective among those that keep the prediction: the control of equal budget, tries and
    selection. Deviation: Ghorbani's code redraws the signs of small steps, a random walk
    that stays well inside the ball; full-length draws are the stronger control.

    Cost: with ``like``, one forward pass and one explanation per try.
    """

    tries: int = 1
    like: Selective | Selecting | None = None

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise InvalidInput("tries", f"must be at least 1, got {self.tries}")
        if self.tries > 1 and self.like is None:
            raise InvalidInput("tries", "several tries need an attack to select like")

    @property
    def needs_explainer(self) -> bool:
        return self.like is not None and self.like.needs_explainer

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "random_sign")
        if self.like is None:
            return self._draw(problem, budget, 0)
        like = self.like
        best: Selection = (
            like.selection(problem)
            if isinstance(like, Selecting)
            else Best(problem, like.objective(problem))
        )
        for number in range(self.tries):
            best.consider(self._draw(problem, budget, number))
        return best.images

    def _draw(self, problem: Problem, budget: Budget, number: int) -> Tensor:
        noise = signs(problem.images, problem.ids, problem.seed, f"random_sign/{number}")
        size = budget.epsilon
        if budget.norm == "l2":
            size /= float(torch.tensor(noise[0].numel()).sqrt())
        return budget.project(problem.images + size * noise, problem.images)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None
