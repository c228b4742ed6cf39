"""Ghorbani, Abid & Zou 2019: "Interpretation of neural networks is fragile".

Keep the prediction, change the map: push the most important pixels out of the top k, move
the map's centre of mass, or gather the map in a region.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import Ascent, ascend
from attacks.explanation.objectives import (
    FillRegion,
    LeaveTop,
    LeaveTopByRank,
    MoveCenter,
    Objective,
    mass_center,
    top_k_mask,
)
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.regions import check_box, some_pixels_in
from robustlab.core.types import Attack, Problem


@dataclass(frozen=True, kw_only=True)
class TopK(Ascent):
    """Top-k attack: lower the share of the clean map's k largest pixels.

    Steps ascend D = −Σ_{i∈T} s_i; the kept iterate has the smallest intersection of its own
    top k with T (metric ``top_k_intersection``) among those that keep the prediction.

    Attributes:
        k: how many pixels count as the most important ones.
        select_by: *kendall* keeps the iterate with the smallest rank correlation with the clean
            map instead, as Chen et al. 2019 do: their k and that of the metric differ.
    """

    k: int = 1000
    select_by: Literal["top_k", "kendall"] = "top_k"

    def objective(self, problem: Problem) -> Objective:
        pixels = problem.maps[0].numel()
        if not 1 <= self.k <= pixels:
            raise InvalidInput("k", f"{self.k} is not within 1..{pixels}, the pixels of a map")
        top = top_k_mask(problem.maps, self.k)
        if self.select_by == "kendall":
            return LeaveTopByRank(top, self.k, problem.maps)
        return LeaveTop(top, self.k)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return ascend(problem, budget, self.objective(problem), self)

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps * self.restarts, like=self)


@dataclass(frozen=True, kw_only=True)
class MassCenter(Ascent):
    """Mass-centre attack: move the map's centre of mass.

    Steps ascend ‖C(x') − C(x)‖², whose gradient is exactly zero at x' = x: the start is
    random by default (the authors' code escapes only because it truncates centres to whole
    pixels).
    """

    random_start: bool = True

    def objective(self, problem: Problem) -> Objective:
        return MoveCenter(mass_center(problem.maps))

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return ascend(problem, budget, self.objective(problem), self)

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps * self.restarts, like=self)


@dataclass(frozen=True, kw_only=True)
class TargetRegion(Ascent):
    """Targeted region: gather the map's mass in ``box``.

    ``box`` = (x0, y0, x1, y1) as shares of width and height; by default the upper left
    quarter. Every pixel whose centre lies inside belongs to it.
    """

    box: tuple[float, float, float, float] = (0.0, 0.0, 0.5, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_box(self.box)

    def objective(self, problem: Problem) -> Objective:
        maps = problem.maps
        inside = some_pixels_in(self.box, maps.shape[1], maps.shape[2], maps.device)
        return FillRegion(inside.to(maps.dtype))

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return ascend(problem, budget, self.objective(problem), self)

    def control(self) -> Attack | None:
        return RandomSign(tries=self.steps * self.restarts, like=self)
