"""Score-CAM: each channel weighs what the score makes of the image seen through it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score, check_targets, score_of
from robustlab.core.streaming import each_micro_batch, micro_batch, run_model
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import layer_output, spatial_layer, weighted_sum

Order = Literal["upsample_then_normalise", "normalise_then_upsample"]
Weighting = Literal["softmax", "increase"]

TYPICAL: Final = 512  # channels in the last layer of VGG and ResNet-18


@dataclass(frozen=True, kw_only=True)
class ScoreCAM:
    """Score-CAM: a = max(0, Σ_k w_k A_k), w = softmax over k of s(M_k).

    M_k = b + H_k ⊙ (x − b) is the image seen through channel k: H_k is A_k brought to the
    image's size bilinearly and to [0, 1] by (A − min) / (max − min + 1e-8), so a constant
    channel hides the whole image. With ``order`` *upsample_then_normalise*, as in the
    paper, corners are aligned (as pytorch-grad-cam does); *normalise_then_upsample* does not
    align them (as torchcam does). The two give different maps.
    ``weighting``: *softmax*, where the score of a baseline image that the paper subtracts
    cancels and is not computed; *increase* is w_k = s(M_k) − s(b), the increase of
    confidence itself. ``baseline`` b is a constant pixel value (black = 0), put in front of
    the model's own normalisation; other libraries mask the normalised image, that is towards
    its mean colour. The authors' code takes the softmax over classes for s and no softmax
    over channels: ``score="prob", weighting="increase"``, but for its s(b).

    A ``[B,K,h,w]`` is the output of module ``layer``; without a name, the last module whose
    output still has a spatial extent. ``channels`` keeps, for each image, only the channels
    of largest spatial variance, as in Faster Score-CAM; None keeps all. ``relu=False`` keeps
    the negative part. Raw shape ``[B,1,h,w]`` at the layer's own size, not normalised; the
    map is upsampled bilinearly to the image (the authors upsample each channel before the
    maximum with 0).
    Cost: 1 + K forward passes (2 + K for *increase*), K = ``channels``; `resolved` fills it
    in from the layer, and until then 512 is assumed. Memory: one micro-batch, but with
    ``create_graph`` the graphs of all 1 + K passes are kept: limit ``channels``. The choice
    of channels is piecewise constant, all else is differentiated.
    Source: Wang et al. 2020.

    Raises:
        InvalidInput: no such layer, one without spatial extent, or no convolution at all.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2020,
        source="Wang et al. 2020, Score-CAM",
        layer_specific=True,
        detail="region",
        needs="a convolutional layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
    channels: int | None = None
    order: Order = "upsample_then_normalise"
    weighting: Weighting = "softmax"
    baseline: float = 0.0
    relu: bool = True
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels < 1:
            raise InvalidInput("channels", f"must be at least 1, got {self.channels}")

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

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            with torch.set_grad_enabled(create_graph):
                activation, logits = layer_output(model, name, part, create_graph)
                check_targets(labels, logits)
                maps = self._kept(activation)
                weights = self._weights(model, part, labels, maps)
                return weighted_sum(maps, weights[:, :, None, None], self.relu)

        return each_micro_batch(images, targets, run)

    def _kept(self, activation: Tensor) -> Tensor:
        """The channels that vary most, in their own order."""
        if self.channels is None or self.channels >= activation.shape[1]:
            return activation
        variance = activation.detach().flatten(2).var(2, correction=0)
        order = variance.argsort(dim=1, descending=True, stable=True)
        chosen = order[:, : self.channels].sort(1).values
        return activation.take_along_dim(chosen[:, :, None, None], 1)

    def _weights(self, model: nn.Module, part: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
        """One weight per image and channel ``[B,K]``; the masked copies are streamed."""
        together = max(1, micro_batch(part) // len(part))
        scores = torch.cat(
            [self._scores(model, part, labels, some) for some in maps.split(together, 1)], 1
        )
        if self.weighting == "softmax":
            return scores.softmax(1)
        blank = run_model(model, torch.full_like(part, self.baseline))
        return scores - score_of(blank, labels, self.score).unsqueeze(1)

    def _scores(self, model: nn.Module, part: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
        """Scores ``[B,n]`` of the images seen through n of the channels."""
        masks = self._masks(maps, part.shape[-2:]).unsqueeze(2)
        masked = self.baseline + masks * (part - self.baseline).unsqueeze(1)
        logits = run_model(model, masked.flatten(0, 1))
        repeated = labels.repeat_interleave(maps.shape[1])
        return score_of(logits, repeated, self.score).view(maps.shape[:2])

    def _masks(self, maps: Tensor, size: torch.Size) -> Tensor:
        """``[B,n,H,W]`` in [0, 1]."""
        if self.order == "upsample_then_normalise":
            return _unit(F.interpolate(maps, size, mode="bilinear", align_corners=True))
        return F.interpolate(_unit(maps), size, mode="bilinear", align_corners=False)

    def resolved(self, model: nn.Module, images: Tensor) -> "ScoreCAM":
        """The same explainer with its layer named and its channels counted."""
        name = self.layer or spatial_layer(model, images)
        with torch.no_grad():
            found = layer_output(model, name, images[:1], create_graph=False)[0].shape[1]
        return replace(self, layer=name, channels=min(found, self.channels or found))

    def cost(self) -> Passes:
        masks = TYPICAL if self.channels is None else self.channels
        return Passes(1 + masks + (self.weighting == "increase"), 0)


def _unit(maps: Tensor) -> Tensor:
    """Each channel scaled to [0, 1]; a constant one becomes 0."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low + 1e-8)
