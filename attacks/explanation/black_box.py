"""Evolution strategies on a map: attacks any explainer, since it asks for nothing but maps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.control import RandomSign
from attacks.explanation.goals import Aimed
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
from robustlab.core.randomness import normal
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class BlackBox(Aimed):
    """Natural evolution strategies: x' = Π(x + ε·U(z)), z drawn from N(μ, σ²), μ climbing.

    The ``goal`` is that of the gradient attack of the same name (``k`` and ``box`` are its
    options): its metric ranks the candidates of a generation, its loss those that the metric
    holds equal, and those that lose the prediction come last; the best feasible one of all is
    kept. With u_j the centred ranks of m antithetic draws μ ± σ·n_j, μ moves by ``rate`` in
    the direction of Σ_j u_j n_j, scaled to a root mean square of 1; with an odd m one
    candidate is μ itself. Where a whole generation loses the prediction, μ goes half the way
    back. z has ``grid`` cells a side and channel, at most one per pixel, and U gives every
    pixel the value of its cell: few unknowns make few queries count, and unlike a smooth
    enlargement it reaches the corners of the ball. ‖·‖∞: z and μ are clipped to [−1, 1];
    ‖·‖₂: their root mean square is at most 1, and U(z) is divided by √d.

    Cost: ``queries`` forward passes and as many explanations per image, no gradient at all.
    Source: Tamam, Lapid & Sipper 2023, Foiling explanations in deep neural networks (AttaXAI).
    Deviations: an ε-ball and the box, in which every candidate is projected before it is
    judged; ranks of the metric instead of standardised losses; a prediction that must be kept
    instead of a penalty on the output; fixed σ; a low-resolution search; the best feasible
    candidate is kept.
    """

    queries: int = 200
    population: int = 10
    sigma: float = 0.7
    rate: float = 0.3
    grid: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("queries", 1), ("population", 2), ("grid", 1)):
            value = getattr(self, field)
            if value < least:
                raise InvalidInput(field, f"must be at least {least}, got {value}")
        for field in ("sigma", "rate"):
            if not getattr(self, field) > 0:
                raise InvalidInput(field, f"must be above 0, got {getattr(self, field)}")

    def gradient_path(self, explainer: Explainer) -> str:
        return "black_box"

    def control(self) -> Attack | None:
        return RandomSign(tries=self.queries, like=self)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "black_box")
        if budget.epsilon == 0:
            return problem.images.clone()
        objective = self.objective(problem)
        best = Best(problem, objective)
        mean = self._latent(problem)
        for number, size in enumerate(self._generations()):
            steps = self._steps(problem, number, size)
            marks = torch.stack(
                [self._marks(problem, budget, best, objective, mean + step) for step in steps]
            )
            mean = _inside(mean + self.rate * _direction(marks, steps), budget)
            lost = torch.isinf(marks[..., 0]).all(0)  # from here no rank points back
            mean = torch.where(lost.view(-1, 1, 1, 1), mean / 2, mean)
        return best.images

    def _generations(self) -> Iterator[int]:
        """Sizes that use up the queries."""
        left = self.queries
        while left:
            yield min(left, self.population)
            left -= min(left, self.population)

    def _latent(self, problem: Problem) -> Tensor:
        count, channels, height, width = problem.images.shape
        cells = min(self.grid, height), min(self.grid, width)
        return torch.zeros(count, channels, *cells).to(problem.images)

    def _steps(self, problem: Problem, generation: int, size: int) -> Tensor:
        """Antithetic pairs, and the mean itself where the size is odd: ``[size,B,C,g,g]``."""
        like = self._latent(problem)
        draws = [
            self.sigma * normal(like, problem.ids, problem.seed, f"black_box/{generation}/{pair}")
            for pair in range(size // 2)
        ]
        both = [step for draw in draws for step in (draw, -draw)]
        return torch.stack([*both, *([like] if size % 2 else [])])

    def _marks(
        self, problem: Problem, budget: Budget, best: Best, objective: Objective, latent: Tensor
    ) -> Tensor:
        """Metric and loss ``[B,2]`` of one candidate per image; −∞ where the prediction is lost."""
        images = self._candidate(problem, budget, latent)
        seen = best.consider(images)
        height, width = images.shape[-2:]
        maps = to_maps(seen.raw, problem.explainer.post, (height, width))
        loss = objective.loss(maps, slice(0, len(images))).double()
        marks = torch.stack([objective.value(maps), loss], 1)
        return torch.where(seen.kept.unsqueeze(1), marks, -torch.inf)

    def _candidate(self, problem: Problem, budget: Budget, latent: Tensor) -> Tensor:
        images = problem.images
        change = F.interpolate(_inside(latent, budget), images.shape[-2:], mode="nearest")
        if budget.norm == "l2":
            change = change / change[0].numel() ** 0.5
        return budget.project(images + budget.epsilon * change, images)


def _inside(latent: Tensor, budget: Budget) -> Tensor:
    """The latent brought back to where the budget binds: beyond, nothing more would change."""
    if budget.norm == "linf":
        return latent.clamp(-1, 1)
    return latent / latent.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1)


def _direction(marks: Tensor, steps: Tensor) -> Tensor:
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
