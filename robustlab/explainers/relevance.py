"""Layer-wise relevance propagation on any CNN, through interposition.

No canonisers and no per-architecture code: functional and module activations, residual
additions and batch-norm are recognised as the model computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Handler, Interposition, Phase, is_route, route
from robustlab.core.linear import Layer, batch_norm_affine, layer_of
from robustlab.core.maps import Post
from robustlab.core.streaming import each_micro_batch, input_gradient
from robustlab.core.types import Differentiable, Passes
from robustlab.explainers.lrp_rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    WSquare,
    ZBox,
    stabilised,
    z_plus,
)

RuleName = Literal["epsilon", "gamma", "z_plus", "alpha_beta", "w_square", "flat", "z_box"]
Composite = Literal["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"]
# (kind of layer, does it see the image?) -> rule
Assignment = Callable[[str, bool], Rule]


@dataclass(frozen=True, kw_only=True)
class LRP:
    """Layer-wise relevance propagation: the logit is handed back, layer by layer, to the pixels.

    Either a ``composite``:

    ====================== ======================= ================ ===============
    composite              convolution at the image other convolutions fully connected
    ====================== ======================= ================ ===============
    epsilon_plus           z⁺                      z⁺               ε
    epsilon_gamma_box      z^B over [0,1]          γ                ε
    epsilon_alpha2_beta1   α2β1                    α2β1             ε
    ====================== ======================= ================ ===============

    or one ``rule`` for every layer (epsilon, gamma, z_plus, alpha_beta, w_square, flat; z_box
    acts where a layer sees the image and leaves ε elsewhere). See `lrp_rules` for formulas.

    Activations hand relevance on unchanged; residual sums and average pooling share it in
    proportion to their inputs; max-pooling gives it to the winner; a batch-norm that follows
    a convolution or matrix is folded into it; the model's own normalisation passes it on, so
    the result is relevance of pixels. Products of two image-dependent tensors follow the
    plain derivative. Relevance starts as the target's logit.

    Raw shape ``[B,C,H,W]``; default map: positive part of Σ_c. Conservation: `conservation`.
    Cost: a forward pass, a backward pass and the rules' own convolutions, see `cost`.
    Sources: Bach et al. 2015; Montavon et al. 2017, 2019; Kohlbrenner et al. 2020.
    LRP is covered by a patent: check whether your use is free.
    """

    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # an attack on softplus activations goes astray
    composite: Composite | None = None
    rule: RuleName | None = None
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True
    post: Post = "positive"

    def __post_init__(self) -> None:
        if self.composite is not None and self.rule is not None:
            raise InvalidInput("rule", "give either a composite or a rule, not both")
        if self.composite is None and self.rule is None:
            object.__setattr__(self, "composite", "epsilon_plus")
        if not self.epsilon > 0:
            raise InvalidInput("epsilon", f"must be above 0, got {self.epsilon}")
        if not self.gamma >= 0:
            raise InvalidInput("gamma", f"must be at least 0, got {self.gamma}")
        self.assignment()  # refuses a wrong alpha and beta at once

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        assign = self.assignment()

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            walk = RelevanceWalk(assign)
            if create_graph and part.requires_grad:  # still the image if a parameter made it
                part = route(walk.phase, part, lambda r: (r,))
            return input_gradient(
                model,
                part,
                labels,
                create_graph=create_graph,
                mode=Interposition(walk.handlers()),
                phase=walk.phase,
                start_with_score=True,
            )

        return each_micro_batch(images, targets, run)

    def assignment(self) -> Assignment:
        """Which rule each layer follows."""
        dense: Rule = Epsilon(self.epsilon, self.bias)
        if self.composite == "epsilon_gamma_box":
            first, conv = ZBox(), Gamma(self.gamma, self.bias)
            return lambda kind, at_image: dense if kind == "linear" else first if at_image else conv
        if self.composite is not None:
            plus = z_plus(self.bias)
            shared = plus if self.composite == "epsilon_plus" else AlphaBeta(2.0, 1.0, self.bias)
            return lambda kind, _: dense if kind == "linear" else shared
        if self.rule == "z_box":
            return lambda _, at_image: ZBox() if at_image else dense
        rules: dict[str, Callable[[], Rule]] = {
            "epsilon": lambda: dense,
            "gamma": lambda: Gamma(self.gamma, self.bias),
            "z_plus": lambda: z_plus(self.bias),
            "alpha_beta": lambda: AlphaBeta(self.alpha, self.beta, self.bias),
            "w_square": lambda: WSquare(self.bias),
            "flat": Flat,
        }
        chosen = rules[self.rule or "epsilon"]()
        return lambda *_: chosen

    def cost(self) -> Passes:
        """Whole-model passes, with the rules' own work counted as what it costs (`make bench`).

        ε needs what a gradient needs. z⁺, w² and flat run each layer once more forwards and
        share relevance in memory-bound steps, about another pass; αβ with β > 0 and γ do so
        twice, and once more backwards.
        """
        kind = self.composite or self.rule
        if kind in ("epsilon", "z_box"):
            return Passes(1, 1)
        if kind in ("epsilon_plus", "z_plus", "w_square", "flat"):
            return Passes(2, 2)
        return Passes(3, 3)


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


def conservation(raw: Tensor, scores: Tensor) -> Tensor:
    """Σ relevance / explained logit, per image: 1 where nothing was absorbed or created."""
    return raw.flatten(1).sum(1) / stabilised(scores)


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
