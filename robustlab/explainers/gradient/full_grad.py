"""Full-gradient representation: what the pixels and every bias contribute to the score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.interposition import Call, Handler, Interposition, Phase, route
from robustlab.core.linear import batch_norm_affine
from robustlab.core.maps import TINY, Post
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import each_micro_batch, input_gradient, logits_of
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.relevance.walk import depends_on_image


@dataclass(frozen=True, kw_only=True)
class FullGrad:
    """FullGrad: a = Σ_c ψ(x ⊙ ∂s/∂x) + Σ_l Σ_c ψ(b_l ⊙ ∂s/∂z_l) over layers l with output z_l.

    ψ is the absolute value, scaled to [0, 1] by the least and largest of the term's values in
    an image, over all channels together, and upsampled bilinearly to the image. b_l is where
    the local linearisation of the layer meets zero: the bias of a convolution; of a batch-norm
    β − γ·mean/√(var + ε); of an activation φ(z) − φ'(z) z, which is 0 for a ReLU and not for
    a ReLU6 or SiLU; a constant that the model adds; and −x⊙y for a product of two features.
    Completeness, before ψ: all terms together are the score; see `completeness_gap`. The
    softplus stand-in of an attack has the biases of the ReLU or ReLU6 that it stands for: ψ
    would give its own bend the weight of a layer, and an attack would chase what is not there.

    The model's own normalisation belongs to the first term, so that it is the paper's, in
    which the input is normalised. Terms without a spatial extent (matrices, pooled features)
    are complete but not drawn, as the authors' code draws none of its matrices; outputs are
    taken as channels first. Deviations from that code: implicit biases of activations, of
    which it has none; upsampling with ``align_corners=False``, as everywhere in the lab;
    no constant in the scale's denominator, which would erase the map of a saturated softmax.

    Raw shape ``[B,1,H,W]``, never negative. The absolute value and the extremes have kinks,
    elsewhere the derivative is exact. Cost: 1 forward and 1 backward pass, and reading the
    terms off (at worst about a pass more, on nets with little work per unit).
    Source: Srinivas & Fleuret 2019.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2019,
        source="Srinivas & Fleuret 2019, Full-gradient representation",
        needs="convolutions, for more than its first term",
    )
    differentiable: ClassVar[Differentiable] = "exact"
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
        size = images.shape[-2:]
        return _sum_of_terms(
            model, images, targets, self.score, lambda term: _drawn(term, size), create_graph
        )

    def cost(self) -> Passes:
        return Passes(1, 1)


def completeness_gap(
    model: nn.Module, explainer: FullGrad, images: Tensor, targets: Tensor
) -> Tensor:
    """Σ of all terms before ψ, minus the score, per image ``[B]``.

    0 up to rounding for the scores logit and margin wherever all biases are known: of
    convolutions, matrices, batch-norm in evaluation mode, activations, added constants and
    products. Other layers with a bias (layer-norm, transposed convolutions, softmax inside
    the model) leave a gap, and so does the softmax of the other scores.
    Cost: 2 forward and 1 backward pass.
    """
    total = _sum_of_terms(
        model, images, targets, explainer.score, lambda term: term.flatten(1).sum(1), False
    )
    return total - score_of(logits_of(model, images), targets, explainer.score)


def _sum_of_terms(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    score: Score,
    reduce: Callable[[Tensor], Tensor],
    create_graph: bool,
) -> Tensor:
    """Σ ``reduce(term)`` over the terms of the full gradient, one backward pass for all."""

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        part = part if create_graph else part.detach()
        walk = _BiasWalk(reduce)
        if part.requires_grad:  # still the image if a parameter made it
            part = route(walk.phase, part, lambda r: (r,))
        gradient = input_gradient(
            model,
            part,
            labels,
            score=score,
            create_graph=create_graph,
            mode=Interposition(walk.handlers()),
            phase=walk.phase,
        )
        return walk.total + reduce(part * gradient + walk.at_image)

    return each_micro_batch(images, targets, run)


