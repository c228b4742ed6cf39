"""Linear layers as functions, with derivatives of any order that cost one pass each.

PyTorch's own double backward of a convolution also computes the gradient of the weights,
group by group, whether anyone wants it or not: on a net of depthwise convolutions that is
most of the time of an attack on an explanation. A convolution with constant weights is a
linear map, so its derivatives are itself and its transpose, for ever.

Normalisations and attention are linear maps too, once what they divide by and whom they
attend to is taken as given.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.interposition import Call, Interposition
from robustlab.core.subpixel import FEW, suits, transpose_2d


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer in x: f(x; w, b), by ``kind``.

    *conv* is a convolution or transposed convolution of any dimension and any groups,
    *linear* a matrix or, with ``contract``, any other product with constant weights (batched
    matrices, einsum), and *affine* a number for each element: w ⊙ x + b, broadcast.
    """

    kind: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    contract: Callable[[Tensor, Tensor], Tensor] | None = None

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """f(x; weight, bias)."""
        if self.kind == "conv":
            if not torch.is_grad_enabled() or _wants_gradient(weight, bias):
                return self._convolve(x, weight, bias)
            return _Convolution.apply(x, weight, bias, self)
        if self.kind == "linear" and self.contract is None:
            return F.linear(x, weight, bias)
        product = x * weight if self.contract is None else self.contract(x, weight)
        return product if bias is None else product + bias

    def transpose(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """fᵀ(s; weight), in the shape of ``like``: one backward pass through the layer."""
        if self.kind == "conv":
            if not torch.is_grad_enabled() or _wants_gradient(weight, None):
                return self._transpose(s, weight, like)
            return _Transposed.apply(s, weight, like.detach(), self)
        if self.contract is not None:
            contract = self.contract
            return transposed(lambda x: contract(x, weight), like, s)
        return s * weight if self.kind == "affine" else s @ weight

    def folded(self, scale: Tensor, shift: Tensor) -> "Layer":
        """The layer followed by ``scale · z + shift`` per channel, as one layer."""
        if self.transposed:  # weights [inputs, outputs per group, ...]
            grouped = self.weight.unflatten(0, (self.groups, -1))
            each = scale.view(self.groups, 1, -1, *(1,) * (self.weight.ndim - 2))
            weight = (grouped * each).flatten(0, 1)
        else:
            weight = self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1))
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=weight, bias=bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding or (0,) * len(self.stride), self.groups,
        )  # fmt: skip

    def _transpose(self, s: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        if not self.transposed and suits(weight, self.stride, self.dilation, self.groups):
            height, width = like.shape[-2:]
            return transpose_2d(s, weight, self.stride[0], self.padding, (height, width))
        return torch.ops.aten.convolution_backward(
            s, like, weight, None, self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding or (0,) * len(self.stride), self.groups, (True, False, False),
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


def transposed(linear: Callable[[Tensor], Tensor], like: Tensor, s: Tensor) -> Tensor:
    """The transpose of a linear map of tensors like ``like``, applied to ``s``."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        probe = like.detach().requires_grad_()
        (result,) = torch.autograd.grad(linear(probe), probe, s, create_graph=keep_graph)
    return result


def layer_of(call: Call) -> tuple[Layer, Tensor]:
    """The layer of a convolution or matrix, and its input, padded by hand where "same"
    padding is lopsided.
    """
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
    layer = Layer(
        "conv", weight, bias, stride, _each(padding, dims), dilation, call.get("groups", 1)
    )
    if call.op == "conv_transpose":
        more = _each(call.get("output_padding", 0), dims)
        layer = replace(layer, transposed=True, output_padding=more)
    return layer, x


def product_layer(call: Call, x: Tensor) -> Layer:
    """The layer in ``x`` that a product of it with constants is, whoever spells it."""
    other: Tensor = call.get("other")
    if x is not call.input:
        return Layer("linear", call.input, None, contract=lambda x, w: call.run(w, other=x))
    if call.op in ("matmul", "addmm") and other.ndim == 2:
        return Layer("linear", other.mT, call.get("bias"))
    return Layer("linear", other, None, contract=lambda x, w: call.run(x, other=w))


def batch_norm_affine(call: Call) -> tuple[Tensor, Tensor] | None:
    """(scale, shift) per channel of a batch-norm in evaluation mode; None in training mode."""
    scale = _batch_norm_scale(call)
    if scale is None:
        return None
    shift = -call.get("running_mean") * scale
    if call.get("bias") is not None:
        shift = shift + call.get("bias")
    return scale, shift


def _batch_norm_scale(call: Call) -> Tensor | None:
    if call.get("training", False) or call.get("running_mean") is None:
        return None
    scale = torch.rsqrt(call.get("running_var") + call.get("eps", 1e-5))
    return scale if call.get("weight") is None else scale * call.get("weight")


class _BatchNorm(torch.autograd.Function):
    """A batch norm as the model computes it; its way back is a product with the scale.

    PyTorch's own way back takes several times as long in channels-last memory on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, scale: Tensor) -> Tensor:
        ctx.scale = scale.view(-1, *(1,) * (x.ndim - 2))
        return call.run(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.scale, None, None


@dataclass(frozen=True, eq=False)
class Normaliser:
    """A layer, group or instance norm as (x − mean) · scale + shift, its scale held constant.

    ``grouped`` is the shape in which the means are those over ``dims``.
    """

    scale: Tensor
    shift: Tensor | None
    grouped: tuple[int, ...]
    dims: tuple[int, ...]

    def transpose(self, s: Tensor) -> Tensor:
        """The transpose of x ↦ (x − mean) · scale: centring is its own."""
        return _centred(s * self.scale, self.grouped, self.dims)


def normaliser_of(call: Call) -> Normaliser:
    """What a normalisation by the input's own mean and deviation did."""
    x, weight, shift = call.input, call.get("weight"), call.get("bias")
    if call.op == "layer_norm":
        grouped, dims = tuple(x.shape), tuple(range(-len(call.get("normalized_shape")), 0))
    else:
        groups = call.get("num_groups", x.shape[1])  # an instance norm has a group per channel
        grouped, dims = (x.shape[0], groups, x.shape[1:].numel() // groups), (2,)
        weight, shift = (
            None if v is None else v.view(-1, *(1,) * (x.ndim - 2)) for v in (weight, shift)
        )
    squares = _centred(x, grouped, dims).square().reshape(grouped)
    deviation = (squares.mean(dims, keepdim=True) + call.get("eps", 1e-5)).sqrt()
    scale = deviation.reciprocal().expand(grouped).reshape(x.shape)
    return Normaliser(scale if weight is None else scale * weight, shift, grouped, dims)


def _centred(x: Tensor, grouped: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    values = x.reshape(grouped)
    return (values - values.mean(dims, keepdim=True)).reshape(x.shape)


def attention_weights(call: Call) -> Tensor | None:
    """Whom every token of a dot-product attention listens to, ``[..., T, S]``, rows of sum 1.

    None where dropout is on or heads share keys.
    """
    if call.get("dropout_p", 0.0) or call.get("enable_gqa", False):
        return None
    query, key, mask = call.get("query"), call.get("key"), call.get("attn_mask")
    scale = call.get("scale")
    alike = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if call.get("is_causal", False):
        mask = torch.ones(alike.shape[-2:], dtype=torch.bool, device=alike.device).tril()
    if mask is not None:
        allowed = mask.dtype == torch.bool
        alike = alike.masked_fill(~mask, float("-inf")) if allowed else alike + mask
    return torch.softmax(alike, -1)


def cheap_second_order() -> Interposition:
    """A mode in which layers with constant weights differentiate cheaply, and all do at all.

    Values and derivatives are those of the model; layers whose parameters want gradients
    are left to PyTorch, which has no second derivative of hard-sigmoid and of fused
    attention: these are computed in steps that have one. It must be the outermost mode, so
    that every rule sees the layers.
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

    def hardsigmoid(call: Call) -> Tensor:
        return F.relu6(call.input + 3) / 6

    def attention(call: Call) -> Tensor:
        weights = attention_weights(call)
        return call.native() if weights is None else weights @ call.input

    return Interposition(
        {
            "conv": convolution,
            "conv_transpose": convolution,
            "batch_norm": batch_norm,
            "hardsigmoid": hardsigmoid,
            "attention": attention,
        }
    )


def cheap_first_order() -> Interposition:
    """A mode with a quick way back through the convolution that sees the picture (`subpixel`)
    and through batch norms. Values are those of the model.

    Only for gradients with respect to the picture, and of the first order: it gives none to
    parameters.
    """

    def convolution(call: Call) -> Tensor:
        weight = call.get("weight")
        if call.input.ndim != weight.ndim or weight.shape[1] > FEW:
            return call.native()
        layer, x = layer_of(call)
        if not suits(weight, layer.stride, layer.dilation, layer.groups):
            return call.native()
        bias = None if layer.bias is None else layer.bias.detach()
        return layer.apply(x, weight.detach(), bias)

    def batch_norm(call: Call) -> Tensor:
        scale = _batch_norm_scale(call)
        if scale is None:
            return call.native()
        return _BatchNorm.apply(call.input, call, scale.detach())

    return Interposition({"conv": convolution, "batch_norm": batch_norm})


def _wants_gradient(weight: Tensor | None, bias: Tensor | None) -> bool:
    return any(t is not None and t.requires_grad for t in (weight, bias))


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
