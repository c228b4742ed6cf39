"""Grad-CAM++: gradients weighted so that every occurrence of an object counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import gradient_cam, spatial_layer


@dataclass(frozen=True, kw_only=True)
class GradCAMpp:
    """Grad-CAM++: a = max(0, Σ_k w_k A_k), w_k = Σ_ij α_ij max(0, g_ij), g = ∂s/∂A_k.

    α = g² / (2 g² + S g³ + ε) where g ≠ 0, else 0, with S = Σ_ab A_ab the sum of the channel.
    This is the paper's closed form: it explains Y = exp(s) and takes s for piecewise linear
    in A, so that the second and third derivatives of Y are exp(s) g² and exp(s) g³. The
    factor exp(s), common to all weights of an image, is left out (it overflows for large
    logits and changes no ranking within a map). Dividing by g² gives what is computed,
    α = 1 / (2 + S g + ε/g²): for A ≥ 0 it needs no ε, so ``epsilon`` is 0. Other libraries
    add 1e-6 to 1e-8 to the denominator, which outweighs 2 g² as soon as |g| < 7e-4, the size
    of gradients behind a global average of 7×7: ``epsilon=1e-6`` repeats that. On a layer
    with negative values (no ReLU) S may be negative and the denominator may come near zero:
    choose a layer after the activation. The authors' TensorFlow code also divides α by its
    sum over the places of a channel; the paper's equations do not, nor does this.

    Raw shape ``[B,1,h,w]`` at the layer's own size, not normalised; the map is upsampled
    bilinearly to the image. ``layer`` and ``relu`` as for Grad-CAM.
    Cost: 1 forward pass and the backward pass of the head above the layer (counted as one).
    Source: Chattopadhay et al. 2018.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2018,
        source="Chattopadhay et al. 2018, Grad-CAM++",
        layer_specific=True,
        detail="region",
        needs="a convolutional layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
    epsilon: float = 0.0
    relu: bool = True
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise InvalidInput("epsilon", f"must be at least 0, got {self.epsilon}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return gradient_cam(
            model,
            images,
            targets,
            self._weights,
            layer=self.layer,
            score=self.score,
            relu=self.relu,
            create_graph=create_graph,
        )

    def _weights(self, activation: Tensor, gradient: Tensor) -> Tensor:
        total = activation.sum((2, 3), keepdim=True)
        positive = gradient > 0
        g = torch.where(positive, gradient, 1.0)  # keeps 0/0 out of the graph
        alpha = 1 / (2 + total * g + (self.epsilon**0.5 / g).square())  # g² might underflow
        return torch.where(positive, alpha * g, 0.0).sum((2, 3), keepdim=True)

    def resolved(self, model: nn.Module, images: Tensor) -> "GradCAMpp":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=spatial_layer(model, images))

    def cost(self) -> Passes:
        return Passes(1, 1)
