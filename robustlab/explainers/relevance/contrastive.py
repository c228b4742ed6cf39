"""Contrastive relevance: what speaks for a class and not as well for the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.linear import Layer
from robustlab.core.maps import Post
from robustlab.core.streaming import Start, explained_logit
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.relevance.lrp import LRP, Composite
from robustlab.explainers.relevance.rules import Rule, stabilised
from robustlab.explainers.relevance.walk import Assignment

Dual = Literal["others", "negated"]


@dataclass(frozen=True, kw_only=True)
class CLRP:
    """Contrastive LRP: a = max(0, R_t − λ R̄), relevance of the target less that of its dual.

    R_t starts as the target's logit f_t. With ``dual="others"`` (CLRP1) R̄ starts as
    f_t/(N − 1) at each of the other N − 1 classes; with "negated" (CLRP2) as f_t at the
    target itself, through the last layer with its weights negated: the opposite of the
    class. λ gives R̄ the sum of R_t, per image, so that they can be compared.

    Both follow the same rules, a ``composite`` of `lrp`; z⁺ with z^B at the pixels and no
    biases, the default, is the authors'. The negated weights need z⁺ in the last layer: ε
    shares alike in a layer and its negative.

    Deviations from the authors' code: it starts with |f|, hence we with |f_t| (the sign
    would turn the map of a class with a negative logit inside out); its CLRP1 gives other
    classes their own |f_n|, where the paper, followed here, has equal shares; λ scales R̄ to
    R_t where the code scales both to 1, a positive factor of the map.

    Raw shape ``[B,C,H,W]``, not negative, zero where the dual weighs more. Default map:
    positive part of Σ_c. Cost: two propagations, each with a forward pass of its own: twice
    that of the composite.
    Source: Gu, Yang & Tresp 2018.
    """

    about: ClassVar[About] = About(
        family="relevance",
        year=2018,
        source="Gu, Yang & Tresp 2018, Contrastive backpropagation",
        needs="two classes at least",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # as for LRP
    dual: Dual = "others"
    composite: Composite = "z_plus_box"
    epsilon: float = 1e-6
    gamma: float = 0.25
    bias: bool = False
    post: Post = "positive"

    def __post_init__(self) -> None:
        _rules(self)
        if self.dual == "negated" and self.composite != "z_plus_box":
            raise InvalidInput(
                "dual",
                f"{self.composite} has ε in the last layer, which is blind to negated weights",
                "composite z_plus_box is not; dual others works with any",
            )

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        rules = _rules(self)

        def relevance(start: Start, assign: Callable[[], Assignment]) -> Tensor:
            return rules.propagate(
                model, images, targets, start, create_graph=create_graph, assign=assign
            )

        target = relevance(_magnitude, rules.assignment)
        if self.dual == "others":
            other = relevance(_other_classes, rules.assignment)
        else:
            other = relevance(_magnitude, lambda: _negated_at_top(rules.assignment()))
        total, of_other = (r.sum((1, 2, 3), keepdim=True) for r in (target, other))
        return (target - other * (total / stabilised(of_other))).clamp(min=0)

    def cost(self) -> Passes:
        once = _rules(self).cost()
        return Passes(2 * once.forward, 2 * once.backward)


@dataclass(frozen=True, kw_only=True)
class SGLRP:
    """Softmax-gradient LRP: relevance starts as the softmax's derivative, for and against.

    R starts as p_t(1 − p_t) at the target and −p_t·p_n at every other class n, with
    p = softmax(f): classes that the net confuses with the target count against it most.
    Relevance is linear in its start, so one propagation serves the target and all others.
    Σ R is 0 without biases, up to the stabiliser. Where the net is certain the start is as
    small as 1 − p_t, and in float32 vanishes.

    The rules are a ``composite`` of `lrp`; z⁺ with z^B at the pixels and no biases, the
    default, is the authors'. Their code scales the two parts to equal sums before it
    subtracts: they are equal already but for what z⁺ loses. It adds 1e-8 to the start at the
    target; here 1 − p_t is computed as Σ p_n, which does not cancel.

    Raw shape ``[B,C,H,W]``, signed; default map: positive part of Σ_c. Cost: that of the
    composite.
    Source: Iwana, Kuroki & Uchida 2019.
    """

    about: ClassVar[About] = About(
        family="relevance",
        year=2019,
        source="Iwana, Kuroki & Uchida 2019, Softmax gradient layer-wise relevance propagation",
        needs="two classes at least",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # as for LRP
    composite: Composite = "z_plus_box"
    epsilon: float = 1e-6
    gamma: float = 0.25
    bias: bool = False
    post: Post = "positive"

    def __post_init__(self) -> None:
        _rules(self)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return _rules(self).propagate(
            model, images, targets, softmax_gradient, create_graph=create_graph
        )

    def cost(self) -> Passes:
        return _rules(self).cost()


def softmax_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """The derivative of p_t in the logits, ``[B, classes]``: p_t(1 − p_t), elsewhere −p_t·p_n."""
    index, p = targets.unsqueeze(1), logits.softmax(1)
    others = p.scatter(1, index, 0.0)
    return p.gather(1, index) * (-others).scatter(1, index, others.sum(1, keepdim=True))


def _rules(explainer: CLRP | SGLRP) -> LRP:
    return LRP(
        composite=explainer.composite,
        epsilon=explainer.epsilon,
        gamma=explainer.gamma,
        bias=explainer.bias,
    )


def _magnitude(logits: Tensor, targets: Tensor) -> Tensor:
    return explained_logit(logits, targets).abs()


def _other_classes(logits: Tensor, targets: Tensor) -> Tensor:
    """The magnitude of the target's logit, shared equally by all other classes."""
    if logits.shape[1] < 2:
        raise InvalidInput("model", "it has one class, and nothing to contrast it with", "use lrp")
    target = _magnitude(logits, targets)
    share = target.sum(1, keepdim=True) / (logits.shape[1] - 1)
    return share.expand_as(logits).scatter(1, targets.unsqueeze(1), 0.0)


def _negated_at_top(assign: Assignment) -> Assignment:
    """The same rules, but the first layer from above is seen with negated weights."""
    waiting = [True]
    return lambda kind, at_image: _NegatedAtTop(assign(kind, at_image), waiting)


@dataclass(frozen=True)
class _NegatedAtTop:
    """A rule; ``waiting`` belongs to all layers, and the first one that relevance reaches
    empties it.
    """

    rule: Rule
    waiting: list[bool]

    def relevance(
        self, layer: Layer, x: Tensor, z: Tensor, r: Tensor, box: tuple[Any, Any] | None
    ) -> Tensor:
        if self.waiting:
            self.waiting.clear()
            bias = None if layer.bias is None else -layer.bias
            layer, z = replace(layer, weight=-layer.weight, bias=bias), -z
        return self.rule.relevance(layer, x, z, r, box)
