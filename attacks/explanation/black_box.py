"""Evolution strategies on a map: attacks any explainer, since it asks for nothing but maps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.control import RandomSign, Selective
from attacks.explanation.fragility import MassCenter, TargetRegion, TopK
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from attacks.explanation.target_map import TargetMap
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
from robustlab.core.randomness import normal
from robustlab.core.types import Attack, Explainer, Problem

Goal = Literal["top_k", "mass_center", "target_region", "target_map"]


@dataclass(frozen=True, kw_only=True)
class BlackBox:
    """Natural evolution strategies: x' = Π(x + ε·U(z)), z drawn from N(μ, σ²), μ climbing.

    The ``goal`` is that of the gradient attack of the same name (``k`` and ``box`` are its
    options): its loss ranks the candidates of a generation, those that lose the prediction
    last, its metric selects the best feasible one of all. With u_j the centred ranks of m
    antithetic draws μ ± σ·n_j, μ moves by ``rate`` in the direction of Σ_j u_j n_j, scaled
    to a root mean square of 1; with an odd m one candidate is μ itself. z has ``grid`` cells
    a side and channel, at most one per pixel, and U enlarges it bilinearly: few unknowns make
    few queries count. ‖·‖∞: z is clipped to [−1, 1]; ‖·‖₂: U(z) is divided by √d.

    Cost: ``queries`` forward passes and as many explanations per image, no gradient at all.
    Source: Tamam, Lapid & Sipper 2023, Foiling explanations in deep neural networks (AttaXAI).
    Deviations: an ε-ball and the box, in which every candidate is projected before it is
    judged; ranks instead of standardised losses; fixed σ; a low-resolution search; the best
    feasible candidate is kept.
    """

    goal: Goal = "top_k"
    k: int = 1000
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.5, 0.5)
    queries: int = 200
    population: int = 20
    sigma: float = 0.5
    rate: float = 0.3
    grid: int = 16

    def __post_init__(self) -> None:
        for field, least in (("queries", 1), ("population", 2), ("grid", 1), ("k", 1)):
            value = getattr(self, field)
            if value < least:
                raise InvalidInput(field, f"must be at least {least}, got {value}")
        for field in ("sigma", "rate"):
            if not getattr(self, field) > 0:
                raise InvalidInput(field, f"must be above 0, got {getattr(self, field)}")
        TargetRegion(box=self.box)  # refuses a box outside the image

    @property
    def needs_explainer(self) -> bool:
        return True

    def gradient_path(self, explainer: Explainer) -> str:
        return "black_box"

    def control(self) -> Attack | None:
        return RandomSign(tries=self.queries, like=self)

    def objective(self, problem: Problem) -> Objective:
        """What the map is to do, as the gradient attack of the same name says it."""
        goals: dict[str, Selective] = {
            "top_k": TopK(k=self.k),
            "mass_center": MassCenter(),
            "target_region": TargetRegion(box=self.box),
            "target_map": TargetMap(),
        }
        return goals[self.goal].objective(problem)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        if budget.epsilon == 0:
            return problem.images.clone()
        objective = self.objective(problem)
        best = Best(problem, objective)
        mean = self._latent(problem)
        for number, size in enumerate(self._generations()):
            steps = self._steps(problem, number, size)
            fitness = torch.stack(
                [self._fitness(problem, budget, best, objective, mean + step) for step in steps]
            )
            mean = mean + self.rate * _direction(fitness, steps)
            if budget.norm == "linf":
                mean = mean.clamp(-1, 1)
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

    def _fitness(
        self, problem: Problem, budget: Budget, best: Best, objective: Objective, latent: Tensor
    ) -> Tensor:
        """The goal's loss ``[B]`` of one candidate per image; −∞ where the prediction is lost."""
        images = self._candidate(problem, budget, latent)
        seen = best.consider(images)
        height, width = images.shape[-2:]
        maps = to_maps(seen.raw, problem.explainer.post, (height, width))
        loss = objective.loss(maps, slice(0, len(images))).double()
        return torch.where(seen.kept, loss, -torch.inf)

    def _candidate(self, problem: Problem, budget: Budget, latent: Tensor) -> Tensor:
        images = problem.images
        if budget.norm == "linf":
            latent = latent.clamp(-1, 1)
        size = images.shape[-2:]
        change = F.interpolate(latent, size, mode="bilinear", align_corners=False)
        if budget.norm == "l2":
            change = change / change[0].numel() ** 0.5
        return budget.project(images + budget.epsilon * change, images)


def _direction(fitness: Tensor, steps: Tensor) -> Tensor:
    """Σ_j u_j n_j per image, scaled to a root mean square of 1; 0 where all are alike.

    u are centred ranks in [−½, ½] over the generation; equals share their rank.
    """
    below = (fitness.unsqueeze(1) > fitness.unsqueeze(0)).sum(1)
    above = (fitness.unsqueeze(1) < fitness.unsqueeze(0)).sum(1)
    ranks = (below - above).to(steps) / (2 * max(1, len(fitness) - 1))
    total = (ranks.view(*ranks.shape, 1, 1, 1) * steps).sum(0)
    scale = total.square().mean((1, 2, 3), keepdim=True).sqrt()
    return torch.where(scale > 0, total / scale.clamp(min=1e-30), 0.0)
