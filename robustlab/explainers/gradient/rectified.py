"""Gradients with another rule at every ReLU: only what speaks for the class comes through."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Interposition, Phase, route
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import each_micro_batch, input_gradient
from robustlab.core.types import About, Differentiable, Passes

# what one ReLU returns, with its own way back while the phase is active
Rule = Callable[[Phase, Call], Tensor]
# ReLU, ReLU6 and their softplus stand-in; other activations keep their gradient
_RELUS: Final = ("relu", "relu6", "smooth_activation")


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop:
    """Guided backpropagation: at every ReLU, R_in = max(0, R_out) ⊙ φ'(z).

    φ is the activation as it runs (ReLU, ReLU6 or their softplus stand-in), so the usual
    mask 1[z > 0] is φ' for ReLU. Modules and functions alike; other activations keep their
    gradient. Raw shape ``[B,C,H,W]``. Cost: 1 forward and 1 backward pass.
    Source: Springenberg et al. 2015.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2015,
        source="Springenberg et al. 2015, Striving for simplicity",
        class_specific=False,
        needs="ReLU or ReLU6; elsewhere it is the gradient",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    score: Score = "logit"
    post: Post = "abs_sum"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return _ruled_gradient(_guided, model, images, targets, self.score, create_graph)

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class Deconvnet:
    """Deconvnet: at every ReLU, R_in = max(0, R_out), whatever the unit did on the way up.

    The same for ReLU6 and for the softplus stand-in of an attack; other activations keep
    their gradient. Max-pooling gives R to the winner, as the paper's switches do, and
    convolutions are transposed, biases left out, as in any gradient. On a ReLU net the map
    depends on the image through the switches alone, so it is piecewise constant for every
    score that is linear in the logits, and constant where nothing is pooled.

    Raw shape ``[B,C,H,W]``. Cost: 1 forward and 1 backward pass.
    Source: Zeiler & Fergus 2014, who start from one unit of a layer; here from the score.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2014,
        source="Zeiler & Fergus 2014, Visualizing and understanding convolutional networks",
        class_specific=False,
        needs="ReLU or ReLU6; elsewhere it is the gradient",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    score: Score = "logit"
    post: Post = "abs_sum"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return _ruled_gradient(_deconvolved, model, images, targets, self.score, create_graph)

    def cost(self) -> Passes:
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class RectifiedGradient:
    """RectGrad: at every ReLU with output a, R_in = R_out ⊙ 1[a ⊙ R_out > τ] ⊙ φ'(z).

    τ is the ``q``-th percentile of a ⊙ R_out over all units of the layer, for each image on
    its own: of n values in descending order the one at place (n − 1)(1 − q/100), counted
    from 0 and rounded to the nearest (halves to even), as in the authors' code. With ``tau``
    every layer has that threshold instead: 0 is guided backpropagation, and far below 0 is
    the plain gradient. ``times_input`` multiplies the result by x, as the authors' code does.

    Deviations: the place is at least 1, or no unit of a layer of up to 26 would pass at
    q = 98 and the map would be empty. φ', which is 1 wherever the paper's rule opens a ReLU
    while τ ≥ 0, keeps idle units shut when τ < 0, where the paper's opens them, and gives
    ReLU6 and the softplus stand-in of an attack their own slope. The authors' "padding
    trick", which zeroes R at the border of every convolution, is left out.

    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. The thresholds jump, but between jumps the
    derivative is exact. Cost: 1 forward and 1 backward pass, and the search for percentiles
    (at worst about a pass more, on nets with little work per unit).
    Source: Kim et al. 2019, Why are saliency maps noisy?
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2019,
        source="Kim et al. 2019, Why are saliency maps noisy?",
        needs="ReLU or ReLU6; elsewhere it is the gradient",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    q: float = 98.0
    tau: float | None = None
    times_input: bool = False
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if not 0 <= self.q < 100:
            raise InvalidInput("q", f"must be at least 0 and below 100, got {self.q}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        rule = partial(_thresholded, self.q, self.tau)
        raw = _ruled_gradient(rule, model, images, targets, self.score, create_graph)
        return (images if create_graph else images.detach()) * raw if self.times_input else raw

    def cost(self) -> Passes:
        return Passes(1, 1)


def _guided(phase: Phase, call: Call) -> Tensor:
    # clamp what arrives, then let the activation's own derivative act on it
    return route(phase, call.native(), lambda r: (r.clamp(min=0),))


def _deconvolved(phase: Phase, call: Call) -> Tensor:
    return route(phase, call.native(), lambda r: (None, r.clamp(min=0)), call.input)


def _thresholded(q: float, tau: float | None, phase: Phase, call: Call) -> Tensor:
    output = call.native()
    activation = output.detach()

    def important(r: Tensor) -> tuple[Tensor]:
        products = activation * r.detach()
        return (r * (products > (_percentile(products, q) if tau is None else tau)),)

    return route(phase, output, important)


def _percentile(values: Tensor, q: float) -> Tensor:
    """The ``q``-th percentile of each image's values, by nearest rank; ``[B,1,..,1]``.

    At most the second largest, so that one unit passes; a single unit has no rank: it passes.
    """
    flat = values.flatten(1) if values.ndim > 1 else values.unsqueeze(1)
    count = flat.shape[1]
    if count == 1:
        return torch.full_like(values, -math.inf)
    place = max(1, round((count - 1) * (1 - q / 100)))
    found = flat.kthvalue(count - place).values  # which counts upwards and from 1
    return found.view(-1, *(1,) * (values.ndim - 1))


def _ruled_gradient(
    rule: Rule,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    score: Score,
    create_graph: bool,
) -> Tensor:
    """The gradient of the score, with ``rule`` at every ReLU."""

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        phase = Phase()
        return input_gradient(
            model,
            part,
            labels,
            score=score,
            create_graph=create_graph,
            mode=Interposition(dict.fromkeys(_RELUS, partial(rule, phase))),
            phase=phase,
        )

    return each_micro_batch(images, targets, run)
