"""How relevance walks through any network, by interposition.

No canonisers and no per-architecture code: layers, activations, sums, gates, normalisations
and attention are recognised as the model computes, whether modules or functions spell them.
What moves values without changing them (concatenation, slicing, max-pooling, padding,
dropout in evaluation mode) needs no rule: its plain derivative hands relevance on unchanged.
What is none of this follows its plain derivative as well, which may create or destroy
relevance: conservation tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.interposition import Call, Handler, Phase, Pullback, is_route, route
from robustlab.core.linear import (
    Layer,
    attention_weights,
    batch_norm_affine,
    layer_of,
    normaliser_of,
    product_layer,
    transposed,
)
from robustlab.explainers.relevance.rules import STABILISER, Rule, over

# (kind of layer, "conv" or "linear"; does it see the image?) -> rule
Assignment = Callable[[str, bool], Rule]
# a factor or summand, and the operation as a function of it alone
Operand = tuple[Tensor, Callable[[Tensor], Tensor]]

_PASSING: Final = (
    "relu", "relu6", "smooth_activation", "activation", "hardtanh", "clamp", "threshold",
    "softmax", "rescale",
)  # fmt: skip

# Of two factors the one that went through the function of higher rank is the gate.
_GATE_RANK: Final = {
    **dict.fromkeys(("softmax", "sigmoid", "hardsigmoid"), 2),
    **dict.fromkeys(("tanh", "erf", "relu6", "hardtanh", "clamp"), 1),
}
_MEANS: Final = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_ADAPTIVE_MEANS: Final = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Known:
    """What the walk remembers of a tensor, together with it, so that its id stays its own.

    Attributes:
        layer: the layer and input that it is the output of; constants may be folded in.
        box: where it is the image up to constants, what black and white pixels become there.
        gate: rank of the squashing function that it came out of, 0 if of none.
    """

    tensor: Tensor
    layer: tuple[Layer, Tensor] | None = None
    box: tuple[Tensor, Tensor] | None = None
    gate: int = 0


class RelevanceWalk:
    """Follows one forward pass and leaves relevance rules behind for its backward pass.

    What it leaves behind never refers to the walk, which remembers tensors of the graph: a
    graph in such a circle would stay in memory until the garbage collector finds it.

    Args:
        assign: the rule of each convolution and matrix.
        bias: whether constants that no such layer can fold in absorb their share of
            relevance: the shift of a batch-norm or normalisation, an added constant.
        stabiliser: ε of all that has no rule of its own: sums, averages, normalisations.
        sum_pool: treat max-pooling as if it summed, instead of giving all to the winner.
        absorbed: if given, each kind of operation adds up here what it did not hand on.
    """

    def __init__(
        self,
        assign: Assignment,
        *,
        bias: bool = False,
        stabiliser: float = STABILISER,
        sum_pool: bool = False,
        absorbed: dict[str, Tensor] | None = None,
    ) -> None:
        self.phase = Phase()
        self._assign = assign
        self._bias = bias
        self._share = partial(over, epsilon=stabiliser)
        self._sum_pool = sum_pool
        self._absorbed = absorbed
        self._known: dict[int, _Known] = {}

    def handlers(self) -> dict[str, Handler]:
        """What to do with each operation; the first tensor that any of them meets is the image."""
        plain: dict[str, Handler] = {
            **dict.fromkeys(_PASSING, self._pass),
            **dict.fromkeys(("conv", "conv_transpose", "linear"), self._linear),
            **dict.fromkeys(("matmul", "product", "addmm"), self._contraction),
            "batch_norm": self._batch_norm,
            **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), self._normalisation),
            "attention": self._attention,
            **dict.fromkeys(("add", "sub", "rsub"), self._sum),
            **dict.fromkeys(("mul", "div", "neg"), self._product),
            **dict.fromkeys(("avg_pool", "interpolate"), self._average),
            **dict.fromkeys(("pad", "layout"), self._moved),
        }
        if self._sum_pool:
            plain |= dict.fromkeys(("max_pool", "adaptive_max_pool"), self._max_pool)
        return {op: self._watching(handler) for op, handler in plain.items()}

    def _watching(self, handler: Handler) -> Handler:
        def handle(call: Call) -> Tensor:
            flowing = _flowing(call)
            if not flowing:
                return call.native()
            if not self._known:
                image = flowing[0][0]
                black = torch.zeros((1,) * image.ndim).to(image)
                self._note(image, box=(black, black + 1))
            return handler(call)

        return handle

    # --- layers ------------------------------------------------------------------------------

    def _linear(self, call: Call) -> Tensor:
        if call.get("weight").ndim < 2:
            return call.native()
        layer, x = layer_of(call)
        output = call.native() if x is call.input else layer.apply(x, layer.weight, layer.bias)
        return self._ruled(layer, x, output)

    def _contraction(self, call: Call) -> Tensor:
        """Matrix products and einsum: with constants a layer, of two features as `_product`."""
        output, flowing = call.native(), _flowing(call)
        if not _is_product(call, flowing):
            return output
        if len(flowing) == 1:
            x = flowing[0][0]
            return self._ruled(product_layer(call, x), x, output)
        signals, share = self._signals(flowing), self._share

        def shared(r: Tensor) -> tuple[Tensor | None, ...]:
            s = share(r / len(signals), output)
            return None, *(x * transposed(product, x, s) for x, product in signals)

        return self._hand_on(call.op, output, shared, *(x for x, _ in signals))

    def _ruled(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        box = self._of(x).box
        rule = self._assign("linear" if layer.kind == "linear" else "conv", box is not None)

        def relevance(r: Tensor) -> tuple[None, Tensor]:
            return None, rule.relevance(layer, x, output, r, box)

        ruled = self._hand_on(layer.kind, output, relevance, x)
        if layer.kind != "affine":
            self._note(ruled, layer=(layer, x))
        return ruled

    def _folded(self, x: Tensor, output: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
        """``output = scale · x + shift`` as part of the layer that made ``x``, if it can be."""
        known = self._of(x).layer
        if known is None or known[0].contract is not None or output.shape != x.shape:
            return None
        layer, source = known
        each = [_per_channel(v, x, 1 if layer.kind == "conv" else -1) for v in (scale, shift)]
        if each[0] is None or each[1] is None:
            return None
        return self._ruled(layer.folded(each[0], each[1]), source, output)

    # --- normalisations ----------------------------------------------------------------------

    def _batch_norm(self, call: Call) -> Tensor:
        """Part of the layer before it; a layer of its own where there is none."""
        output, x, affine = call.native(), call.input, batch_norm_affine(call)
        if affine is None:  # in training mode; to run it again would count the batch twice
            return self._hand_on(call.op, output, lambda r: (None, r), x)
        scale, shift = (v.view(-1, *(1,) * (x.ndim - 2)) for v in affine)
        folded = self._folded(x, output, scale, shift)
        if folded is not None:
            return folded
        if self._of(x).box is not None or not self._bias:
            return self._passed(call, output, (x, lambda v: call.run(v.expand(x.shape))))
        return self._ruled(Layer("affine", scale, shift), x, output)

    def _normalisation(self, call: Call) -> Tensor:
        """Linear while its deviation is held constant, so that it shares by LRP-ε."""
        if not call.get("use_input_stats", True):
            return self._batch_norm(call)
        output, x, share, bias = call.native(), call.input, self._share, self._bias

        def shared(r: Tensor) -> tuple[None, Tensor]:
            normaliser = normaliser_of(call)
            left_out = None if bias else normaliser.shift
            z = output if left_out is None else output - left_out
            return None, x * normaliser.transpose(share(r, z))

        return self._hand_on(call.op, output, shared, x)

    # --- sums, products, attention -----------------------------------------------------------

    def _sum(self, call: Call) -> Tensor:
        """Summands share in proportion; a constant absorbs its share or leaves all to the other."""
        output, flowing = call.native(), _flowing(call)
        if len(flowing) == 1:
            folded = self._with_constant(output, flowing[0])
            if folded is not None:
                return folded
            if self._of(flowing[0][0]).box is not None or not self._bias:
                return self._passed(call, output, flowing[0])
        alpha = call.get("alpha", 1)
        signs = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.op]
        pairs = zip(signs, (call.input, call.get("other")), strict=True)
        summands, share = [(sign, t) for sign, t in pairs if depends_on_image(t)], self._share

        def shared(r: Tensor) -> tuple[Tensor | None, ...]:
            s = share(r, output)
            return None, *(
                (t * s if sign == 1 else sign * t * s).sum_to_size(t.shape) for sign, t in summands
            )

        total = self._hand_on("sum", output, shared, *(t for _, t in summands))
        if len(flowing) == 1:
            self._note(total, gate=self._of(flowing[0][0]).gate)
        return total

    def _product(self, call: Call) -> Tensor:
        """Factors that are constant or gates are weights: the signal takes all."""
        output, flowing = call.native(), _flowing(call)
        if len(flowing) == 1:
            inverse = call.op == "div" and flowing[0][0] is not call.input
            folded = None if inverse else self._with_constant(output, flowing[0])
            return self._passed(call, output, flowing[0]) if folded is None else folded
        signals = flowing[:1] if call.op == "div" else self._signals(flowing)

        def shared(r: Tensor) -> tuple[Tensor | None, ...]:
            return None, *((r / len(signals)).sum_to_size(x.shape) for x, _ in signals)

        return self._hand_on(call.op, output, shared, *(x for x, _ in signals))

    def _with_constant(self, output: Tensor, operand: Operand) -> Tensor | None:
        """An affine operation, folded into the layer before it if it acts on whole channels."""
        x, affine = operand
        if self._of(x).layer is None:
            return None
        shift = affine(x.new_zeros(()))
        return self._folded(x, output, affine(x.new_ones(())) - shift, shift)

    def _signals(self, factors: Sequence[Operand]) -> Sequence[Operand]:
        """The factor that relevance goes to; both, by halves, where neither is a gate.

        The gate is the one that was squashed, by the narrower function if both were, else
        the one that is broadcast.
        """
        a, b = (x for x, _ in factors)
        gate_first = self._of(a).gate - self._of(b).gate or _values(b) - _values(a)
        return factors if gate_first == 0 else factors[1:] if gate_first > 0 else factors[:1]

    def _attention(self, call: Call) -> Tensor:
        """Whom a token attends to is a gate: relevance goes to the values."""
        weights, values = attention_weights(call), call.input
        if weights is None:
            return call.native()
        output, share = weights @ values, self._share

        def shared(r: Tensor) -> tuple[None, Tensor]:
            back = weights.mT @ share(r, output)
            return None, values * back.sum_to_size(values.shape)

        return self._hand_on(call.op, output, shared, values)

    # --- what has no weights -----------------------------------------------------------------

    def _pass(self, call: Call) -> Tensor:
        op, x = call.op, call.input
        if op == "smooth_activation" and call.get("ceiling") is not None:
            op = "relu6"
        passed = self._hand_on(call.op, call.native(), lambda r: (None, r), x)
        clipped = op in ("relu", "relu6", "clamp", "hardtanh")
        self._note(
            passed, gate=_GATE_RANK.get(op, 0), box=self._box(x, call.run) if clipped else None
        )
        return passed

    def _passed(self, call: Call, output: Tensor, operand: Operand) -> Tensor:
        """An operation with constants: relevance goes on unchanged, and so does the box."""
        x, run = operand
        passed = self._hand_on(call.op, output, lambda r: (None, r.sum_to_size(x.shape)), x)
        self._note(passed, gate=self._of(x).gate, box=self._box(x, run))
        return passed

    def _average(self, call: Call) -> Tensor:
        """Means, sums and resizing share in proportion; where they see the image, evenly."""
        output, x = call.native(), call.input
        at_image, share = self._of(x).box is not None, self._share

        def shared(r: Tensor) -> tuple[None, Tensor]:
            z = call.run(torch.ones_like(x)) if at_image else output
            back = transposed(call.run, x, share(r, z))
            return None, back if at_image else x * back

        averaged = self._hand_on(call.op, output, shared, x)
        self._note(averaged, box=self._box(x, call.run, whole=True))
        return averaged

    def _max_pool(self, call: Call) -> Tensor:
        """As if it summed: in proportion to what is in the window. Dilated ones have a winner."""
        output, x = call.native(), call.input
        means, share = _means_of_windows(call), self._share
        if means is None:
            return output

        def shared(r: Tensor) -> tuple[None, Tensor]:
            return None, x * transposed(means, x, share(r, means(x)))

        return self._hand_on(call.op, output, shared, x)

    def _moved(self, call: Call) -> Tensor:
        """The same values in other places: relevance follows by itself."""
        output, x = call.native(), call.input
        if output is not x:
            self._note(output, gate=self._of(x).gate, box=self._box(x, call.run, whole=True))
        return output

    # --- bookkeeping -------------------------------------------------------------------------

    def _hand_on(self, name: str, output: Tensor, pullback: Pullback, *inputs: Tensor) -> Tensor:
        absorbed = self._absorbed
        if absorbed is None:
            return route(self.phase, output, pullback, *inputs)

        def noted(r: Tensor) -> tuple[Tensor | None, ...]:
            handed = pullback(r)
            kept = r.sum() - torch.stack([g.sum() for g in handed if g is not None]).sum()
            absorbed[name] = absorbed.get(name, kept.new_zeros(())) + kept.detach()
            return handed

        return route(self.phase, output, noted, *inputs)

    def _of(self, tensor: Tensor) -> _Known:
        return self._known.get(id(tensor)) or _Known(tensor)

    def _note(
        self,
        tensor: Tensor,
        layer: tuple[Layer, Tensor] | None = None,
        box: tuple[Tensor, Tensor] | None = None,
        gate: int = 0,
    ) -> None:
        if layer or box or gate:
            self._known[id(tensor)] = _Known(tensor, layer, box, gate)

    def _box(
        self, x: Tensor, run: Callable[[Tensor], Tensor], whole: bool = False
    ) -> tuple[Tensor, Tensor] | None:
        """Where ``run`` leads the box of ``x``; ``whole`` if it needs tensors of that shape."""
        box = self._of(x).box
        if box is None:
            return None
        with torch.no_grad():
            ends = [run(torch.empty_like(x).copy_(v) if whole else v) for v in box]
        return torch.minimum(*ends), torch.maximum(*ends)


def _flowing(call: Call) -> list[Operand]:
    """The operands that depend on the image."""
    x, other = call.input, call.get("other")
    operands: list[Operand] = [(x, call.run)] if depends_on_image(x) else []
    if depends_on_image(other):
        operands.append((other, lambda value: call.run(x, other=value)))
    return operands


def _is_product(call: Call, flowing: Sequence[Operand]) -> bool:
    """Of two tensors and nothing else but a constant bias, as of a layer."""
    if call.op != "addmm":
        return isinstance(call.get("other"), Tensor) and call.get("third") is None
    scaled = call.get("alpha", 1) != 1 or call.get("beta", 1) != 1
    like_a_layer = len(flowing) == 1 and flowing[0][0] is call.input
    return like_a_layer and not scaled and not depends_on_image(call.get("bias"))


def depends_on_image(value: object) -> bool:
    """Does it flow from the image? Parameters want gradients too, and so does what is made of
    them alone; whatever a rule has touched, or has a leaf that is no parameter, flows.
    """
    if not isinstance(value, Tensor) or not value.requires_grad:
        return False
    if value.grad_fn is None:
        return not isinstance(value, nn.Parameter)
    waiting, seen = [value.grad_fn], {value.grad_fn}
    while waiting:
        node = waiting.pop()
        if is_route(node):
            return True
        if hasattr(node, "variable") and not isinstance(node.variable, nn.Parameter):
            return True
        fresh = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= fresh
        waiting += fresh
    return False


def _means_of_windows(call: Call) -> Callable[[Tensor], Tensor] | None:
    """Average pooling over the windows of a max-pooling, if there is such a function."""
    dims = call.input.ndim - 2
    if call.op == "adaptive_max_pool":
        return partial(_ADAPTIVE_MEANS[dims], output_size=call.get("output_size"))
    if call.get("dilation", 1) not in (1, (1,) * dims) or call.get("return_indices", False):
        return None
    names = ("kernel_size", "stride", "padding", "ceil_mode")
    return partial(_MEANS[dims], **{n: call.get(n) for n in names if call.get(n) is not None})


def _per_channel(value: Tensor, x: Tensor, axis: int) -> Tensor | None:
    """``value`` as one number for each of the channels of ``x``, if that is what it is."""
    channels = x.shape[axis]
    if value.numel() == 1:
        return value.reshape(()).expand(channels)
    shape = (1,) * (x.ndim - value.ndim) + tuple(value.shape)
    return value.flatten() if value.numel() == shape[axis] == channels else None


def _values(tensor: Tensor) -> int:
    """How many numbers a tensor holds, repetitions by broadcasting not counted."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size for size, stride in sizes if stride != 0)
