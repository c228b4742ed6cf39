"""How long the next step is: all alike, or as Auto-PGD finds out for each image."""

from typing import Protocol

import torch
from torch import Tensor

from robustlab.core.budget import Budget
from robustlab.core.types import Problem


class Kept(Protocol):
    """The best images so far, and their values ``[B]``."""

    images: Tensor
    values: Tensor


class Constant:
    """Every step has the same length."""

    def __init__(self, alpha: float) -> None:
        self.length: float | Tensor = alpha

    def after(self, step: int, images: Tensor, values: Tensor, best: Kept) -> Tensor:
        """Where to go on: here."""
        return images


class Adaptive:
    """Starts at 2ε and halves per image where steps have stopped to pay. Croce & Hein 2020.

    At checkpoints w_0 = 0, w_1 = 0.22·N, w_{j+1} = w_j + max(w_j − w_{j−1} − 0.03·N, 0.06·N) an
    image's step is halved, and it goes on from its best iterate so far, if fewer than 3/4 of
    the steps since the last checkpoint were improvements, or if neither the step nor the best
    value has changed since then. ``values`` are those of the true metric, and −∞ where the
    prediction is lost. Deviations: no momentum; ``first`` may be another first step, in ε.
    """

    def __init__(self, problem: Problem, budget: Budget, steps: int, first: float = 2.0) -> None:
        count, length = len(problem.images), first * budget.epsilon
        self.length: float | Tensor = problem.images.new_full((count, 1, 1, 1), length)
        self._checks = _checkpoints(steps)
        self._last_check = 0
        self._before = torch.full((count,), torch.inf, dtype=torch.float64)
        self._improved = torch.zeros(count)
        self._halved = torch.ones(count, dtype=torch.bool)
        self._best_then = torch.full((count,), -torch.inf, dtype=torch.float64)

    def after(self, step: int, images: Tensor, values: Tensor, best: Kept) -> Tensor:
        """Note what step number ``step`` led to; where to go on from."""
        values = values.double().cpu()
        self._improved += values > self._before
        self._before = values
        if step not in self._checks:
            return images
        slow = self._improved < 0.75 * (step - self._last_check)
        stuck = ~self._halved & (best.values.double().cpu() <= self._best_then)
        halve = slow | stuck
        self._last_check, self._best_then = step, best.values.double().cpu()
        self._halved, self._improved = halve, torch.zeros_like(self._improved)
        where = halve.to(images.device).view(-1, 1, 1, 1)
        self.length = torch.where(where, self.length / 2, self.length)
        return torch.where(where, best.images, images)


def _checkpoints(steps: int) -> set[int]:
    """Auto-PGD's: further apart in the beginning than at the end."""
    shares, places = [0.0, 0.22], {max(1, round(0.22 * steps))}
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        places.add(max(1, round(shares[-1] * steps)))
    return {place for place in places if place < steps}
