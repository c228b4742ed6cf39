"""Attention probabilities of a transformer, whoever computes them and wherever.

Fused attention never has the probabilities as a tensor. So while the model's forward runs,
`scaled_dot_product_attention` and `multi_head_attention_forward` are written out, with a
softmax between two matrix products, and softmaxes that the model writes out itself are seen.
The model is not touched; its logits stay the same up to rounding. PyTorch's fast paths of
`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` step aside while a mode is active.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from robustlab.core.errors import InvalidInput
from robustlab.core.wrapping import Wrapper

See = Callable[[Tensor], Tensor]

INSTEAD: Final = (
    "grad_cam works with any convolutional network, gradient and occlusion with any model"
)


class OpenAttention(Wrapper):
    """The model; ``layers`` has what its attention layers computed in the last run, in order.

    That is ``fuse`` of the probabilities ``[B, heads, T, T]``; without it the probabilities
    themselves, differentiable and part of the graph of the logits.
    """

    def __init__(self, inner: nn.Module, fuse: See | None = None) -> None:
        super().__init__(inner)
        self.layers: list[Tensor] = []
        self._fuse = fuse

    def forward(self, images: Tensor) -> Tensor:
        self.layers.clear()
        with _WrittenOut(lambda probabilities: self._see(probabilities, len(images))):
            logits: Tensor = self.inner(images)
        if not self.layers:
            problem = "no attention between tokens was seen: it is no vision transformer"
            raise InvalidInput("model", problem, INSTEAD)
        return logits

    def _see(self, probabilities: Tensor, count: int) -> Tensor:
        shape = tuple(probabilities.shape)
        tokens = self.layers[0].shape[-1] if self.layers else shape[-1]
        if (shape[0], *shape[2:]) != (count, tokens, tokens):
            problem = f"attention {shape} for {count} images: not all tokens attend to all others"
            raise InvalidInput("model", problem, INSTEAD)
        if self._fuse is not None:
            self.layers.append(self._fuse(probabilities))
            return probabilities
        if not probabilities.requires_grad:
            probabilities = probabilities.detach().requires_grad_()
        self.layers.append(probabilities)
        return probabilities


class _WrittenOut(TorchFunctionMode):
    """Shows attention probabilities to ``see`` and goes on with what it returns."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
            return _dot_product(self._see, **dict(zip(names, args, strict=False)), **kwargs)
        if func is F.multi_head_attention_forward:
            return _multi_head(self._see, _MULTI_HEAD.bind(*args, **kwargs).arguments)
        output = func(*args, **kwargs)
        if func in _SOFTMAX and _is_attention(output, *args[1:2], **kwargs):
            return self._see(output).clone()  # the model may write into it
        return output


_SOFTMAX: Final = {torch.softmax, torch.Tensor.softmax, F.softmax}
_MULTI_HEAD: Final = inspect.signature(F.multi_head_attention_forward)


def _is_attention(output: Tensor, dim: int | None = None, **_: object) -> bool:
    return output.ndim == 4 and dim in (-1, 3) and output.shape[2] == output.shape[3]


def _dot_product(
    see: See,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q Kᵀ · scale + mask) V, by default with scale 1/√d."""
    if dropout_p or is_causal or enable_gqa or query.ndim != 4:
        problem = "its attention has dropout, a causal mask, grouped heads or no heads at all"
        raise InvalidInput("model", problem, INSTEAD)
    alike = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        alike = alike.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        alike = alike + attn_mask
    return see(torch.softmax(alike, dim=-1)) @ value


_RARE: Final = (
    "bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "attn_mask", "is_causal",
    "use_separate_proj_weight", "static_k", "static_v",
)  # fmt: skip


def _multi_head(see: See, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention of tokens ``[T,B,width]`` with packed weights: what ViTs use."""
    used = [name for name in _RARE if not (given.get(name) is None or given[name] is False)]
    if used or given["query"].ndim != 3:
        problem = f"its nn.MultiheadAttention uses {', '.join(used) or 'no batch'}"
        raise InvalidInput("model", problem, INSTEAD)
    heads, bias = given["num_heads"], given["in_proj_bias"]
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    weights = given["in_proj_weight"].chunk(3)
    query, key, value = (
        F.linear(given[name], weight, b).unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
        for name, weight, b in zip(("query", "key", "value"), weights, biases, strict=True)
    )
    seen: list[Tensor] = []

    def keep(probabilities: Tensor) -> Tensor:
        seen.append(see(probabilities))
        return seen[0]

    dropout = given["dropout_p"] if given.get("training", True) else 0.0
    mixed = _dot_product(keep, query, key, value, dropout_p=dropout).permute(2, 0, 1, 3)
    output = F.linear(mixed.flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    if not given.get("need_weights", True):
        return output, None
    return output, seen[0].mean(1) if given.get("average_attn_weights", True) else seen[0]
