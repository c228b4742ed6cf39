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
    β − γ·mean/√(var + ε); of an activation or another normalisation φ(z) − φ'(z) z, which is
    0 for a ReLU and not for a ReLU6 or SiLU; a constant that the model adds; and −x⊙y for a
    product of two features.
    Completeness, before ψ: all terms together are the score; see `completeness_gap`. The
    softplus stand-in of an attack has the biases of the ReLU or ReLU6 that it stands for: ψ
    would give its own bend the weight of a layer, and an attack would chase what is not there.

    The model's own normalisation belongs to the first term, so that it is the paper's, in
    which the input is normalised. Pooled features, matrices, layer-norms and what is activated
    right behind these have no place in the image or do not say which: they count for
    completeness and are not drawn, as the authors' code draws no matrices. Deviations from
    that code: implicit biases of activations, of which it has none; upsampling with
    ``align_corners=False``, as everywhere in the lab; no constant in the scale's denominator,
    which would erase the map of a saturated softmax.

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
    convolutions, matrices, normalisations (batch-norm in evaluation mode), activations, added
    constants and products. Attention in one call leaves a gap, and so does the softmax of the
    other scores.
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
        terms = _Terms(reduce)
        walk = _BiasWalk(terms)
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
        return terms.with_pixels(part * gradient)

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


class _Terms:
    """The sum of terms, each reduced as it arrives, so that none is kept.

    Those of the model's own normalisation, ``at_image``, have the shape of the image and wait
    for its term.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor]) -> None:
        self._reduce = reduce
        self._total, self._at_image = torch.zeros(()), torch.zeros(())

    def add(self, term: Tensor, at_image: bool = False) -> None:
        if at_image:
            self._at_image = self._at_image + term
        else:
            self._total = self._total + self._reduce(term)

    def with_pixels(self, term: Tensor) -> Tensor:
        """The sum with the image's own term. Lets go of its graph, which refers to this."""
        total = self._total + self._reduce(term + self._at_image)
        self._total, self._at_image = torch.zeros(()), torch.zeros(())
        return total


# what keeps its input's shape and has an intercept of its own
_SHAPED: Final = (
    "activation", "hardtanh", "clamp", "threshold", "softmax", "group_norm", "instance_norm",
    "rescale",
)  # fmt: skip
# (operation, does the first operand flow from the image?, the second?) → intercept / output:
# that of x·y is x·y − x·∂x − y·∂y = −x·y, and so on
_BENT: Final = {
    ("mul", True, True): -1.0,
    ("matmul", True, True): -1.0,
    ("div", True, True): 1.0,
    ("div", False, True): 2.0,
}


