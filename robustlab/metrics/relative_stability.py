"""How far does the explanation move for what has changed of the image, or within the model?"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.layers import representation
from robustlab.core.streaming import logits_of, micro_batch, run_model
from robustlab.core.types import Climb, Explainer, Passes, Problem, Rows
from robustlab.metrics.change import Below, Ratio, distance, exact, length, relative
from robustlab.metrics.nearby import Nearby, clean_of, passes, shown_by, worst
from robustlab.metrics.sensitivity import check_floor


@dataclass(frozen=True, kw_only=True)
class RelativeInputStability(Nearby):
    """Largest relative change of the explanation per relative change of the image.

    ``max ‖(e' − e)/e‖₂ / ‖(x' − x)/x‖₂`` over ‖x' − x‖∞ ≤ r in the pixel box, divisions number
    by number, e the explanation (``compare``: the map, or the raw attribution), its class held
    fixed. Only x' for which the model predicts the same class as for x count; x itself, at
    which nothing has changed, always does, as 0. Copies and searches: see `max_sensitivity`.

    Where e or x is 0 nothing is relative to it: such places are left out above and below. The
    denominator counts as at least ``floor`` times its value for an x' at which every pixel has
    changed by r, so that a search cannot win by moving only black pixels, or by rounding. With
    ``eps_min`` it is as the paper and Quantus have it: zeros count as that, and so do smaller
    denominators (1e-6 there, which makes black pixels of MNIST all that counts). Quantus also
    draws its noise from one side, [0.02, 0.2], and has no number for an image of which any one
    copy is predicted otherwise.

    One float64 number ``[B]`` per image, at least 0, blind to the scale of e; 0 if e is all
    zero. Ties and constant maps are nothing special; places where e is nearly 0 rule it, which
    is how it is defined. Chance: none, a number about an explainer. Cost: ``samples``
    explanations and a forward pass each; searches as for `max_sensitivity`.

    Source: Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik & Lakkaraju 2022, Rethinking
    stability for attribution-based explanations.
    """

    name: ClassVar[str] = "ris"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    floor: float = 0.01
    eps_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.floor, self.eps_min)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        classes = logits_of(model, images).argmax(1) if len(images) else problem.targets
        every = exact(images)
        farthest = relative(images, every + self.radius)
        least = _least(self.floor, farthest, self.eps_min)

        def below(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            far = relative(images[rows], near, self.eps_min)
            counts = logits_of(model, near).argmax(1) == classes[rows]
            return torch.maximum(far, least[rows]), counts.to(far.device)

        return worst(self, problem, _ratio(self, problem, below, self.eps_min), climb)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer, forwards=1)


@dataclass(frozen=True, kw_only=True)
class RelativeOutputStability(Nearby):
    """Largest relative change of the explanation per change of the logits.

    ``max ‖(e' − e)/e‖₂ / ‖f(x') − f(x)‖₂`` with f the logits of all classes; everything else as
    for `ris`. The denominator counts as at least ``floor`` · r · ‖f(x)‖₂, or with ``eps_min`` as
    that: there are directions in which the logits stay where they are and the map does not, so
    that without it no search would find an end.

    Maps, ties, constant and all-zero maps, chance, cost: as for `ris`; one float64 number
    ``[B]``. Source: Agarwal et al. 2022.
    """

    name: ClassVar[str] = "ros"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    floor: float = 0.01
    eps_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.floor, self.eps_min)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        clean = logits_of(model, images) if len(images) else images.flatten(1)
        least = _least(self.floor, self.radius * length(clean), self.eps_min)

        def below(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            logits = run_model(model, near)
            far = distance(clean[rows], logits)
            counts = logits.argmax(1) == clean[rows].argmax(1)
            return torch.maximum(far, least[rows]), counts.to(far.device)

        return worst(self, problem, _ratio(self, problem, below, self.eps_min), climb)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer, forwards=1)


@dataclass(frozen=True, kw_only=True)
class RelativeRepresentationStability(Nearby):
    """Largest relative change of the explanation per relative change inside the model.

    ``max ‖(e' − e)/e‖₂ / ‖(L(x') − L(x))/L(x)‖₂`` with L(x) the penultimate layer, what goes into
    the last dense layer or convolution, or the output of module ``layer``; everything else as
    for `ris`. Numbers of L(x) that are 0 (a ReLU that is off) are left out. The denominator
    counts as at least ``floor`` · r · √n for n others, or with ``eps_min`` as that.

    Maps, ties, constant and all-zero maps, chance, cost: as for `ris`; one float64 number
    ``[B]``. Source: Agarwal et al. 2022.

    Raises:
        InvalidInput: no such layer, or a model without a dense layer or convolution.
    """

    name: ClassVar[str] = "rrs"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    layer: str | None = None
    floor: float = 0.01
    eps_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.floor, self.eps_min)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        inside, classes = self._inside(model, images) if len(images) else (images.flatten(1),) * 2
        used = exact(inside != 0).sum(1)
        least = _least(self.floor, self.radius * used.sqrt(), self.eps_min)

        def below(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            now, logits = representation(model, near, self.layer)
            far = relative(inside[rows], now, self.eps_min)
            counts = logits.argmax(1) == classes[rows]
            return torch.maximum(far, least[rows]), counts.to(far.device)

        return worst(self, problem, _ratio(self, problem, below, self.eps_min), climb)

    def _inside(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """L(x) ``[B,D]`` and the predicted class of the images, in micro-batches."""
        with torch.no_grad():
            parts = [
                representation(model, p, self.layer) for p in images.split(micro_batch(images))
            ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]).argmax(1)

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer, forwards=1)


def _ratio(around: Nearby, problem: Problem, below: Below, zero: float | None) -> Ratio:
    def above(clean: Tensor, now: Tensor) -> Tensor:
        return relative(clean, now, zero)

    clean = clean_of(around, problem)
    return Ratio(clean, lambda raw: shown_by(around, problem, raw), above, below)


def _least(floor: float, farthest: Tensor, eps_min: float | None) -> Tensor:
    """What denominators count as at least, ``[B]``."""
    return floor * farthest if eps_min is None else torch.full_like(farthest, eps_min)


def _check(floor: float, eps_min: float | None) -> None:
    check_floor(floor)
    if eps_min is not None and not eps_min > 0:
        raise InvalidInput("eps_min", f"must be above 0, got {eps_min}", "leave it out")
