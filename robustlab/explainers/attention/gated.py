"""Gates that the network computes for itself, shown as they are: SE and CBAM."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.attention.gates import CHANNELS, PLACES, last_gate, read_gate


@dataclass(frozen=True, kw_only=True)
class SEAttention:
    """Squeeze-and-excitation gates: a = Σ_k g_k A_k.

    g ``[B,K]`` are the factors by which the net itself weighs the channels of its features
    A ``[B,K,h,w]``. A gate has no places, so they come from what it gates: the map is a class
    activation map whose weights are the net's own gates instead of class weights. Since
    g ⊙ A is what the gate puts out, this is the sum of that over the channels.
    The gates are those of any library, or of a line of code: what counts is a product of
    features with one computed number per channel. ``layer`` is a module in which that
    happens (of several the last counts); without a name, that of the last such product,
    found once by running one image twice. The gates know no class: a ``target`` is checked
    and otherwise without effect. Hu et al. propose a network, no explanation; the read-out
    is ours, and unlike Grad-CAM it has no ReLU.
    Raw shape ``[B,1,h,w]``; the map is upsampled bilinearly to the image. Cost: 1 forward
    pass. Source: Hu, Shen & Sun 2018.

    Raises:
        InvalidInput: no such gate, or none in that layer.
    """

    about: ClassVar[About] = About(
        family="attention",
        year=2018,
        source="Hu, Shen & Sun 2018, Squeeze-and-excitation networks",
        class_specific=False,
        layer_specific=True,
        detail="region",
        needs="squeeze-and-excitation (channel gates)",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
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
        return read_gate(model, images, targets, CHANNELS, self.layer, create_graph)

    def resolved(self, model: nn.Module, images: Tensor) -> "SEAttention":
        """The same explainer with its layer named."""
        known = self.layer is not None
        return self if known else replace(self, layer=last_gate(model, images, CHANNELS))

    def cost(self) -> Passes:
        return Passes(1, 0)


@dataclass(frozen=True, kw_only=True)
class CBAMAttention:
    """The spatial gate of CBAM: a = M, as in A' = M ⊙ A.

    M ``[B,1,h,w]`` is the factor by which the net itself weighs every place of its features,
    between 0 and 1 if it comes from a sigmoid. It is read off the product, in any library's
    module or line of code, so it serves every net that multiplies features by one computed
    number per place: of an attention branch network it shows 1 + M. ``layer`` is a module in
    which that happens (of several the last counts); without a name, that of the last such
    product, found once by running one image twice. The gate knows no class: a ``target`` is
    checked and otherwise without effect. The channel gates of CBAM are read by
    ``se_attention``.
    Raw shape ``[B,1,h,w]``; the map is upsampled bilinearly to the image. Cost: 1 forward
    pass. Source: Woo et al. 2018, eq. 3.

    Raises:
        InvalidInput: no such gate, or none in that layer.
    """

    about: ClassVar[About] = About(
        family="attention",
        year=2018,
        source="Woo et al. 2018, CBAM: convolutional block attention module",
        class_specific=False,
        layer_specific=True,
        detail="region",
        needs="spatial gates, as CBAM has",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
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
        return read_gate(model, images, targets, PLACES, self.layer, create_graph)

    def resolved(self, model: nn.Module, images: Tensor) -> "CBAMAttention":
        """The same explainer with its layer named."""
        known = self.layer is not None
        return self if known else replace(self, layer=last_gate(model, images, PLACES))

    def cost(self) -> Passes:
        return Passes(1, 0)
