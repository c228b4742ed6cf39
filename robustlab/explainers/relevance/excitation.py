"""Excitation backprop: which neurons would win if the class looked down through the network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from robustlab.core.linear import Layer
from robustlab.core.maps import Post
from robustlab.core.streaming import each_micro_batch, input_gradient, run_model
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import layer_gradient, recording, spatial_layer
from robustlab.explainers.relevance.rules import Rule, z_plus
from robustlab.explainers.relevance.walk import RelevanceWalk
from robustlab.explainers.relevance.walked import Walked

INPUT: Final = "input"


@dataclass(frozen=True, kw_only=True)
class ExcitationBackprop:
    """Excitation backprop: the probability P that a neuron wins when the class picks from above.

    P is 1 at the target's logit. A unit i hands its probability to its inputs j in
    proportion to what excites it, biases left out:
    P(a_j) = Σ_i P(a_i) · a_j w_ij⁺ / Σ_k a_k w_ik⁺. Raw is Σ_c P at the output of module
    ``layer``, or at the pixels with ``layer="input"``. Without a name it is the finest of
    the late layers: the last module whose output has more places than the final feature
    map (ResNet's layer3), found once by running one image; that final map where all are of
    one size. The authors choose an intermediate layer by hand, pool2 of GoogLeNet for one.

    ``contrastive`` (cMWP) asks what speaks for the class and not against it: the top layer,
    which is the last convolution or matrix before the logits, hands on P minus the P̄ of its
    negated weights; the signed difference walks on as above, and raw is max(0, Σ_c of it),
    cut off at the end as in the authors' code.

    Max-pooling lets its winner win; residual sums and average pooling share P in proportion
    to their inputs; batch-norm is folded into the convolution before it. All else is as in
    `LRP` without biases, whose z⁺ rule this is. ΣP = 1 in every layer, less what units
    without any excitatory input lose. The formula wants activations a ≥ 0, as behind a ReLU.
    For others the lab goes beyond the paper: a layer's negative inputs excite through
    negative weights (x⁺w⁺ + x⁻w⁻), and of a sum with a negative summand the shares leave
    [0, 1] (they still sum to 1). A convolution that is read before its batch-norm is read as
    what comes out of that.

    Raw shape ``[B,1,h,w]`` at the layer's own size, ``[B,1,H,W]`` for the input; the map is
    upsampled bilinearly. Cost: a forward pass, the backward pass of what lies above the layer,
    and one more convolution for each backward one: 2 and 2 at most.
    Source: Zhang et al. 2016 (ECCV), 2018 (IJCV).

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all and
            ``layer`` is not "input".
    """

    about: ClassVar[About] = About(
        family="relevance",
        year=2016,
        source="Zhang et al. 2016, Top-down neural attention by excitation backprop",
        layer_specific=True,
        detail="region",
        needs="a convolutional layer, activations that are not negative",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # as for LRP: its own slope is the better guide
    layer: str | None = None
    contrastive: bool = False
    post: Post = "signed"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        layer = self.layer or last_fine_layer(model, images)

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            rule: Rule = _Contrast() if self.contrastive else _EXCITATION
            walk = RelevanceWalk(lambda *_: rule, bias=False)
            walked = Walked(model, walk)
            with walk.phase:
                if layer == INPUT:
                    winning = input_gradient(walked, part, labels, create_graph=create_graph)
                else:
                    winning = layer_gradient(walked, layer, part, labels, "logit", create_graph)[1]
            total = winning.sum(1, keepdim=True)
            return total.clamp(min=0) if self.contrastive else total

        return each_micro_batch(images, targets, run)

    def resolved(self, model: nn.Module, images: Tensor) -> "ExcitationBackprop":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=last_fine_layer(model, images))

    def cost(self) -> Passes:
        """Whole-model passes at most; the sums of the rule are counted as what they cost."""
        return Passes(2, 2)


def last_fine_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the last module whose output has more places than the final feature map.

    The final map's own layer if no module's has.

    Raises:
        InvalidInput: the model has no feature maps, or goes on with tokens.
    """
    final = spatial_layer(model, images)
    outputs: list[tuple[str, Tensor]] = []
    with torch.no_grad(), recording(model, outputs):
        run_model(model, images[:1].detach())
    maps = [(name, output) for name, output in outputs if output.ndim == 4]
    places = maps[-1][1][0, 0].numel()
    finer = [output for _, output in maps if output[0, 0].numel() > places]
    if not finer:
        return final
    same = [name for name, output in maps if output is finer[-1]]
    return min(reversed(same), key=lambda name: name.count("."))


_EXCITATION: Final = z_plus(bias=False)


class _Contrast:
    """Shares of excitation, at the first layer from above less the shares of inhibition."""

    def __init__(self) -> None:
        self._at_top = True

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        winning = _EXCITATION.relevance(layer, x, z, r, box)
        if not self._at_top:
            return winning
        self._at_top = False
        dual = replace(layer, weight=-layer.weight)
        return winning - _EXCITATION.relevance(dual, x, z, r, box)
