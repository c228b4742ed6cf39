"""What the metrics of images nearby share: how copies are drawn, explained and searched on."""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
from robustlab.core.randomness import uniform
from robustlab.core.streaming import copies, micro_batch
from robustlab.core.tables import check_choice
from robustlab.core.types import Change, Climb, Explainer, Passes, Problem, Search
from robustlab.metrics.change import check_finite, exact

Compare = Literal["map", "raw"]
Searching = Search | Literal["none"]

# what a step of a search looks at: the map and its slope, or a generation of candidates
EXPLANATIONS_PER_STEP: Final[dict[Searching, int]] = {"none": 0, "gradient": 3, "evolution": 8}


@dataclass(frozen=True, kw_only=True)
class Nearby:
    """Where a metric looks around an image, and at what.

    Attributes:
        radius: largest change of a pixel; noise is uniform on [−radius, radius].
        samples: copies of every image.
        search: *none*; or from the best copy on, *gradient* climbs where the explainer has
            one, and *evolution* needs nothing but maps.
        steps: of the search; a generation of eight candidates is one step of *evolution*.
        compare: *map*, what is shown, or *raw*, the attribution with its signs and channels.
        clip: copies stay in the pixel box [0, 1].
        seed: with the image's id, the only source of randomness.
    """

    radius: float = 0.02
    samples: int = 50
    search: Searching = "none"
    steps: int = 50
    compare: Compare = "map"
    clip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("search", self.search, ("none", *get_args(Search)))
        check_choice("compare", self.compare, get_args(Compare))
        for field in ("samples", "steps"):
            if getattr(self, field) < 1:
                raise InvalidInput(field, f"must be at least 1, got {getattr(self, field)}")
        if not 0 < self.radius <= 1:
            raise InvalidInput(
                "radius",
                f"must be above 0 and at most 1, got {self.radius}",
                "it is in pixel units of [0,1] images",
            )


def sampled(around: Nearby, problem: Problem, change: Change) -> Tensor:
    """The value of every copy, ``[samples,B]`` float64, in micro-batches; −∞ where none counts."""
    images = problem.images.detach()
    found = exact(images.new_empty(around.samples, len(images)))
    ball = ball_of(around, images)
    rows = torch.arange(len(images), device=images.device)

    def alter(part: Tensor, j: int, where: slice) -> Tensor:
        return _copy(around, ball, part, problem.ids[where], j)

    for js, where, stack in copies(images, around.samples, alter) if len(images) else ():
        own = rows[where].repeat(len(js))
        raw = problem.explainer.explain(
            problem.model, stack, problem.targets[own], ids=problem.ids[where] * len(js)
        ).detach()
        found[js.start : js.stop, where] = change.value(stack, raw, own).view(len(js), -1)
    return found


def worst(around: Nearby, problem: Problem, change: Change, climb: Climb) -> Tensor:
    """The largest value ``[B]`` of any copy, and with a search of what that finds from there on.

    The image itself, at which nothing has changed, counts as 0: there is always a value, and
    a searched one is never below the sampled one of the same seed.
    """
    values = sampled(around, problem, change)
    if not len(problem.images):
        return values.sum(0)
    most, best = values.max(0)
    most = most.clamp(min=0.0)
    if around.search == "none":
        return most
    images, ball = problem.images.detach(), ball_of(around, problem.images)
    start = torch.cat(
        [
            _copy(around, ball, images[i : i + 1], problem.ids[i : i + 1], int(j))
            if values[j, i] > 0
            else images[i : i + 1]
            for i, j in enumerate(best)
        ]
    )
    posed = replace(problem, images=images, seed=around.seed)
    found = climb(around.search, posed, change, start, ball, around.steps)
    return torch.maximum(most, looked_at(posed, change, found)[1])


def looked_at(problem: Problem, change: Change, images: Tensor) -> tuple[Tensor, Tensor]:
    """The raw attribution of one image in the place of each of the problem's, and the value."""
    raw = problem.explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
    raw, size = raw.detach(), micro_batch(images)
    slices = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    return raw, torch.cat([change.value(images[s], raw[s], s) for s in slices])


def ball_of(around: Nearby, images: Tensor) -> Budget:
    """All images within the radius. The box gives way to images that lie outside already."""
    if not around.clip:
        return Budget("linf", around.radius, lower=-math.inf, upper=math.inf)
    low, high = (float(images.min()), float(images.max())) if len(images) else (0.0, 1.0)
    return Budget("linf", around.radius, lower=min(0.0, low), upper=max(1.0, high))


def shown_by(around: Nearby, problem: Problem, raw: Tensor) -> Tensor:
    """What is compared of a raw attribution: the map, or the attribution itself."""
    if around.compare == "raw":
        return raw
    height, width = problem.images.shape[-2:]
    return to_maps(raw, problem.explainer.post, (height, width))


def clean_of(around: Nearby, problem: Problem) -> Tensor:
    """The same at the problem's own images; one explanation, unless it is known."""
    if around.compare == "map":
        found = problem.maps
    elif problem.raw is not None:
        found = problem.raw
    else:
        found = problem.explainer.explain(
            problem.model, problem.images, problem.targets, ids=problem.ids
        )
    check_finite(found)
    return exact(found.detach())


def passes(around: Nearby, explainer: Explainer, forwards: int = 0) -> Passes:
    """Of all explanations, with ``forwards`` more passes each."""
    one, count = explainer.cost(), around.samples
    count += around.steps * EXPLANATIONS_PER_STEP[around.search]
    return Passes(count * (one.forward + forwards) + forwards, count * one.backward)


def _copy(
    around: Nearby, ball: Budget, images: Tensor, ids: tuple[str, ...], number: int
) -> Tensor:
    """Copy ``number`` of the images. Metrics of one seed look at the same copies."""
    noise = uniform(images, ids, around.seed, f"nearby/{number}")
    return ball.project(images + around.radius * noise, images)
