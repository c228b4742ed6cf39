"""How relevance walks through any CNN, by interposition.

No canonisers and no per-architecture code: functional and module activations, residual
additions and batch-norm are recognised as the model computes.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from robustlab.core.interposition import Call, Handler, Phase, is_route, route
from robustlab.core.linear import Layer, batch_norm_affine, layer_of
from robustlab.explainers.relevance.rules import (
    Rule,
    stabilised,
)

# (kind of layer, does it see the image?) -> rule
Assignment = Callable[[str, bool], Rule]


_PASSING: Final = ("relu", "relu6", "smooth_activation", "activation", "hardtanh")


class RelevanceWalk:
    """Follows one forward pass and leaves relevance rules behind for its backward pass.

    Remembers which layer produced a tensor (to fold a following batch-norm) and, for tensors
    that are the image up to constants, the values that black and white pixels would have
    there (to serve z^B). Tensors are kept with the memory, so that ids stay valid.
    """

    def __init__(self, assign: Assignment) -> None:
        self.phase = Phase()
        self._assign = assign
        self._produced: dict[int, tuple[Tensor, Layer, Tensor]] = {}
        self._boxes: dict[int, tuple[Tensor, Any, Any]] = {}
        self._image: Tensor | None = None

    def handlers(self) -> dict[str, Handler]:
        """What to do with each operation; the first tensor that any of them meets is the image."""
        plain = {
            **dict.fromkeys(_PASSING, self._pass),
            "conv": self._linear,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "add": self._add,
            **dict.fromkeys(("sub", "rsub", "mul", "div"), self._elementwise),
            "avg_pool": self._average,
            **dict.fromkeys(("pad", "layout"), self._moved),
        }
        return {op: self._watching(handler) for op, handler in plain.items()}

    def _watching(self, handler: Handler) -> Handler:
        def handle(call: Call) -> Tensor:
            flowing = [t for t in (call.input, call.get("other")) if depends_on_image(t)]
            if not flowing:
                return call.native()
            if self._image is None:
                self._image = image = flowing[0]
                black = torch.zeros((1,) * image.ndim).to(image)
                self._boxes[id(image)] = (image, black, black + 1)
            return handler(call)

        return handle

    def _pass(self, call: Call) -> Tensor:
        output = call.native()
        if not output.requires_grad:
            return output
        return route(self.phase, output, lambda r: (None, r), call.input)

    def _linear(self, call: Call) -> Tensor:
        x = call.input
        if not x.requires_grad or call.get("weight").ndim < 2:
            return call.native()
        layer, x = layer_of(call)
        output = call.native() if x is call.input else layer.apply(x, layer.weight, layer.bias)
        routed = self._ruled(layer, x, output)
        self._produced[id(routed)] = (routed, layer, x)
        return routed

    def _ruled(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        box = self._box_of(x)
        rule = self._assign(layer.kind, box is not None)

        def relevance(r: Tensor) -> tuple[None, Tensor]:
            return None, rule.relevance(layer, x, output, r, box)

        return route(self.phase, output, relevance, x)

    def _batch_norm(self, call: Call) -> Tensor:
        output = call.native()
        if not output.requires_grad:
            return output
        known, affine = self._produced.get(id(call.input)), batch_norm_affine(call)
        if known is None or affine is None:
            return route(self.phase, output, lambda r: (None, r), call.input)
        _, layer, x = known
        return self._ruled(layer.folded(*affine), x, output)

    def _add(self, call: Call) -> Tensor:
        a, b = call.input, call.get("other")
        if not (depends_on_image(a) and depends_on_image(b)):
            return self._elementwise(call)
        output = call.native()
        second = b * call.get("alpha", 1)

        def shared(r: Tensor) -> tuple[None, Tensor, Tensor]:
            s = r / stabilised(output)
            return None, (a * s).sum_to_size(a.shape), (second * s).sum_to_size(b.shape)

        return route(self.phase, output, shared, a, b)

    def _elementwise(self, call: Call) -> Tensor:
        """The image or a feature map combined with constants: relevance passes unchanged."""
        output = call.native()
        flowing = [t for t in (call.input, call.get("other")) if depends_on_image(t)]
        if len(flowing) != 1:
            return output
        x = flowing[0]
        passed = route(self.phase, output, lambda r: (None, r.sum_to_size(x.shape)), x)
        box = self._box_of(x)
        if box is not None:
            with torch.no_grad():
                ends = [_binary(call, value if x is call.input else call.input,
                                call.get("other") if x is call.input else value)
                        for value in box]  # fmt: skip
            low, high = torch.minimum(*ends), torch.maximum(*ends)
            self._boxes[id(passed)] = (passed, low, high)
        return passed

    def _average(self, call: Call) -> Tensor:
        output, x = call.native(), call.input
        if not x.requires_grad:
            return output

        def shared(r: Tensor) -> tuple[None, Tensor]:
            return None, x * _transposed(call, x, r / stabilised(output))

        return route(self.phase, output, shared, x)

    def _moved(self, call: Call) -> Tensor:
        """The same values in other places: relevance follows by itself, the box is led along."""
        output = call.native()
        box = self._box_of(call.input)
        if box is not None:
            with torch.no_grad():
                low, high = (call.run(value.expand_as(call.input).clone()) for value in box)
            self._boxes[id(output)] = (output, low, high)
        return output

    def _box_of(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        known = self._boxes.get(id(x))
        return None if known is None else known[1:]


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


def _binary(call: Call, a: Any, b: Any) -> Tensor:
    if call.op == "add":
        return torch.add(a, b, alpha=call.get("alpha", 1))
    if call.op == "sub":
        return torch.sub(a, b, alpha=call.get("alpha", 1))
    if call.op == "rsub":
        return b - a
    return a * b if call.op == "mul" else a / b


def _transposed(call: Call, x: Tensor, s: Tensor) -> Tensor:
    """The transpose of a linear operation without weights, applied to ``s``."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        probe = x.detach().requires_grad_()
        (result,) = torch.autograd.grad(call.run(probe), probe, s, create_graph=keep_graph)
    return result
