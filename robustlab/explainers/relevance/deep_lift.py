"""DeepLIFT: what each pixel contributes to the difference from a reference image."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Handler, Interposition, Phase, route
from robustlab.core.maps import Post
from robustlab.core.score import score_of
from robustlab.core.streaming import each_micro_batch, input_gradient, logits_of, micro_batch
from robustlab.core.types import About, Differentiable, Passes

Baseline = float | Literal["mean", "blur"]


@dataclass(frozen=True, kw_only=True)
class DeepLift:
    """DeepLIFT, rescale rule: a = (x − b) ⊙ m, where m carries differences instead of slopes.

    Image x and reference b run side by side. Every activation hands its multiplier on by
    the slope of its secant, Δout / Δin (Δ is image minus reference), in place of its
    derivative; the logit starts with 1. So the parts add up, Σ a = s(x) − s(b)
    (`completeness_gap`), where all operations are of these kinds:

    - linear ones (convolution, matrix, batch-norm in eval mode, sum, average, layout): as is.
    - activations and other functions of single values: the secant. Where |Δin| ≤ τ, the mean
      of the derivatives at x and b instead, whose own slope is right as well. With ε the
      machine epsilon, τ is ε^⅓ (6e-6 in float64, 4.9e-3 in float32), but for ReLU and what
      else is made of straight pieces ε^½ |in_x + in_b|, as zero must not lie in between.
    - max-pooling and ``amax``: a window's Δout goes to the place of the larger of its two
      maxima, over that place's Δin, which is never smaller. This is captum's rule, but
      overlapping windows add up, and values of a window that differ by less than ε^½ of
      themselves are a tie (the first wins): under a constant reference whole windows are
      equal but for rounding, which would choose another place on every processor.
    - products of two image-dependent tensors (an SE gate): Δ(uv) is shared as
      Δu·(v + v_b)/2 + Δv·(u + u_b)/2. The paper knows no such product. A quotient is a
      product with the reciprocal, and attention is written out.
    - softmax and the normalisations that use the image's own statistics: the mean of the
      derivatives at x and b, plus the least change that makes it complete: in each row,
      Δin·(what is missing)/|Δin|². Again beyond the paper.

    Anything else (``max`` along a dimension, masked attention) follows the mean of the
    derivatives at x and b, and Σ a is only near s(x) − s(b). Dimension 0 must be the batch.

    The reference: ``baseline`` is a constant pixel value (black = 0), the image's own *mean*
    per channel or its Gaussian *blur* (``blur_sigma`` pixels). An attack moves the last two
    along with the image, and derivatives know it. The score is the logit, as the paper
    advises: behind a softmax the multipliers of a saturated class vanish.

    Raw shape ``[B,C,H,W]``. Cost: 2 forward and 2 backward passes, of image and reference.
    Source: Shrikumar, Greenside & Kundaje 2017. Their RevealCancel rule is not offered.
    """

    about: ClassVar[About] = About(
        family="relevance",
        year=2017,
        source="Shrikumar, Greenside & Kundaje 2017, Learning important features",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    baseline: Baseline = 0.0
    blur_sigma: float = 10.0
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        if not self.blur_sigma > 0:
            raise InvalidInput("blur_sigma", f"must be above 0, got {self.blur_sigma}")

    def reference(self, images: Tensor) -> Tensor:
        """What each image is compared with, ``[B,C,H,W]``."""
        if self.baseline == "mean":
            return images.mean((2, 3), keepdim=True).expand_as(images)
        if self.baseline == "blur":
            return gaussian_blur(images, self.blur_sigma)
        return torch.full_like(images, self.baseline)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        def pairs(part: Tensor, labels: Tensor) -> Tensor:
            reference = self.reference(part)
            secants = _Secants(len(part))
            multipliers = input_gradient(
                model,
                torch.cat([part, reference]),
                labels.repeat(2),
                create_graph=create_graph,
                mode=_Paired(secants.handlers()),
                phase=secants.phase,
            )
            return (part - reference) * _mean(multipliers)

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            size = max(1, micro_batch(part) // 2)  # with as many references it fills the cache
            parts = zip(part.split(size), labels.split(size), strict=True)
            return torch.cat([pairs(*each) for each in parts])

        return each_micro_batch(images if create_graph else images.detach(), targets, run)

    def cost(self) -> Passes:
        return Passes(2, 2)


def completeness_gap(
    model: nn.Module, explainer: DeepLift, images: Tensor, targets: Tensor, raw: Tensor
) -> Tensor:
    """Σ a − (s(x) − s(b)) per image ``[B]``: 0 but for rounding if a rule met every operation.

    Two forward passes.
    """
    at_image, at_reference = (
        score_of(logits_of(model, points), targets)
        for points in (images, explainer.reference(images.detach()))
    )
    return raw.flatten(1).sum(1) - (at_image - at_reference)


def _resolution(values: Tensor) -> float:
    """A change below which a secant's own slope is mostly rounding, and a mean's is not."""
    return torch.finfo(values.dtype).eps ** (1 / 3)


def _near(pair: Tensor) -> Tensor:
    """Where a smooth function is better differentiated than divided."""
    return _difference(pair).abs_() <= _resolution(pair)


def _near_in_ratio(pair: Tensor) -> Tensor:
    """The same for straight pieces; values of opposite signs are never near each other."""
    image, reference = pair.chunk(2)
    ratio = torch.finfo(pair.dtype).eps ** 0.5
    return (image - reference).abs_() <= (image + reference).abs_().mul_(ratio)


class _Secants:
    """Multipliers for ``count`` images and, behind them in the batch, their references.

    Each half of a gradient is an estimate of the multiplier, which is the mean of both. A
    linear operation treats the halves alike; what is not linear is given equal halves, so
    that its plain derivative already is the mean of those at image and reference.
    """

    def __init__(self, count: int) -> None:
        self.phase = Phase()
        self._count = count

    def handlers(self) -> dict[str, Handler]:
        straight = ("relu", "relu6", "hardtanh", "clamp", "threshold")
        norms = ("layer_norm", "group_norm", "instance_norm", "rescale")
        return {
            **dict.fromkeys(straight, partial(self._single, near=_near_in_ratio)),
            **dict.fromkeys(("activation", "smooth_activation"), self._single),
            **dict.fromkeys(("max_pool", "adaptive_max_pool", "amax"), self._largest),
            **dict.fromkeys(("mul", "matmul", "product"), self._product),
            "div": self._quotient,
            **dict.fromkeys(("softmax", *norms), self._rows),
            "attention": self._attention,
        }

    def _single(self, call: Call, near: Callable[[Tensor], Tensor] = _near) -> Tensor:
        """A function of single values."""
        x, output = call.input, call.native()
        if not self._is_pair(output):
            return output

        def pulled(r: Tensor) -> tuple[Tensor, Tensor]:
            r, close = _mean(r), near(x)
            secant = _difference(output) / _difference(x).masked_fill_(close, 1)
            return _twice(torch.where(close, r, 0)), _twice((r * secant).masked_fill_(close, 0))

        return route(self.phase, output, pulled, x)

    def _largest(self, call: Call) -> Tensor:
        """The maximum of windows or whole dimensions."""
        x, output = call.input, call.native()
        if not self._is_pair(output):
            return output

        def pulled(r: Tensor) -> tuple[None, Tensor]:
            r, close, won = _mean(r), _near_in_ratio(x), _difference(output)
            to_image, to_reference = r * won.clamp(min=0), r * won.clamp(max=0)
            places = _coarse(x.detach())
            to_places = torch.cat([to_image, to_reference])
            shares = 2 * _mean(_pulled_back(call, to_places, places))
            slope = _mean(_pulled_back(call, _twice(r), places))
            secant = shares / _difference(x).masked_fill_(close, 1)
            return None, _twice(torch.where(close, slope, secant))

        return route(self.phase, output, pulled, x)

    def _product(self, call: Call) -> Tensor:
        return self._evened(call.native())

    def _evened(self, output: Tensor) -> Tensor:
        """Of what is linear in each of two factors the mean derivative is the secant."""
        if not self._is_pair(output):
            return output
        return route(self.phase, output, lambda r: (_twice(_mean(r)),))

    def _quotient(self, call: Call) -> Tensor:
        other = call.get("other")
        if not isinstance(other, Tensor) or not self._is_pair(other):
            return call.native()
        inverse = self._single(Call("activation", {"input": other}, torch.reciprocal))
        return self._evened(call.input * inverse)

    def _attention(self, call: Call) -> Tensor:
        """Softmax(Q Kᵀ / √d) V, each step by its own rule."""
        masked = call.get("attn_mask") is not None or call.get("is_causal", False)
        if masked or call.get("dropout_p", 0) or call.get("enable_gqa", False):
            return self._product(call)
        query, key = call.get("query"), call.get("key")
        scale = call.get("scale") or query.shape[-1] ** -0.5
        alike = {"input": self._evened(query @ key.mT * scale), "dim": -1}
        weights = self._rows(Call("softmax", alike, partial(torch.softmax, dim=-1)))
        return self._evened(weights @ call.input)

    def _rows(self, call: Call) -> Tensor:
        """A function of rows: Broyden's secant, the nearest to the mean of the derivatives."""
        x, output = call.input, call.native()
        if not self._is_pair(output):
            return output
        rows, dims = _rows_of(call)

        def pulled(r: Tensor) -> tuple[None, Tensor]:
            r, change = _mean(r), _difference(x)
            slope = _mean(_pulled_back(call, _twice(r), x))
            missing = (r * _difference(output) - slope * change).reshape(rows)
            length = change.square().reshape(rows).sum(dims, keepdim=True)
            close = length <= _resolution(x) ** 2
            share = missing.sum(dims, keepdim=True) / length.masked_fill(close, 1)
            share = torch.where(close, 0, share).expand_as(missing).reshape(change.shape)
            return None, _twice(slope + share * change)

        return route(self.phase, output, pulled, x)

    def _is_pair(self, output: Tensor) -> bool:
        """Images and references, and not what the model makes of its parameters alone."""
        flows = output.requires_grad and output.ndim > 0
        return flows and len(output) % (2 * self._count) == 0


