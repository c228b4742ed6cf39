"""What speaks against believing an attack's number: facts about its search, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from attacks.explanation.ascent import slope
from attacks.explanation.goals import Climb
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from robustlab.core.budget import Budget
from robustlab.core.randomness import signs
from robustlab.core.streaming import logits_of
from robustlab.core.types import Explainer, HessianVector, Problem

NEARLY: Final = 0.9  # random sign does nine tenths of the damage
PARTED: Final = 0.1  # cosine of two gradients that say nothing of each other
HALF: Final = 0.5

ZERO = "zero second derivative: no gradient path has a slope"
RANDOM = "randomised explainer: with other draws the map moves without any attack"
TUNED = "tuned to the explainer's draws: with others less than half of the damage is left"
SATURATED = "saturated step: at most pixels every slope is exactly zero"
FLIPS = "prediction flips: a full step along any slope loses the prediction"
NOTHING = "nothing found: no proposal that keeps the prediction does more than the clean image"
PARTING = "gradient paths disagree: products and surrogate point different ways"
RANDOM_SIGN = "random sign is nearly as strong"


@dataclass(frozen=True, eq=False)
class Findings:
    """What a search of several members has found, all per image.

    Attributes:
        images, values: the strongest feasible images and their metric.
        start: the metric of the clean image.
        members: name → metric of its proposal, −∞ where that lost the prediction.
        strongest: which member it was.
    """

    images: Tensor
    values: Tensor
    start: Tensor
    members: Mapping[str, Tensor]
    strongest: tuple[str, ...]


class Climbing(Protocol):
    """What the diagnosis asks of the attack."""

    def objective(self, problem: Problem) -> Objective: ...

    def climb(self, **settings: Any) -> Climb: ...


def cautions_of(
    attack: Climbing, problem: Problem, budget: Budget, findings: Findings
) -> tuple[tuple[str, ...], ...]:
    """Short texts for each image; the constants of this module are all there are."""
    gained = findings.values - findings.start
    by_sign = findings.members["random sign"] - findings.start
    tests = {
        NOTHING: gained <= 0,
        RANDOM_SIGN: (gained > 0) & (by_sign >= NEARLY * gained),
        **_slopes(attack, problem, budget),
        **_draws(attack, problem, findings),
    }
    return tuple(
        tuple(text for text, found in tests.items() if bool(found[i]))
        for i in range(len(problem.images))
    )


def _slopes(attack: Climbing, problem: Problem, budget: Budget) -> dict[str, Tensor]:
    """Where every path's slope is zero or flips the prediction, and where two disagree."""
    explainer = problem.explainer
    settings: dict[str, dict[str, Any]] = {}
    if isinstance(explainer, HessianVector):
        settings["products"] = {"path": "hessian_vector"}
    if explainer.differentiable != "none":
        settings["surrogate" if getattr(explainer, "surrogate_helps", True) else "true"] = {
            "path": "double_backward",
            "beta": (10.0, 100.0) if getattr(explainer, "surrogate_helps", True) else None,
        }
    if not settings:
        return {}
    objective = attack.objective(problem)
    # beside the image: some goals are flat where they start
    step = (
        0.1
        * budget.epsilon
        * budget.steepest(signs(problem.images, problem.ids, problem.seed, "diagnosis"))
    )
    images = budget.project(problem.images + step, problem.images)
    raw = Best(problem, objective).consider(images).raw
    found = [
        slope(problem, images, raw, objective, attack.climb(**each), budget, 0)
        for each in settings.values()
    ]
    largest = torch.stack([g.flatten(1).abs() for g in found]).amax(0)
    zero = largest.amax(1) == 0
    tests = {
        ZERO: zero,
        SATURATED: ~zero & ((largest == 0).double().mean(1) > HALF),
        FLIPS: ~zero & torch.stack([_lost(problem, budget, g) for g in found]).all(0),
    }
    if len(found) == 2:
        first, second = (g.flatten(1).double() for g in found)
        tests[PARTING] = torch.cosine_similarity(first, second, eps=1e-300) < PARTED
    return tests


def _lost(problem: Problem, budget: Budget, gradient: Tensor) -> Tensor:
    """Whose prediction is lost at the end of a step of length ε, ``[B]``."""
    step = budget.epsilon * budget.steepest(gradient)
    images = budget.project(problem.images + step, problem.images)
    return logits_of(problem.model, images).argmax(1) != problem.predictions


def _draws(attack: Climbing, problem: Problem, findings: Findings) -> dict[str, Tensor]:
    """What other draws of a randomised explainer make of the clean and of the found image."""
    other = reseeded(problem.explainer)
    if other is None:
        return {}
    objective = attack.objective(problem)
    unlike = replace(problem, explainer=other)
    moved = Best(unlike, objective)
    clean = moved.consider(problem.images).values - findings.start
    again = moved.consider(findings.images).values - findings.start
    gained = findings.values - findings.start
    return {
        RANDOM: clean > 0,
        TUNED: (gained > 0) & (again < HALF * gained),
    }


def reseeded(explainer: Explainer) -> Explainer | None:
    """The same explainer with other draws; None where it draws nothing."""
    seed = getattr(explainer, "seed", None)
    if not is_dataclass(explainer) or not isinstance(seed, int):
        return None
    return replace(explainer, seed=seed + 1)
