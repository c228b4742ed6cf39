"""Guided Grad-CAM: fine as guided backpropagation, where Grad-CAM sees the class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.cam.layers import spatial_layer
from robustlab.explainers.gradient.rectified import GuidedBackprop


@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM:
    """Guided Grad-CAM: a = R ⊙ U(G), R guided backpropagation, G Grad-CAM at ``layer``.

    U enlarges G, which is not negative, to the image bilinearly (corners not aligned), as
    the paper says and as every map here is enlarged; captum's default is *nearest*. R keeps
    its sign. Without a name, the layer is the last whose output has a spatial extent.
    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. Cost: 2 forward and 2 backward passes, one
    each for R and G (Grad-CAM's goes back to its layer only). Source: Selvaraju et al. 2017.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2017,
        source="Selvaraju et al. 2017, Grad-CAM",
        layer_specific=True,
        needs="a convolutional layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
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
        region = GradCAM(layer=self.layer, score=self.score).explain(
            model, images, targets, create_graph=create_graph
        )
        detail = GuidedBackprop(score=self.score).explain(
            model, images, targets, create_graph=create_graph
        )
        size = images.shape[-2:]
        return detail * F.interpolate(region, size, mode="bilinear", align_corners=False)

    def resolved(self, model: nn.Module, images: Tensor) -> "GuidedGradCAM":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=spatial_layer(model, images))

    def cost(self) -> Passes:
        return Passes(2, 2)
