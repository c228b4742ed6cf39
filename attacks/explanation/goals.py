"""What an attack wants of a map, by name: for attacks that are told the goal by an option."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from attacks.explanation.fragility import MassCenter, TargetRegion, TopK
from attacks.explanation.map_distance import MapDistance
from attacks.explanation.objectives import Objective
from attacks.explanation.target_map import TargetMap
from robustlab.core.errors import InvalidInput
from robustlab.core.types import Problem

Goal = Literal[
    "top_k", "mass_center", "target_region", "target_map", "cosine", "pearson", "sensitivity"
]

Climb = TopK | MassCenter | TargetRegion | TargetMap | MapDistance

# goals whose slope is zero at the clean image, so that a climb has to start elsewhere
FLAT_AT_START: Final = ("mass_center", "cosine", "pearson", "sensitivity")


@dataclass(frozen=True, kw_only=True)
class Aimed:
    """An attack that is told by ``goal`` what to do to a map.

    Attributes:
        goal: as the gradient attack of that name, or the ``measure`` of `map_distance`.
        k: for top_k. box: for target_region.
    """

    goal: Goal = "top_k"
    k: int = 1000
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidInput("k", f"must be at least 1, got {self.k}")
        TargetRegion(box=self.box)  # refuses a box outside the image

    @property
    def needs_explainer(self) -> bool:
        return True

    def objective(self, problem: Problem) -> Objective:
        """What the map is to do, as the gradient attack of the same name says it."""
        return self.climb().objective(problem)

    def climb(self, **settings: Any) -> Climb:
        """The gradient attack with this goal and these settings of `Ascent`."""
        match self.goal:
            case "top_k":
                return TopK(k=self.k, **settings)
            case "mass_center":
                return MassCenter(**settings)
            case "target_region":
                return TargetRegion(box=self.box, **settings)
            case "target_map":
                return TargetMap(**settings)
            case measure:
                return MapDistance(measure=measure, **settings)
