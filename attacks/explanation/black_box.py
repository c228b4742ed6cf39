"""Evolution strategies on a map: attacks any explainer, since it asks for nothing but maps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.evolution import candidate, evolve
from attacks.explanation.goals import Aimed
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
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

        def marks(latent: Tensor) -> Tensor:
            return self._marks(problem, budget, best, objective, latent)

        evolve(self, problem, budget, marks, "black_box")
        return best.images

    def _marks(
        self, problem: Problem, budget: Budget, best: Best, objective: Objective, latent: Tensor
    ) -> Tensor:
        """Metric and loss ``[B,2]`` of one candidate per image; −∞ where the prediction is lost."""
        images = candidate(latent, problem, budget, problem.images)
        seen = best.consider(images)
        height, width = images.shape[-2:]
        maps = to_maps(seen.raw, problem.explainer.post, (height, width))
        loss = objective.loss(maps, slice(0, len(images))).double()
        marks = torch.stack([objective.value(maps), loss], 1)
        return torch.where(seen.kept.unsqueeze(1), marks, -torch.inf)
