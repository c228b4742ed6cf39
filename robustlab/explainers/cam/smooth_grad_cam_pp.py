"""Smooth Grad-CAM++: Grad-CAM++ with the derivatives of noisy copies, averaged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import normal
from robustlab.core.score import Score, check_targets
from robustlab.core.streaming import copies, each_micro_batch
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import (
    layer_gradient,
    layer_output,
    spatial_layer,
    weighted_sum,
)


@dataclass(frozen=True, kw_only=True)
class SmoothGradCAMpp:
    """Smooth Grad-CAM++: a = max(0, Σ_k w_k A_k), w_k = Σ_ij α_ij max(0, D1_ij).

    D1, D2, D3 are the means of g, g² and g³ over n noisy copies x + σ·n_j, with g = ∂s/∂A
    taken at the copy, and α = D2 / (2 D2 + S D3 + ε), 0 where D2 = 0. A and S = Σ_ab A_ab
    belong to the image itself. The paper prints D1 for the numerator of α; with D2 the
    method is Grad-CAM++ for σ = 0, which it is meant to smooth. Everything said of
    ``epsilon`` and exp(s) at `GradCAMpp` holds; D3 may be negative where D1 is positive, so
    a denominator near zero is possible on any layer, and a large weight with it.

    ``sigma`` is in pixel units of [0,1] images; copies are not clipped to the box. The noise
    of an image depends on ``seed`` and its id only. ``layer`` and ``relu`` as for Grad-CAM.
    Raw shape ``[B,1,h,w]`` at the layer's own size, not normalised; the map is upsampled
    bilinearly to the image.
    Cost: n + 1 forward passes and n backward passes of the head above the layer (each
    counted as one), streamed. Source: Omeiza et al. 2019.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2019,
        source="Omeiza et al. 2019, Smooth Grad-CAM++",
        layer_specific=True,
        detail="region",
        needs="a convolutional layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
    samples: int = 16
    sigma: float = 0.15
    epsilon: float = 0.0
    relu: bool = True
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InvalidInput("samples", f"must be at least 1, got {self.samples}")
        for field, value in (("sigma", self.sigma), ("epsilon", self.epsilon)):
            if not value >= 0:
                raise InvalidInput(field, f"must be at least 0, got {value}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        name = self.layer or spatial_layer(model, images)

        def run(part: Tensor, labels: Tensor, where: slice) -> Tensor:
            with torch.set_grad_enabled(create_graph):
                activation, logits = layer_output(model, name, part, create_graph)
            check_targets(labels, logits)
            names = None if ids is None else ids[where]
            gradients = self._noisy_gradients(model, name, part, labels, names, create_graph)
            return weighted_sum(activation, self._weights(activation, gradients), self.relu)

        return each_micro_batch(images, targets, run)

    def _noisy_gradients(
        self,
        model: nn.Module,
        layer: str,
        part: Tensor,
        labels: Tensor,
        ids: Sequence[str] | None,
        create_graph: bool,
    ) -> Iterator[Tensor]:
        """∂s/∂A ``[B,K,h,w]`` at one noisy copy of each image after the other."""

        def alter(images: Tensor, j: int, _: slice) -> Tensor:
            noise = normal(images, ids, self.seed, f"smooth_grad_cam_pp/{j}")
            return images + self.sigma * noise

        for js, _, stack in copies(part, self.samples, alter):
            repeated = labels.repeat(len(js))
            _, gradients = layer_gradient(model, layer, stack, repeated, self.score, create_graph)
            yield from gradients.chunk(len(js))

    def _weights(self, activation: Tensor, gradients: Iterator[Tensor]) -> Tensor:
        moments = [torch.zeros_like(activation, dtype=torch.float64) for _ in range(3)]
        for gradient in gradients:
            g = gradient.double()  # the cube of a saturated softmax's gradient underflows
            moments = [m + g**power / self.samples for power, m in enumerate(moments, 1)]
        first, second, third = moments
        total = activation.double().sum((2, 3), keepdim=True)
        moved = second > 0
        denominator = torch.where(moved, 2 * second + total * third + self.epsilon, 1.0)
        alpha = torch.where(moved, second, 0.0) / denominator
        return (alpha * first.clamp(min=0)).sum((2, 3), keepdim=True).to(activation.dtype)

    def resolved(self, model: nn.Module, images: Tensor) -> "SmoothGradCAMpp":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=spatial_layer(model, images))

    def cost(self) -> Passes:
        return Passes(self.samples + 1, self.samples)
