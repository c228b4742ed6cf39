"""Grad-CAM: where in a convolutional layer the score comes from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import gradient_cam, spatial_layer


@dataclass(frozen=True, kw_only=True)
class GradCAM:
    """Grad-CAM: a = max(0, Σ_k w_k A_k), w_k = mean over positions of ∂s/∂A_k.

    A ``[B,K,h,w]`` is the output of module ``layer``; without a name, the last module whose
    output still has a spatial extent (found once by running one image). Raw shape
    ``[B,1,h,w]`` at the layer's own size, not normalised; the map is upsampled bilinearly to
    the image. ``relu=False`` keeps the negative part. Weights stay in the graph, so both
    factors are differentiated.
    Cost: 1 forward pass and the backward pass of the head above the layer (counted as one).
    Source: Selvaraju et al. 2017.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2017,
        source="Selvaraju et al. 2017, Grad-CAM",
        layer_specific=True,
        detail="region",
        needs="a convolutional layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
    relu: bool = True
    score: Score = "logit"
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
        return gradient_cam(
            model,
            images,
            targets,
            lambda _, gradient: gradient.mean((2, 3), keepdim=True),
            layer=self.layer,
            score=self.score,
            relu=self.relu,
            create_graph=create_graph,
        )

    def resolved(self, model: nn.Module, images: Tensor) -> "GradCAM":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=spatial_layer(model, images))

    def cost(self) -> Passes:
        return Passes(1, 1)