def _drawn(term: Tensor, size: tuple[int, ...]) -> Tensor:
    """Σ_c ψ(term) ``[B,1,H,W]``; 0 for a term that has no place in the image."""
    if term.ndim != 4 or term.shape[-1] * term.shape[-2] == 1:
        return term.new_zeros(len(term), 1, *size)
    magnitudes = term.abs()
    low, high = (f(magnitudes, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    # scaled after the sum over channels: the same, but in fewer passes over the memory
    summed = magnitudes.sum(1, keepdim=True) - term.shape[1] * low
    scaled = summed / (high - low).clamp(min=TINY)
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False)


_ELEMENTWISE: Final = ("activation", "hardtanh", "clamp", "threshold")
# (operation, does the first operand flow from the image?, the second?) → intercept / output:
# that of x·y is x·y − x·∂x − y·∂y = −x·y, and so on
_BENT: Final = {("mul", True, True): -1.0, ("div", True, True): 1.0, ("div", False, True): 2.0}


class _BiasWalk:
    """Reads b ⊙ ∂s/∂z off the explaining backward pass, at every layer it comes through.

    Terms are reduced as they arrive, so that none is kept. Those of the model's own
    normalisation go to ``at_image``: they have the shape of the image and belong to its term.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor]) -> None:
        self.phase = Phase()
        self.total, self.at_image = torch.zeros(()), torch.zeros(())
        self._reduce = reduce
        self._pixels: dict[int, Tensor] = {}  # the image up to constants; kept, so ids stay valid

    def handlers(self) -> dict[str, Handler]:
        """What to do with each operation that may have a bias."""
        plain: dict[str, Callable[[Call], Tensor]] = {
            "conv": self._conv,
            "linear": lambda call: self._biased(call.native(), call.get("bias")),
            "batch_norm": self._batch_norm,
            "relu6": lambda call: self._clipped(call, 6.0),
            "smooth_activation": lambda call: self._clipped(call, call.get("ceiling")),
            **dict.fromkeys(_ELEMENTWISE, self._activation),
            **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), self._combined),
            "layout": lambda call: self._still_pixels(call.input, call.native()),
        }
        return {op: self._watching(handler) for op, handler in plain.items()}

    def _watching(self, handler: Handler) -> Handler:
        def handle(call: Call) -> Tensor:
            flowing = [t for t in (call.input, call.get("other")) if depends_on_image(t)]
            if not flowing:
                return call.native()
            if not self._pixels:  # the engine's own copy of the image comes before any layer
                self._pixels[id(flowing[0])] = flowing[0]
            return handler(call)

        return handle

    def _conv(self, call: Call) -> Tensor:
        bias = call.get("bias")
        if bias is not None:
            bias = _per_channel(bias, call.get("weight").ndim)
        return self._biased(call.native(), bias)

    def _batch_norm(self, call: Call) -> Tensor:
        output, affine = call.native(), batch_norm_affine(call)
        return self._biased(output, affine and _per_channel(affine[1], output.ndim))

    def _clipped(self, call: Call, ceiling: float | None) -> Tensor:
        """A ReLU has no bias below its ceiling and is constant above; so is its stand-in's."""
        output = call.native()
        return self._biased(output, ceiling and ceiling * (call.input > ceiling))

    def _activation(self, call: Call) -> Tensor:
        """The intercept φ(z) − φ'(z) z, from the gradients after and before: φ r − z (φ' r)."""
        after: list[Tensor] = []

        def came_out(r: Tensor) -> tuple[Tensor]:
            after.append(output * r)
            return (r,)

        def went_in(r: Tensor) -> tuple[Tensor]:
            self._add(_intercept(after.pop(), call.input, r))
            return (r,)

        output = call.run(route(self.phase, call.input, went_in))
        return route(self.phase, output, came_out)

    def _combined(self, call: Call) -> Tensor:
        """Constants are biases; products and quotients of two features are not linear."""
        a, b, output = call.input, call.get("other"), call.native()
        flow = depends_on_image(a), depends_on_image(b)
        if (call.op, *flow) in _BENT:
            return self._biased(output, _BENT[call.op, *flow] * output)
        if all(flow):
            return output
        x, constant = (a, b) if flow[0] else (b, a)
        if call.op not in ("mul", "div"):
            constant = constant * call.get("alpha", 1) if x is a else constant
            negative = call.op == ("sub" if x is a else "rsub")
            output = self._biased(output, -constant if negative else constant, x)
        return self._still_pixels(x, output)

    def _biased(self, output: Tensor, bias: Any, x: Tensor | None = None) -> Tensor:
        """``output`` again; bias ⊙ gradient is added up once the gradient comes through."""
        if bias is None:
            return output
        at_image = self._is_pixels(x, output)

        def arrived(r: Tensor) -> tuple[Tensor]:
            if at_image:
                self.at_image = self.at_image + bias * r
            else:
                self._add(bias * r)
            return (r,)

        return route(self.phase, output, arrived)

    def _still_pixels(self, x: Tensor, output: Tensor) -> Tensor:
        if self._is_pixels(x, output):
            self._pixels[id(output)] = output
        return output

    def _is_pixels(self, x: Tensor | None, output: Tensor) -> bool:
        return x is not None and id(x) in self._pixels and output.shape == x.shape

    def _add(self, term: Tensor) -> None:
        self.total = self.total + self._reduce(term)


def _per_channel(bias: Tensor, dims: int) -> Tensor:
    return bias.view(-1, *(1,) * (dims - 2))


def _intercept(after: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """after − x·r, but 0 in an image where it is rounding: ψ would give that its full weight."""
    term = torch.addcmul(after, x, r, value=-1)
    floor = 8 * torch.finfo(after.dtype).eps * _largest(after)
    return term * (_largest(term) > floor)


def _largest(values: Tensor) -> Tensor:
    """Largest absolute value in each image ``[B,1,..,1]``, without a copy of them all."""
    dims, values = tuple(range(1, values.ndim)), values.detach()
    if not dims:
        return values.abs()
    return torch.maximum(values.amax(dims, keepdim=True), -values.amin(dims, keepdim=True))