class _BiasWalk:
    """Follows one forward pass; on the way back b ⊙ ∂s/∂z is read off at every layer.

    What it leaves behind for that refers to the terms and never to the walk, which remembers
    tensors of the graph: in such a circle the graph would outlive its use.
    """

    def __init__(self, terms: _Terms) -> None:
        self.phase = Phase()
        self._terms = terms
        # by id, and kept so that ids stay their own: the image up to constants in place, and
        # features whose channels come last
        self._pixels: dict[int, Tensor] = {}
        self._unplaced: dict[int, Tensor] = {}

    def handlers(self) -> dict[str, Handler]:
        """What to do with each operation that may have a bias."""
        plain: dict[str, Handler] = {
            **dict.fromkeys(("conv", "conv_transpose"), self._conv),
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "relu6": lambda call: self._clipped(call, 6.0),
            "smooth_activation": lambda call: self._clipped(call, call.get("ceiling")),
            **dict.fromkeys(_SHAPED, self._shaped),
            "layer_norm": self._layer_norm,
            **dict.fromkeys(("add", "sub", "rsub"), self._sum),
            **dict.fromkeys(("mul", "div", "matmul"), self._product),
            "layout": self._moved,
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

    # --- layers ------------------------------------------------------------------------------

    def _conv(self, call: Call) -> Tensor:
        bias = call.get("bias")
        if bias is None:
            return call.native()
        return self._biased(call.native(), _per_channel(bias, call.get("weight").ndim))

    def _linear(self, call: Call) -> Tensor:
        bias, output = call.get("bias"), call.native()
        return self._without_place(output if bias is None else self._biased(output, bias, False))

    def _batch_norm(self, call: Call) -> Tensor:
        output, affine = call.native(), batch_norm_affine(call)
        if affine is None:
            return output
        return self._biased(output, _per_channel(affine[1], output.ndim))

    def _clipped(self, call: Call, ceiling: float | None) -> Tensor:
        """A ReLU has no bias below its ceiling and is constant above; so is its stand-in's."""
        output = call.native()
        if ceiling is None:
            return output
        return self._biased(output, ceiling * (call.input > ceiling), self._placed(call.input))

    def _shaped(self, call: Call) -> Tensor:
        return self._bending(call, self._placed(call.input))

    def _layer_norm(self, call: Call) -> Tensor:
        return self._without_place(self._bending(call, False))

    # --- sums, products and what only moves values -------------------------------------------

    def _sum(self, call: Call) -> Tensor:
        """Added constants are biases."""
        a, b, output = call.input, call.get("other"), call.native()
        flow = depends_on_image(a), depends_on_image(b)
        if all(flow):
            return output
        x, constant = (a, b * call.get("alpha", 1)) if flow[0] else (b, a)
        if call.op == ("sub" if flow[0] else "rsub"):
            constant = -constant
        at_image = self._is_pixels(x, output)
        output = self._biased(output, constant, self._placed(x), at_image)
        return self._as_pixels(output) if at_image else output

    def _product(self, call: Call) -> Tensor:
        """A product or quotient is linear in one feature and bent where two of them meet."""
        a, b, output = call.input, call.get("other"), call.native()
        flow = depends_on_image(a), depends_on_image(b)
        x = a if flow[0] else b
        if (call.op, *flow) in _BENT:
            return self._biased(output, _BENT[call.op, *flow] * output, self._placed(x))
        kept = call.op != "matmul" and self._is_pixels(x, output)
        return self._as_pixels(output) if kept else output

    def _moved(self, call: Call) -> Tensor:
        x, output = call.input, call.native()
        if self._is_pixels(x, output):
            # a flip or a swap of channels has the same shape: where would every place go?
            places = torch.arange(x.numel(), device=x.device).view(x.shape)
            if torch.equal(call.run(places), places):
                return self._as_pixels(output)
        return output

    # --- reading off -------------------------------------------------------------------------

    def _biased(
        self, output: Tensor, bias: Any, placed: bool = True, at_image: bool = False
    ) -> Tensor:
        """``output`` again; bias ⊙ gradient is added up once the gradient comes through."""
        terms = self._terms

        def arrived(r: Tensor) -> tuple[Tensor]:
            term = bias * r
            terms.add(term if placed else term.flatten(1), at_image)
            return (r,)

        return route(self.phase, output, arrived)

    def _bending(self, call: Call, placed: bool) -> Tensor:
        """The intercept φ(z) − φ'(z) z, from the gradients after and before: φ r − z (φ' r)."""
        terms, x = self._terms, call.input
        after: list[Tensor] = []

        def came_out(r: Tensor) -> tuple[Tensor]:
            after.append(output * r)
            return (r,)

        def went_in(r: Tensor) -> tuple[Tensor]:
            term = _intercept(after.pop(), x, r)
            terms.add(term if placed else term.flatten(1))
            return (r,)

        output = call.run(route(self.phase, x, went_in))
        return route(self.phase, output, came_out)

    # --- bookkeeping -------------------------------------------------------------------------

    def _is_pixels(self, x: Tensor, output: Tensor) -> bool:
        return id(x) in self._pixels and output.shape == x.shape

    def _as_pixels(self, output: Tensor) -> Tensor:
        self._pixels[id(output)] = output
        return output

    def _placed(self, x: Tensor) -> bool:
        return id(x) not in self._unplaced

    def _without_place(self, output: Tensor) -> Tensor:
        self._unplaced[id(output)] = output
        return output


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
