"""How far does the map move among images nearby? By sampling, or searched."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Climb, Explainer, Passes, Problem, Rows
from robustlab.metrics.change import Ratio, distance, moved
from robustlab.metrics.nearby import Nearby, clean_of, passes, sampled, shown_by, worst


@dataclass(frozen=True, kw_only=True)
class MaxSensitivity(Nearby):
    """Largest change of the explanation within a radius, in lengths of the explanation itself.

    ``max ‖Φ(x') − Φ(x)‖₂ / ‖Φ(x)‖₂`` over ‖x' − x‖∞ ≤ r in the pixel box, with the explained
    class held fixed. ``samples`` copies x' = x + n, n uniform on [−r, r] per pixel and
    channel, give a lower bound; with ``search`` the best copy is where a search starts, so
    that the number is never smaller on any image, and still a lower bound.

    ``compare: map`` takes for Φ the map ``[B,H,W]`` that is shown, *raw* the attribution as it
    is, signs and channels kept, as the paper and other libraries do. One float64 number ``[B]`` per
    image, at least 0, blind to a scaling of Φ. Ties and constant maps are nothing special; of
    an all-zero Φ(x) it is 0 if no Φ(x') is anything else, otherwise 1. Explainers that draw
    random numbers draw the same ones for x and x'. Chance: none, a number about an explainer.

    Cost: ``samples`` explanations, and with a search three more per step (*gradient*), or
    eight (*evolution*). Memory: that of one micro-batch of copies.

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019, On the (in)fidelity and sensitivity
    of explanations (NeurIPS), normalised as in their code. They draw 50 copies with r = 0.2 on
    MNIST and let them leave the pixel box (``clip: false``); captum draws 10 with r = 0.02.

    Raises:
        InvalidInput: an attribution with NaN; *gradient* for an explainer without one.
    """

    name: ClassVar[str] = "max_sensitivity"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        return worst(self, problem, change_of(self, problem), climb)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer)


@dataclass(frozen=True, kw_only=True)
class AvgSensitivity(Nearby):
    """Mean change of the explanation within a radius, in lengths of the explanation itself.

    The mean of ‖Φ(x') − Φ(x)‖₂ / ‖Φ(x)‖₂ over the ``samples`` copies of `max_sensitivity`;
    with one seed they are the same copies, so that it is never above that. There is no
    ``search``: a mean over what a search has looked at says where the search has been, and
    nothing about the surroundings of the image.

    One float64 number ``[B]`` per image, at least 0. ``compare``, ties, constant and all-zero
    maps, chance, cost: as for `max_sensitivity`. Source: Bhatt, Weller & Moura 2020,
    Evaluating and aggregating feature-based model explanations (IJCAI).
    """

    name: ClassVar[str] = "avg_sensitivity"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search != "none":
            raise InvalidInput(
                "search",
                "a mean over what a search looks at says where the search has been",
                "leave it out, or take max_sensitivity",
            )

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        return sampled(self, problem, change_of(self, problem)).mean(0)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer)


@dataclass(frozen=True, kw_only=True)
class LocalLipschitz(Nearby):
    """Largest change of the explanation per change of the image, within a radius.

    ``max ‖Φ(x') − Φ(x)‖₂ / ‖x' − x‖₂`` over the same images as `max_sensitivity`, distances in
    pixel units. The denominator counts as at least ``floor`` · r·√d, with d the pixels times
    channels: a share of the longest distance in the ball. Without it the gradient of a ReLU
    network, which jumps, would have no bound, and a search would win by rounding errors next
    to x. Copies are on average r·√(d/3) away and never feel it. Not blind to the scale of Φ:
    compare one explainer with itself, on other images or models, or normalised maps.

    One float64 number ``[B]`` per image, at least 0; 0 for a constant Φ, all-zero included.
    ``compare``, ties, chance and cost are as for `max_sensitivity`.

    Source: Alvarez-Melis & Jaakkola 2018, On the robustness of interpretability methods (ICML
    workshop), who search with Gaussian processes. Quantus draws Gaussian copies and normalises
    maps by their maximum first (``post`` of the explainer does that here).
    """

    name: ClassVar[str] = "local_lipschitz"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    floor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floor(self.floor)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        images = problem.images.detach()
        least = self.floor * self.radius * math.sqrt(images[0].numel()) if len(images) else 0.0

        def below(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            far = distance(images[rows], near)
            return far.clamp(min=least), torch.ones_like(far, dtype=torch.bool)

        change = Ratio(
            clean_of(self, problem), lambda raw: shown_by(self, problem, raw), distance, below
        )
        return worst(self, problem, change, climb)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer)


def change_of(around: Nearby, problem: Problem) -> Ratio:
    """‖Φ' − Φ‖₂ / ‖Φ‖₂ with Φ of the problem's images."""
    return Ratio(clean_of(around, problem), lambda raw: shown_by(around, problem, raw), moved)


def check_floor(floor: float) -> None:
    """Refuse a floor that is none, or is above everything."""
    if not 0 < floor < 1:
        raise InvalidInput("floor", f"must be above 0 and below 1, got {floor}")
