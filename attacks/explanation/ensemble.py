"""Several explainers attacked at once: one image that moves all of their maps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import slope
from attacks.explanation.goals import FLAT_AT_START, Aimed
from attacks.explanation.selection import BestOfAll, Seen
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import check_local
from robustlab.core.maps import to_maps
from robustlab.core.randomness import uniform
from robustlab.core.types import Attack, Explainer, Problem, Resolvable
from robustlab.explainers.members import Given, read_member, rebuilt, stored


@dataclass(frozen=True, kw_only=True)
class Ensemble(Aimed):
    """Ensemble target: x ← Π(x + α·steepest(Σ_e ∇L_e / ‖∇L_e‖₁)) over the explainers e ``of``.

    L_e is the loss of ``goal`` on the map of explainer e; each slope is scaled to the same
    length, so that no explainer speaks louder. Kept is the iterate with the best mean of the
    goal's metric among those that keep the prediction. It needs no explainer of its own:
    whatever an experiment measures shows how far the others moved with those it aimed at.
    Members are written as for `aggregate`: names, or ``{name: smooth_grad, samples: 8}``.

    Cost: per step and image the steps of the single attacks together. The aggregate of the
    same explainers is another target: its map can move while every member's top stays.

    Raises:
        InvalidInput: fewer than two members, or one that is unknown, makes images, or has no
            gradient.
    """

    of: tuple[Given, ...] = ("gradient", "grad_cam", "lrp")
    steps: int = 20
    step_size: float | None = None
    probe: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.of) < 2:
            raise InvalidInput("of", f"needs at least two explainers, got {len(self.of)}")
        climb = self.climb(steps=self.steps, step_size=self.step_size, probe=self.probe)
        members = []
        for given in self.of:
            name, explainer = read_member(given)
            check_local(explainer)
            if climb.gradient_path(explainer) == "impossible":
                raise InvalidInput(
                    "of", f"{name} has no gradient to follow", "black_box attacks any explainer"
                )
            members.append(stored(name, explainer))
        object.__setattr__(self, "of", tuple(members))

    @property
    def needs_explainer(self) -> bool:
        return False

    @property
    def members(self) -> tuple[Explainer, ...]:
        """The explainers that it attacks."""
        return tuple(rebuilt(member) for member in self.of)  # type: ignore[arg-type]

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps, like=self)

    def selection(self, problem: Problem) -> BestOfAll:
        """The best by the mean of the goal's metric over the members."""
        problems = self._problems(problem)
        return BestOfAll(problems, [self.objective(p) for p in problems])

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "ensemble")
        if budget.epsilon == 0:
            return problem.images.clone()
        best, handed, budget = self.selection(problem), budget.finished, budget.free
        alpha = self.step_size or 2.5 * budget.epsilon / self.steps
        images = self._start(problem, budget)
        for step in range(self.steps):
            seen = best.consider(handed(images, problem.images))
            gradient = self._slope(best, seen, images, budget, step)
            images = budget.project(images + alpha * budget.steepest(gradient), problem.images)
        best.consider(handed(images, problem.images))
        return best.images

    def _slope(
        self, best: BestOfAll, found: Sequence[Seen], images: Tensor, budget: Budget, step: int
    ) -> Tensor:
        """Σ of the members' slopes, each of the same length."""
        climb = self.climb(steps=self.steps, step_size=self.step_size, probe=self.probe)
        total = torch.zeros_like(images)
        for part, seen in zip(best.parts, found, strict=True):
            gradient = slope(part.problem, images, seen.raw, part.objective, climb, budget, step)
            length = gradient.abs().mean((1, 2, 3), keepdim=True)
            total = total + torch.where(length > 0, gradient / length.clamp(min=1e-30), 0.0)
        return total

    def _start(self, problem: Problem, budget: Budget) -> Tensor:
        if self.goal not in FLAT_AT_START:
            return problem.images.clone()
        noise = uniform(problem.images, problem.ids, problem.seed, "ensemble/start")
        return budget.project(problem.images + budget.epsilon * noise, problem.images)

    def _problems(self, problem: Problem) -> Sequence[Problem]:
        return [problem_of(problem, settled(member, problem)) for member in self.members]


def settled(explainer: Explainer, problem: Problem) -> Explainer:
    """The explainer with its automatic choices made for the problem's model."""
    if isinstance(explainer, Resolvable):
        return explainer.resolved(problem.model, problem.images)
    return explainer


def problem_of(problem: Problem, explainer: Explainer) -> Problem:
    """The same images and classes, explained by another explainer: one explanation."""
    raw = explainer.explain(problem.model, problem.images, problem.targets, ids=problem.ids)
    height, width = problem.images.shape[-2:]
    maps = to_maps(raw.detach(), explainer.post, (height, width))
    return replace(problem, explainer=explainer, raw=raw.detach(), maps=maps)
