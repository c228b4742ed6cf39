"""How far does the explanation move for what has changed of the image, or within the model?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.layers import representation
from robustlab.core.streaming import logits_of, micro_batch, run_model
from robustlab.core.types import Climb, Explainer, Passes, Problem, Rows
from robustlab.metrics.change import Ratio, distance, exact, length, relative
from robustlab.metrics.nearby import Nearby, clean_of, passes, shown_by, worst
from robustlab.metrics.sensitivity import check_floor

# (images, which of the problem's they are) -> how far what is divided by has moved [n], logits
Look = Callable[[Tensor, Rows], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class _Relative(Nearby):
    """The options of the three, and what they cost; each says what it divides by.

    Attributes:
        floor: what denominators count as at least, as a share of one at distance ``radius``.
        eps_min: instead of that, this number; and zeros count as it.
    """

    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    floor: float = 0.01
    eps_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floor(self.floor)
        if self.eps_min is not None and not self.eps_min > 0:
            raise InvalidInput("eps_min", f"must be above 0, got {self.eps_min}", "leave it out")

    def cost(self, explainer: Explainer) -> Passes:
        return passes(self, explainer, forwards=1)


@dataclass(frozen=True, kw_only=True)
class RelativeInputStability(_Relative):
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

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        classes = logits_of(model, images).argmax(1) if len(images) else problem.targets
        every = exact(images)
        farthest = relative(images, every + self.radius)

        def look(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            return relative(images[rows], near, self.eps_min), logits_of(model, near)

        return _largest(self, problem, climb, look, classes, farthest)


@dataclass(frozen=True, kw_only=True)
class RelativeOutputStability(_Relative):
    """Largest relative change of the explanation per change of the logits.

    ``max ‖(e' − e)/e‖₂ / ‖f(x') − f(x)‖₂`` with f the logits of all classes; everything else as
    for `ris`. The denominator counts as at least ``floor`` · r · ‖f(x)‖₂, or with ``eps_min`` as
    that: there are directions in which the logits stay where they are and the map does not, so
    that without it no search would find an end.

    Maps, ties, constant and all-zero maps, chance, cost: as for `ris`; one float64 number
    ``[B]``. Source: Agarwal et al. 2022.
    """

    name: ClassVar[str] = "ros"

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        clean = logits_of(model, images) if len(images) else images.flatten(1)

        def look(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            logits = run_model(model, near)
            return distance(clean[rows], logits), logits

        return _largest(self, problem, climb, look, clean.argmax(1), self.radius * length(clean))


@dataclass(frozen=True, kw_only=True)
class RelativeRepresentationStability(_Relative):
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
    layer: str | None = None

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        model, images = problem.model, problem.images.detach()
        inside, classes = self._inside(model, images) if len(images) else (images.flatten(1),) * 2
        used = exact(inside != 0).sum(1)

        def look(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            now, logits = representation(model, near, self.layer)
            return relative(inside[rows], now, self.eps_min), logits

        return _largest(self, problem, climb, look, classes, self.radius * used.sqrt())

    def _inside(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """L(x) ``[B,D]`` and the predicted class of the images, in micro-batches."""
        with torch.no_grad():
            parts = [
                representation(model, p, self.layer) for p in images.split(micro_batch(images))
            ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]).argmax(1)


def _largest(
    around: _Relative,
    problem: Problem,
    climb: Climb,
    look: Look,
    classes: Tensor,
    farthest: Tensor,
) -> Tensor:
    """``max ‖(e' − e)/e‖₂`` over what ``look`` finds, where the predicted class stays.

    ``classes`` ``[B]`` are those predictions; ``farthest`` ``[B]`` is the denominator at
    distance ``radius``, of which ``floor`` is a share.
    """
    zero, clean = around.eps_min, clean_of(around, problem)
    least = around.floor * farthest if zero is None else torch.full_like(farthest, zero)

    def above(clean: Tensor, now: Tensor) -> Tensor:
        return relative(clean, now, zero)

    def below(near: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        far, logits = look(near, rows)
        counts = logits.argmax(1) == classes[rows]
        return torch.maximum(far, least[rows]), counts.to(far.device)

    change = Ratio(clean, lambda raw: shown_by(around, problem, raw), above, below)
    return worst(around, problem, change, climb)