def _rows_of(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """In which shape and along which dimensions the values of half a batch act on each other."""
    x = call.input
    shape = (len(x) // 2, *x.shape[1:])
    if call.op == "softmax":
        dim = call.get("dim")
        return shape, (1 if dim is None else dim,)
    if call.op == "layer_norm":
        return shape, tuple(range(-len(call.get("normalized_shape")), 0))
    groups = x.shape[1] if call.op == "instance_norm" else call.get("num_groups", 1)
    return (shape[0], groups, -1), (2,)


# Operations that nobody else gives a rule of its own.
_MORE: Final[dict[Callable[..., Any], tuple[str, tuple[str, ...]]]] = {
    **dict.fromkeys((torch.amax, torch.Tensor.amax), ("amax", ("input", "dim"))),
    **dict.fromkeys(
        (F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax), ("softmax", ("input", "dim"))
    ),
}


class _Paired(Interposition):
    """An interposition that recognises the operations above as well."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in _MORE:
            return super().__torch_function__(func, types, args, kwargs)
        op, names = _MORE[func]
        args = [self.current(a) for a in args]
        kwargs = {k: self.current(v) for k, v in (kwargs or {}).items()}
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        return self._handled(op, arguments, func, args, kwargs)


def _difference(pair: Tensor) -> Tensor:
    image, reference = pair.chunk(2)
    return image - reference


def _mean(pair: Tensor) -> Tensor:
    image, reference = pair.chunk(2)
    return torch.lerp(image, reference, 0.5)


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value])


def _pulled_back(call: Call, cotangent: Tensor, at: Tensor) -> Tensor:
    """The plain vector-Jacobian product of an operation, differentiable where that is wanted."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = at if keep_graph and at.requires_grad else at.detach().requires_grad_()
        (result,) = torch.autograd.grad(call.run(x), x, cotangent, create_graph=keep_graph)
    return result


def _coarse(values: Tensor) -> Tensor:
    """The order of values, in half of their digits (Veltkamp's splitting).

    Round pixels and weights of few digits lie halfway between such numbers far too often: hence
    the odd factor.
    """
    values = values * (math.pi / 3)
    digits = 1 - round(math.log2(torch.finfo(values.dtype).eps))
    large = values * (2.0 ** (digits - digits // 2) + 1)
    return large - (large - values)
