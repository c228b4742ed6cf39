"""Linear layers as functions, with derivatives of any order that cost one pass each.

PyTorch's own double backward of a convolution also computes the gradient of the weights,
group by group, whether anyone wants it or not: on a net of depthwise convolutions that is
most of the time of an attack on an explanation. A convolution with constant weights is a
linear map, so its derivatives are itself and its transpose, for ever.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.interposition import Call, Interposition


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer: a convolution (any dimension, any groups) or a matrix."""

    kind: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """f(x; weight, bias)."""
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        if not torch.is_grad_enabled() or _wants_gradient(weight, bias):
            return self._convolve(x, weight, bias)
        return _Convolution.apply(x, weight, bias, self)

    def transpose(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """fᵀ(s; weight), in the shape of ``like``: one backward pass through the layer."""
        if self.kind == "linear":
            return s @ weight
        if not torch.is_grad_enabled() or _wants_gradient(weight, None):
            return self._transpose(s, weight, like)
        return _Transposed.apply(s, weight, like.detach(), self)

    def folded(self, scale: Tensor, shift: Tensor) -> "Layer":
        """The layer followed by ``scale · z + shift`` per channel, as one layer."""
        weight = self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1))
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=weight, bias=bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False,
            (0,) * len(self.stride), self.groups,
        )  # fmt: skip

    def _transpose(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return torch.ops.aten.convolution_backward(
            s, like, weight, None, self.stride, self.padding, self.dilation, False,
            (0,) * len(self.stride), self.groups, (True, False, False),
        )[0]  # fmt: skip


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
        ctx.weight, ctx.layer = weight, layer
        # only the shape is needed later, and an expanded scalar has one
        ctx.like = x.new_empty(()).expand(x.shape) if x.ndim != 4 else x.detach()
        return layer._convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Transposed.apply(gradient, ctx.weight, ctx.like, ctx.layer), None, None, None


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, weight: Tensor, like: Tensor, layer: Layer) -> Tensor:
        ctx.weight, ctx.layer = weight, layer
        return layer._transpose(s, weight, like)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Convolution.apply(gradient, ctx.weight, None, ctx.layer), None, None, None


def layer_of(call: Call) -> tuple[Layer, Tensor]:
    """The layer of a call, and its input padded by hand where "same" padding is lopsided."""
    weight, bias, x = call.get("weight"), call.get("bias"), call.input
    if call.op == "linear":
        return Layer("linear", weight, bias), x
    dims = weight.ndim - 2
    stride = _each(call.get("stride", 1), dims)
    dilation = _each(call.get("dilation", 1), dims)
    padding = call.get("padding", 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = tuple(t // 2 for t in total)
        if any(t % 2 for t in total):
            extra = [side for t in reversed(total) for side in (0, t % 2)]
            x = F.pad(x, extra)
    elif padding == "valid":
        padding = 0
    return (
        Layer("conv", weight, bias, stride, _each(padding, dims), dilation, call.get("groups", 1)),
        x,
    )


def batch_norm_affine(call: Call) -> tuple[Tensor, Tensor] | None:
    """(scale, shift) per channel of a batch-norm in evaluation mode; None in training mode."""
    if call.get("training", False) or call.get("running_mean") is None:
        return None
    scale = torch.rsqrt(call.get("running_var") + call.get("eps", 1e-5))
    if call.get("weight") is not None:
        scale = scale * call.get("weight")
    shift = -call.get("running_mean") * scale
    if call.get("bias") is not None:
        shift = shift + call.get("bias")
    return scale, shift


def cheap_second_order() -> Interposition:
    """A mode in which convolutions and batch-norms with constant weights differentiate cheaply.

    Values and derivatives are those of the model; layers whose parameters want gradients
    are left to PyTorch. It must be the outermost mode, so that every rule sees the layers.
    """

    def convolution(call: Call) -> Tensor:
        weight = call.get("weight")
        unbatched = call.input.ndim != weight.ndim
        if unbatched or _wants_gradient(weight, call.get("bias")):
            return call.native()
        layer, x = layer_of(call)
        return layer.apply(x, layer.weight, layer.bias)

    def batch_norm(call: Call) -> Tensor:
        affine = None
        if not _wants_gradient(call.get("weight"), call.get("bias")):
            affine = batch_norm_affine(call)
        if affine is None:
            return call.native()
        scale, shift = (v.view(-1, *(1,) * (call.input.ndim - 2)) for v in affine)
        return torch.addcmul(shift, call.input, scale)

    return Interposition({"conv": convolution, "batch_norm": batch_norm})


def _wants_gradient(weight: Tensor | None, bias: Tensor | None) -> bool:
    return any(t is not None and t.requires_grad for t in (weight, bias))


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
