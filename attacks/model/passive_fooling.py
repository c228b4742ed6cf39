"""Heo, Joo & Moon 2019: "Fooling neural network interpretations via adversarial model
manipulation". The passive kind: maps that say nothing of the picture any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from attacks.model.fine_tuning import FineTuning, Lesson
from robustlab.metrics.fooling import Goal, brightness, center, distance


@dataclass(frozen=True, kw_only=True)
class LocationFooling(FineTuning):
    """Location fooling: every map becomes a frame at the border, whatever the picture shows.

    Descends CE + λ·mean (M − h)², with h the map's positive part over its largest value, M = 1
    on a frame of width ⌊min(H, W)/7⌋ and 0 inside.

    Deviations from the paper, in all three passive attacks: maps are those a user sees, in the
    size of the picture, where the paper takes the size of a layer (choose it with the
    explainer's own options); the explained class is the true model's prediction, where the
    paper takes the label; a map without a positive part counts as a constant one.
    """

    goal: ClassVar[Goal] = "location"

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        return passive_parts(self.goal, self.weight, net, lesson, rows)


@dataclass(frozen=True, kw_only=True)
class TopKFooling(FineTuning):
    """Top-k fooling: what the true model's map marks most is marked no more.

    Descends CE + λ·mean of h² over the tenth of the pixels that the true model's map ranks
    highest, with h the map's positive part over its largest value.
    """

    goal: ClassVar[Goal] = "top_k"

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        return passive_parts(self.goal, self.weight, net, lesson, rows)


@dataclass(frozen=True, kw_only=True)
class CenterMassFooling(FineTuning):
    """Centre-mass fooling: the centre of the map moves away from where the true model's lies.

    ``form`` *away*, the paper's: descends CE − λ·√((Δr² + Δc²)/2), the shift of the centre of
    mass of h as shares of the height and width less one, which the success rate judges (the
    paper's |Δr| + |Δc| lies within √2 of it, up to scale). Each image pulls its own way, and a
    translation-equivariant network may find none: on small_cnn Grad-CAM's centre stays.

    ``form`` *corner*, ours: descends CE + λ·mean (K − h)² with K = 1 on a block of a third of
    the height and width, in the corner that is farthest from the true model's centres.
    """

    form: Literal["away", "corner"] = "away"
    goal: ClassVar[Goal] = "center_mass"

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        if self.form == "away" or self.weight == 0:
            return passive_parts(self.goal, self.weight, net, lesson, rows)
        block = far_corner(lesson.maps)
        gap = (block - brightness(lesson.explained(net, rows))).square().mean()
        return {"task": lesson.task(net, rows), "map": self.weight * gap}


def far_corner(maps: Tensor) -> Tensor:
    """K ``[H,W]``: a block in the corner opposite to the mean centre of the maps."""
    height, width = maps.shape[1:]
    row, column = center(maps).mean(0).tolist()
    block = torch.zeros(height, width, dtype=maps.dtype, device=maps.device)
    rows = slice(height - height // 3, None) if row < 0.5 else slice(height // 3)
    columns = slice(width - width // 3, None) if column < 0.5 else slice(width // 3)
    block[rows, columns] = 1
    return block


def passive_parts(
    goal: Goal, weight: float, net: nn.Module, lesson: Lesson, rows: Tensor
) -> dict[str, Tensor]:
    """The task, and the distance from the goal at its price."""
    task = lesson.task(net, rows)
    if weight == 0:
        return {"task": task}
    away = distance(goal, lesson.maps[rows], lesson.explained(net, rows)).mean()
    return {"task": task, "map": weight * (-away if goal == "center_mass" else away)}
