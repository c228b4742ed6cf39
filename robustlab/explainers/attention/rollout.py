"""Attention rollout: from which patches the class token of a transformer took what it knows."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.linear import cheap_second_order
from robustlab.core.maps import Post
from robustlab.core.score import Score, check_targets, score_of
from robustlab.core.streaming import each_micro_batch, run_model
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.attention.tokens import INSTEAD, OpenAttention

Fusion = Literal["mean", "max", "min"]
Pooling = Literal["auto", "class_token", "mean"]
_FUSE: Final[Mapping[Fusion, Callable[[Tensor, int], Tensor]]] = {
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
}


@dataclass(frozen=True, kw_only=True)
class AttentionRollout:
    """Attention rollout: a row of Ã_L ⋯ Ã_1, with Ã = (A + I) / 2 for each layer.

    A ``[B,T,T]`` are a layer's attention probabilities, the mean over its heads. With
    ``gradient``, the class-specific form of Chefer et al.: Ã = I + mean over heads of
    max(0, ∂s/∂A ⊙ A) for the ``score`` s of the target. Without it no class is explained:
    targets are checked, else they and ``score`` have no effect.
    Not in the papers but usual, for the plain form: ``head_fusion`` takes the largest or
    smallest head instead, ``discard_ratio`` sets that share of each image's entries of A to
    zero, the lowest. The rows of Ã are then scaled to sum 1, as they do without either.

    The row is that of the class token; of a net without one, the mean over the patches'
    rows, which then pools them (``pooling`` decides if "auto" is wrong). Tokens after the
    first p are the patches, where p is the smallest number for which the rest fills a grid of
    square patches; token 0 is the class token, others before the patches are left out.

    Works on what the forward pass computes, not on module names: ``nn.MultiheadAttention``,
    ``scaled_dot_product_attention`` and written-out softmaxes over ``[B, heads, T, T]``.
    Windowed and pooled attention (Swin, MaxViT) has no rollout. Only the row that is read
    is ever computed, which is a product of a row and a matrix per layer.

    Raw shape ``[B,1,h,w]``, one value per patch; the map is upsampled bilinearly. Cost: 1
    forward pass; with ``gradient`` also the backward pass to the first layer (counted as
    one). Sources: Abnar & Zuidema 2020; Chefer, Gur & Wolf 2021 for ``gradient``.

    Raises:
        InvalidInput: no transformer, attention that is not between all tokens, or tokens
            that fill no grid.
    """

    about: ClassVar[About] = About(
        family="attention",
        year=2020,
        source="Abnar & Zuidema 2020, Quantifying attention flow in transformers",
        class_specific=False,  # with gradient=True it is
        detail="region",
        needs="a vision transformer in which all tokens attend to all others",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    gradient: bool = False
    head_fusion: Fusion = "mean"
    discard_ratio: float = 0.0
    pooling: Pooling = "auto"
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if not 0 <= self.discard_ratio < 1:
            problem = f"must be at least 0 and below 1, got {self.discard_ratio}"
            raise InvalidInput("discard_ratio", problem)
        if self.gradient and self.head_fusion != "mean":
            raise InvalidInput("head_fusion", "the gradient-weighted form averages over heads")
        if self.gradient and self.discard_ratio:
            raise InvalidInput("discard_ratio", "the gradient-weighted form discards nothing")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        follow = self._weighted if self.gradient else self._plain

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            part = part if create_graph else part.detach()
            with torch.set_grad_enabled(create_graph or self.gradient):
                layers = follow(model, part, labels, create_graph)
            with torch.set_grad_enabled(create_graph):
                return self._row(layers, part)

        return each_micro_batch(images, targets, run)

    def _plain(
        self, model: nn.Module, images: Tensor, targets: Tensor, create_graph: bool
    ) -> list[Tensor]:
        """Ã − I of every layer, up to the scale of its rows."""
        opened = OpenAttention(model, self._fused)
        check_targets(targets, run_model(opened, images))
        return opened.layers

    def _fused(self, probabilities: Tensor) -> Tensor:
        """``[B, heads, T, T]`` to A ``[B,T,T]``, without each image's lowest entries."""
        fused = _FUSE[self.head_fusion](probabilities, 1)
        lowest = int(self.discard_ratio * fused[0].numel())
        if not lowest:
            return fused
        least = fused.detach().flatten(1).kthvalue(lowest + 1).values  # its equals stay as well
        return fused * (fused >= least[:, None, None])

    def _weighted(
        self, model: nn.Module, images: Tensor, targets: Tensor, create_graph: bool
    ) -> list[Tensor]:
        """mean over heads of max(0, ∂s/∂A ⊙ A) of every layer."""
        opened = OpenAttention(model)
        with cheap_second_order() if create_graph else nullcontext() as mode:
            logits = run_model(opened, images)
            logits = logits if mode is None else mode.current(logits)
        scores = score_of(logits, targets, self.score).sum()
        gradients = torch.autograd.grad(
            scores, opened.layers, create_graph=create_graph, materialize_grads=True
        )
        pairs = zip(gradients, opened.layers, strict=True)
        return [(gradient * layer).clamp(min=0).mean(1) for gradient, layer in pairs]

    def _row(self, layers: list[Tensor], images: Tensor) -> Tensor:
        """The pooled row of the product of all layers, last layer first, as a grid."""
        count, tokens, _ = layers[0].shape
        first, height, width = patch_grid(tokens, *images.shape[-2:])
        row = layers[0].new_zeros(count, 1, tokens)
        if self._by_class_token(first):
            row[..., 0] = 1
        else:
            row[..., first:] = 1 / (tokens - first)
        for layer in reversed(layers):
            if not self.gradient:
                row = row / (1 + layer.sum(-1)).unsqueeze(1)
            row = row + row @ layer
        return row[..., first:].unflatten(2, (height, width))

    def _by_class_token(self, first: int) -> bool:
        if self.pooling == "class_token" and first == 0:
            raise InvalidInput("pooling", "all tokens are patches, none is a class token")
        return first > 0 and self.pooling != "mean"

    def cost(self) -> Passes:
        return Passes(1, 1 if self.gradient else 0)


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int, int]:
    """(tokens before the patches, rows, columns) for images of ``height × width`` pixels."""
    grids = {(height // side, width // side) for side in range(1, min(height, width) + 1)}
    fitting = [(tokens - h * w, h, w) for h, w in grids if 0 <= tokens - h * w < h * w]
    if not fitting:
        problem = f"its {tokens} tokens fill no grid of square patches of {height}×{width} pixels"
        raise InvalidInput("model", problem, INSTEAD)
    return min(fitting)
