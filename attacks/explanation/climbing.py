"""Searches that metrics are handed: the image nearby at which a `Change` is largest."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

import torch
from torch import Tensor

from attacks.explanation.ascent import Ascent, Gait, climb
from attacks.explanation.evolution import candidate, evolve
from attacks.explanation.gradients import by_double_backward_of, by_products_of
from attacks.explanation.pace import Adaptive
from attacks.explanation.selection import Seen
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import signs
from robustlab.core.types import Change, Explainer, Problem, Search
from robustlab.metrics.nearby import EXPLANATIONS_PER_STEP, looked_at

NUDGE: Final = 0.1
"""Share of the radius: at the image itself nothing has changed, and nothing has a slope."""


@dataclass(frozen=True, kw_only=True)
class _Leg:
    """A part of the way: its share of the steps, its first step and its probes in radii, and
    which way it goes for a gradient.
    """

    share: float
    first: float
    probe: float
    move: Callable[[Tensor], Tensor]


def _along(gradient: Tensor) -> Tensor:
    """The gradient itself, scaled to a root mean square of 1."""
    size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / torch.where(size > 0, size, 1.0)


LEGS: Final = (
    _Leg(share=0.5, first=2.0, probe=1.0, move=torch.sign),
    _Leg(share=0.25, first=0.1, probe=1.0, move=torch.sign),
    _Leg(share=0.25, first=0.1, probe=0.1, move=_along),
)
"""From corner to corner, which finds the longest way; then near by, for ratios that want a
small denominator; then along the slope, for ratios that do not mind the length."""


def climb_to(
    search: Search, problem: Problem, change: Change, start: Tensor, budget: Budget, steps: int
) -> Tensor:
    """The images within the budget at which the change is largest, as far as ``search`` sees.

    *gradient*: adaptive steps (`pace.Adaptive`) by ∂change/∂x, which has two parts, what the
    change sees of the image itself, and what it sees by the map. For the second, products with
    the explainer's Jacobian on the true model where it offers them, else double backward
    through the softplus surrogate. The steps are shared out among `LEGS`, each of which begins
    at the best image so far. *evolution*: `evolution.evolve` around ``start``, one generation a
    step. Either way images are valued on the true model, and the best one of all, ``start``
    included, is returned.

    Raises:
        InvalidInput: *gradient* for an explainer without one.
    """
    best = Highest(problem, change, start)
    if search == "evolution":
        _evolve(problem, best, start, budget, steps)
    else:
        _follow(problem, change, best, start, budget, steps)
    return best.images


def check_search(search: str, explainer: Explainer) -> None:
    """Refuse a search by a gradient that the explainer does not have.

    Raises:
        InvalidInput: naming it, and the search that asks for nothing but maps.
    """
    if search == "gradient" and Ascent().gradient_path(explainer) == "impossible":
        raise InvalidInput(
            "search", f"{type(explainer).__name__} has no gradient to climb", "search: evolution"
        )


class Highest:
    """The image of the highest value so far, for each of the problem's; begins with ``start``."""

    def __init__(self, problem: Problem, change: Change, start: Tensor) -> None:
        self.problem, self.change = problem, change
        self.images = start.clone()
        self.values = torch.full((len(start),), -torch.inf, dtype=torch.float64)

    def consider(self, images: Tensor) -> Seen:
        """Keep what is higher; returns what the next step can use."""
        raw, values = looked_at(self.problem, self.change, images)
        values = values.cpu()
        better = values > self.values
        self.values = torch.where(better, values, self.values)
        where = better.to(images.device).view(-1, 1, 1, 1)
        self.images = torch.where(where, images, self.images)
        return Seen(raw, values > -torch.inf, values)


def _follow(
    problem: Problem, change: Change, best: Highest, start: Tensor, budget: Budget, steps: int
) -> None:
    check_search("gradient", problem.explainer)
    images = _moved_off(problem, start, budget)
    left = steps
    for leg in LEGS:
        own = min(left, ceil(leg.share * steps))
        if own:
            _go(problem, change, best, images, budget, own, leg)
        images, left = best.images, left - own


def _go(
    problem: Problem,
    change: Change,
    best: Highest,
    images: Tensor,
    budget: Budget,
    steps: int,
    leg: _Leg,
) -> None:
    """One leg of so many steps; ``best`` sees every iterate."""
    settings, explainer = Ascent(steps=steps, schedule="adaptive"), problem.explainer
    products = settings.gradient_path(explainer) == "hessian_vector"

    def uphill(at: Tensor, raw: Tensor | None, step: int) -> Tensor:
        if products and raw is not None:
            return by_products_of(problem, at, raw, change.loss, leg.probe * budget.epsilon)
        beta = settings.beta_at(step, explainer)
        return by_double_backward_of(problem, at, change.loss, beta)

    gait = Gait(Adaptive(problem, budget, steps, leg.first), leg.move)
    climb(problem, budget, uphill, settings, best, images, gait)


def _moved_off(problem: Problem, start: Tensor, budget: Budget) -> Tensor:
    """The start, a little away from the image where it is the image itself."""
    noise = signs(start, problem.ids, problem.seed, "climb/start")
    nudged = budget.project(start + NUDGE * budget.epsilon * noise, problem.images)
    still = (start == problem.images).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(still, nudged, start)


@dataclass(frozen=True, kw_only=True)
class _Evolution:
    """Settings of the evolution: finer than those of the attack, whose start is worse."""

    queries: int
    population: int = EXPLANATIONS_PER_STEP["evolution"]
    sigma: float = 0.5
    rate: float = 0.3
    grid: int = 32


def _evolve(problem: Problem, best: Highest, start: Tensor, budget: Budget, steps: int) -> None:
    best.consider(start)

    def marks(latent: Tensor) -> Tensor:
        values = best.consider(candidate(latent, problem, budget, start)).values
        return torch.stack([values, values], 1)

    settings = _Evolution(queries=steps * EXPLANATIONS_PER_STEP["evolution"])
    evolve(settings, problem, budget, marks, "climb")
