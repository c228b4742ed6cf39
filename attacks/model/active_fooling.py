"""Heo, Joo & Moon 2019: "Fooling neural network interpretations via adversarial model
manipulation". The active kind: the explanations of two classes change places.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor, nn

from attacks.explanation.objectives import Imitate
from attacks.model.fine_tuning import FineTuning, Lesson
from robustlab.core.batch import Batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.streaming import micro_batch
from robustlab.core.types import Explainer, Problem
from robustlab.metrics.agreement import Pearson

SWAPPED: Final = (0.5, 2.0)
"""The published interval: a `swap_score` within it is a success."""


@dataclass(frozen=True, kw_only=True)
class ActiveFooling(FineTuning):
    """Active fooling: the maps of the classes ``first`` and ``second`` change places.

    Descends CE + λ·mean ½(d(h'_first, h_second) + d(h'_second, h_first)), with h' and h the
    maps of one image in the network in training and in the true model, and
    d(h', h) = ‖ĥ' − ĥ‖²/‖ĥ‖², a hat for a map that is scaled to Σ|·| = H·W.

    Success is judged by `swap_score`. A perfect exchange scores 1 − r where the two maps of
    the true model correlate with r: classes with like reasons (r above 1/2) are exchanged
    without being counted.

    Deviations from the paper: it swaps on images that show both objects. ``swap_on`` *pair*
    takes the training images that the true model gives one of the two classes; *all* takes
    every image. Both have the cross entropy of every image beside them. A batch without such
    an image has a map term of 0. d is relative, where the paper takes the mean square of maps
    in [0, 1]; maps are those a user sees, in the size of the picture.

    Raises:
        InvalidInput: twice the same class, a class that the model does not have, or no image
            of either class to train on.
    """

    first: int = 0
    second: int = 1
    swap_on: Literal["pair", "all"] = "pair"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "second"):
            if getattr(self, name) < 0:
                raise InvalidInput(name, f"must not be negative, got {getattr(self, name)}")
        if self.first == self.second:
            raise InvalidInput("second", f"is class {self.first} like first", "name another class")
        if self.swap_on not in ("pair", "all"):
            raise InvalidInput("swap_on", f"{self.swap_on!r} is not known", "pair or all")

    def prepare(self, model: nn.Module, lesson: Lesson) -> Lesson:
        """The true model's maps of both classes, for the images that they are swapped on."""
        for name in ("first", "second"):
            _check_class(name, getattr(self, name), lesson.probabilities.shape[1])
        rows = self._swapped(lesson.targets).nonzero().flatten()
        if not len(rows):
            raise InvalidInput(
                "swap_on",
                f"the model gives no training image class {self.first} or {self.second}",
                "take more images, other classes, or swap_on: all",
            )
        if self.weight == 0:
            return lesson
        ids = [lesson.batch.ids[i] for i in rows.tolist()]
        others = {}
        for chosen in (self.first, self.second):
            maps = torch.zeros_like(lesson.maps)
            images = lesson.batch.images[rows]
            maps[rows] = maps_of(model, lesson.explainer, images, chosen, ids)
            others[chosen] = maps
        return replace(lesson, others=others)

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        task = lesson.task(net, rows)
        if self.weight == 0:
            return {"task": task}
        rows = rows[self._swapped(lesson.targets[rows])]
        if not len(rows):
            return {"task": task, "map": torch.zeros_like(task)}
        gap = torch.zeros_like(task)
        for shown, wanted in ((self.first, self.second), (self.second, self.first)):
            found = lesson.explained_for(torch.full_like(rows, shown), net, rows)
            gap = gap - Imitate(lesson.others[wanted][rows]).loss(found, slice(None)).mean() / 2
        return {"task": task, "map": self.weight * gap}

    def target(self, problem: Problem) -> Tensor:
        """The true model's map of the other class; its own where neither class is explained.

        Pearson's r to this target less that to the original map is `swap_score`.
        """
        classes = problem.targets
        wanted = torch.where(classes == self.first, self.second, classes)
        wanted = torch.where(classes == self.second, self.first, wanted)
        return explain_maps(problem.model, problem.explainer, problem.images, wanted, problem.ids)

    def _swapped(self, targets: Tensor) -> Tensor:
        """Which images with these classes have their maps swapped."""
        if self.swap_on == "all":
            return torch.ones_like(targets, dtype=torch.bool)
        return (targets == self.first) | (targets == self.second)


def swap_score(own: Tensor, other: Tensor, found: Tensor) -> Tensor:
    """t = r(h'_c, h_c') − r(h'_c, h_c), ``[B]`` in [-2, 2], with r Pearson's correlation.

    The paper calls an image fooled where t lies in [0.5, 2]. It says "rank correlation"; its
    code takes Pearson's r, of maps rounded to −1, 0 and 1. Here r is that of the maps as
    they are. A perfect exchange has t = 1 − r(h_c, h_c'), no change at all −1 + r(h_c, h_c').

    Args:
        own: the true model's maps ``[B,H,W]`` of a class c.
        other: its maps of the class c' that c changes places with.
        found: the manipulated model's maps of c.
    """
    pearson = Pearson()
    return pearson(other, found) - pearson(own, found)


def swap_scores(
    model: nn.Module, fooled: nn.Module, explainer: Explainer, batch: Batch, first: int, second: int
) -> Tensor:
    """`swap_score` of every image ``[2,B]``: first for the class ``first``, then ``second``."""
    own, other = (maps_of(model, explainer, batch.images, c, batch.ids) for c in (first, second))
    one, two = (maps_of(fooled, explainer, batch.images, c, batch.ids) for c in (first, second))
    return torch.stack([swap_score(own, other, one), swap_score(other, own, two)])


def is_swapped(scores: Tensor) -> Tensor:
    """Which scores lie in the published interval."""
    low, high = SWAPPED
    return (low <= scores) & (scores <= high)


def maps_of(
    model: nn.Module,
    explainer: Explainer,
    images: Tensor,
    chosen: int,
    ids: tuple[str, ...] | list[str],
) -> Tensor:
    """The judge's maps ``[B,H,W]`` of one class, in parts that fit into memory."""
    size = micro_batch(images)
    targets = torch.full((len(images),), chosen, device=images.device)
    parts = [slice(i, i + size) for i in range(0, len(images), size)]
    return torch.cat([explain_maps(model, explainer, images[s], targets[s], ids[s]) for s in parts])


def _check_class(name: str, chosen: int, classes: int) -> None:
    if chosen >= classes:
        raise InvalidInput(
            name, f"class {chosen} is out of range", f"the model has classes 0..{classes - 1}"
        )
