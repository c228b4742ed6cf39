"""Evolution strategies: a search that asks for nothing but the values of images."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.budget import Budget
from robustlab.core.randomness import normal
from robustlab.core.types import Problem

# a candidate's latent [B,C,g,g] -> its marks [B,2], −∞ where it may not be chosen
Marks = Callable[[Tensor], Tensor]


class Evolving(Protocol):
    """Settings: what `attacks.explanation.black_box.BlackBox` says of them."""

    @property
    def queries(self) -> int: ...
    @property
    def population(self) -> int: ...
    @property
    def sigma(self) -> float: ...
    @property
    def rate(self) -> float: ...
    @property
    def grid(self) -> int: ...


def evolve(
    settings: Evolving, problem: Problem, budget: Budget, marks: Marks, purpose: str
) -> None:
    """Show ``marks`` all candidates, generation by generation, the mean climbing on."""
    mean = _latent(settings, problem)
    for number, size in enumerate(_generations(settings)):
        steps = steps_of(settings, problem, number, size, purpose)
        found = torch.stack([marks(mean + step) for step in steps])
        mean = _inside(mean + settings.rate * direction(found, steps), budget)
        lost = torch.isinf(found[..., 0]).all(0)  # from here no rank points back
        mean = torch.where(lost.view(-1, 1, 1, 1), mean / 2, mean)


def candidate(latent: Tensor, problem: Problem, budget: Budget, around: Tensor) -> Tensor:
    """Π(around + ε·U(z)): every pixel gets the value of its cell."""
    change = F.interpolate(_inside(latent, budget), around.shape[-2:], mode="nearest")
    if budget.norm == "l2":
        change = change / change[0].numel() ** 0.5
    return budget.project(around + budget.epsilon * change, problem.images)


def steps_of(
    settings: Evolving, problem: Problem, generation: int, size: int, purpose: str
) -> Tensor:
    """Antithetic pairs, and the mean itself where the size is odd: ``[size,B,C,g,g]``."""
    like = _latent(settings, problem)
    draws = [
        settings.sigma * normal(like, problem.ids, problem.seed, f"{purpose}/{generation}/{pair}")
        for pair in range(size // 2)
    ]
    both = [step for draw in draws for step in (draw, -draw)]
    return torch.stack([*both, *([like] if size % 2 else [])])


def direction(marks: Tensor, steps: Tensor) -> Tensor:
    """Σ_j u_j n_j per image, scaled to a root mean square of 1; 0 where all are alike.

    u are centred ranks in [−½, ½] over the generation, by the first of the ``marks``
    ``[size,B,2]`` and among its equals by the second; those equal in both share their rank.
    """
    first, second = marks.unbind(2)
    beats = (first.unsqueeze(1) > first) | (
        (first.unsqueeze(1) == first) & (second.unsqueeze(1) > second)
    )
    ranks = (beats.sum(1) - beats.sum(0)).to(steps) / (2 * max(1, len(marks) - 1))
    total = (ranks.view(*ranks.shape, 1, 1, 1) * steps).sum(0)
    scale = total.square().mean((1, 2, 3), keepdim=True).sqrt()
    return torch.where(scale > 0, total / scale.clamp(min=1e-30), 0.0)


def _generations(settings: Evolving) -> Iterator[int]:
    """Sizes that use up the queries."""
    left = settings.queries
    while left:
        yield min(left, settings.population)
        left -= min(left, settings.population)


def _latent(settings: Evolving, problem: Problem) -> Tensor:
    count, channels, height, width = problem.images.shape
    cells = min(settings.grid, height), min(settings.grid, width)
    return torch.zeros(count, channels, *cells).to(problem.images)


def _inside(latent: Tensor, budget: Budget) -> Tensor:
    """The latent brought back to where the budget binds: beyond, nothing more would change."""
    if budget.norm == "linf":
        return latent.clamp(-1, 1)
    return latent / latent.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1)
