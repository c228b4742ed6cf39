"""Gradients with another rule at every ReLU: only what speaks for the class comes through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustlab.core.interposition import Call, Interposition, Phase, route
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import (
    each_micro_batch,
    input_gradient,
)
from robustlab.core.types import About, Differentiable, Passes


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
        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            phase = Phase()

            def guided(call: Call) -> Tensor:
                # clamp what arrives, then let the activation's own derivative act on it
                return route(phase, call.native(), lambda r: (r.clamp(min=0),))

            names = ("relu", "relu6", "smooth_activation")
            return input_gradient(
                model,
                part,
                labels,
                score=self.score,
                create_graph=create_graph,
                mode=Interposition(dict.fromkeys(names, guided)),
                phase=phase,
            )

        return each_micro_batch(images, targets, run)

    def cost(self) -> Passes:
        return Passes(1, 1)
