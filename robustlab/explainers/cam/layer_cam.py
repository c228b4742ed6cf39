"""LayerCAM: Grad-CAM with a weight for every place, so that early layers say something too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import gradient_cam, spatial_layer


@dataclass(frozen=True, kw_only=True)
class LayerCAM:
    """LayerCAM: a = max(0, Σ_k max(0, ∂s/∂A_k) ⊙ A_k).

    Grad-CAM averages the gradient over the layer; here each place keeps its own, which
    makes early layers of high resolution worth looking at. A ``[B,K,h,w]`` is the output of
    module ``layer``; without a name, the last module whose output still has a spatial
    extent. ``relu=False`` leaves out the outer maximum, which does nothing to a layer after
    a ReLU. Raw shape ``[B,1,h,w]`` at the layer's own size; the map is upsampled bilinearly
    to the image. The paper's fusion of several layers (tanh scaling, maximum) is left out.
    Cost: 1 forward pass and the backward pass of the head above the layer (counted as one).
    Source: Jiang et al. 2021.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2021,
        source="Jiang et al. 2021, LayerCAM",
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
            lambda _, gradient: gradient.clamp(min=0),
            layer=self.layer,
            score=self.score,
            relu=self.relu,
            create_graph=create_graph,
        )

    def resolved(self, model: nn.Module, images: Tensor) -> "LayerCAM":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=spatial_layer(model, images))

    def cost(self) -> Passes:
        return Passes(1, 1)
