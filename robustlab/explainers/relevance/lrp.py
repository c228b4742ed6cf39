"""Layer-wise relevance propagation: rules and composites by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Interposition, route
from robustlab.core.maps import Post
from robustlab.core.streaming import Start, each_micro_batch, explained_logit, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import layer_output
from robustlab.explainers.relevance.rules import (
    STABILISER,
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
from robustlab.explainers.relevance.walk import Assignment, RelevanceWalk
from robustlab.explainers.relevance.walked import Walked

RuleName = Literal["epsilon", "gamma", "z_plus", "alpha_beta", "w_square", "flat", "z_box"]
Composite = Literal["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1", "z_plus_box"]


@dataclass(frozen=True, kw_only=True)
class LRP:
    """Layer-wise relevance propagation: the logit is handed back, layer by layer, to the pixels.

    Either a ``composite``:

    ====================== ======================= ================== ===============
    composite              layer that sees pixels  other convolutions fully connected
    ====================== ======================= ================== ===============
    epsilon_plus           by its kind             z⁺                 ε
    epsilon_gamma_box      z^B if a convolution    γ                  ε
    epsilon_alpha2_beta1   by its kind             α2β1               ε
    z_plus_box             z^B                     z⁺                 z⁺
    ====================== ======================= ================== ===============

    or one ``rule`` for every layer (epsilon, gamma, z_plus, alpha_beta, w_square, flat; z_box
    acts where a layer sees the image and leaves ε elsewhere). See `relevance.rules` for formulas.

    No architecture has code of its own; every operation is met where the model computes it:

    - Activations hand relevance on unchanged, also those spelt out as products
      (x·sigmoid(x)). Max-pooling gives it to the winner; concatenation, slicing and padding
      follow their values.
    - Residual sums, average pooling and resizing share it in proportion to their inputs, by ε.
    - Of a product of two image-dependent tensors the *signal takes all* and the gate is a
      weight (Arras et al. 2017). The gate is the factor that came out of a softmax, sigmoid
      or hard-sigmoid, else out of another bounded function (tanh, ReLU6), else the one that
      is broadcast; if nothing tells them apart both get half. So squeeze-and-excitation
      scales features, and an attention matrix hands relevance to its values.
    - A batch-norm, or constants written out per channel, are folded into the layer before
      them. A batch-norm without such a layer (DenseNet) is a layer of its own, w ⊙ x + b,
      with a convolution's rule. Layer, group and instance norms are linear while their
      deviation is held constant (Ali et al. 2022), and share by ε.
    - The model's own normalisation passes relevance on, so that it is relevance of pixels.

    With ``bias=True`` biases and added constants (position embeddings) absorb their share;
    with False they get none and relevance is conserved, but for the stabilisers: z⁺ keeps
    what reaches a unit without any positive part (one that its bias alone made active, or a
    negative one behind SiLU), and ε divides by z − b, which may be anywhere near zero, so
    that on deep nets with batch-norm ``rule: epsilon`` without biases explodes. ``epsilon``
    is that of the ε rule; where it is below 1e-6, sums, averages and normalisations use it
    too. Whatever is not recognised follows its plain derivative: `conservation` and
    `where_it_went` show whether relevance was created or lost there.

    Raw shape ``[B,C,H,W]``; with ``layer`` the relevance at that module's output, summed over
    its channels, ``[B,1,h,w]``. Default map: positive part of Σ_c. Relevance starts as the
    target's logit. Cost: a forward pass, a backward pass and the rules' own convolutions,
    see `cost`.
    Sources: Bach et al. 2015; Montavon et al. 2017, 2019; Kohlbrenner et al. 2020.
    LRP is covered by a patent: check whether your use is free.
    """

    about: ClassVar[About] = About(
        family="relevance", year=2015, source="Bach et al. 2015, On pixel-wise explanations"
    )
    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # an attack on softplus activations goes astray
    composite: Composite | None = None
    rule: RuleName | None = None
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True
    layer: str | None = None
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
        if self.layer is not None:
            return self._at_layer(self.layer, model, images, targets, create_graph)
        return self.propagate(model, images, targets, explained_logit, create_graph=create_graph)

    def _at_layer(
        self, layer: str, model: nn.Module, images: Tensor, targets: Tensor, create_graph: bool
    ) -> Tensor:
        """Relevance ``[B,1,h,w]`` at the output of a module, its channels together."""

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            walk = self._walk(self.assignment())
            with walk.phase, torch.enable_grad():
                read, logits = layer_output(Walked(model, walk), layer, part, create_graph)
                first = explained_logit(logits, labels)
                (found,) = torch.autograd.grad(logits, read, first, create_graph=create_graph)
            return found.sum(1, keepdim=True)

        return each_micro_batch(images, targets, run)

    def _walk(
        self,
        assignment: Assignment,
        *,
        sum_pool: bool = False,
        absorbed: dict[str, Tensor] | None = None,
    ) -> RelevanceWalk:
        return RelevanceWalk(
            assignment,
            bias=self.bias and self.rule != "flat",
            stabiliser=min(self.epsilon, STABILISER),
            sum_pool=sum_pool,
            absorbed=absorbed,
        )

    def propagate(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        start: Start,
        *,
        create_graph: bool = False,
        assign: Callable[[], Assignment] | None = None,
        sum_pool: bool = False,
        absorbed: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Relevance ``[B,C,H,W]`` of what ``start`` puts on the logits: linear in it.

        ``assign`` makes other rules for each micro-batch; `RelevanceWalk` has the rest.
        """
        assign = assign or self.assignment

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            walk = self._walk(assign(), sum_pool=sum_pool, absorbed=absorbed)
            if create_graph and part.requires_grad:  # still the image if a parameter made it
                part = route(walk.phase, part, lambda r: (r,))
            return input_gradient(
                model,
                part,
                labels,
                create_graph=create_graph,
                mode=Interposition(walk.handlers()),
                phase=walk.phase,
                start=start,
            )

        return each_micro_batch(images, targets, run)

    def assignment(self) -> Assignment:
        """Which rule each layer follows."""
        dense: Rule = Epsilon(self.epsilon, self.bias)
        if self.composite == "epsilon_gamma_box":
            first, conv = ZBox(), Gamma(self.gamma, self.bias)
            return lambda kind, at_image: dense if kind == "linear" else first if at_image else conv
        if self.composite == "z_plus_box":
            box, hidden = ZBox(), z_plus(self.bias)
            return lambda _, at_image: box if at_image else hidden
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
        if kind in ("epsilon_plus", "z_plus", "z_plus_box", "w_square", "flat"):
            return Passes(2, 2)
        return Passes(3, 3)


def conservation(raw: Tensor, scores: Tensor) -> Tensor:
    """Σ relevance / explained logit, per image: 1 where nothing was absorbed or created."""
    return raw.flatten(1).sum(1) / stabilised(scores)


def where_it_went(
    explainer: LRP, model: nn.Module, images: Tensor, targets: Tensor
) -> dict[str, float]:
    """Where the relevance that the logits started with ended up, summed over the images.

    "image" is what reached the pixels; each kind of operation ("conv", "affine", "sum",
    "layer_norm", ...) has what its biases and stabilisers absorbed. "elsewhere" is the rest:
    0 up to rounding where a rule met every operation. Anything else went to constants beside
    the features (a class token) or comes from an operation that no rule knows.
    """
    absorbed: dict[str, Tensor] = {}
    started: list[Tensor] = []

    def start(logits: Tensor, labels: Tensor) -> Tensor:
        first = explained_logit(logits, labels)
        started.append(first.detach().sum())
        return first

    raw = explainer.propagate(model, images, targets, start, absorbed=absorbed)
    found = {"image": float(raw.sum()), **{name: float(v) for name, v in absorbed.items()}}
    return {**found, "elsewhere": float(torch.stack(started).sum()) - sum(found.values())}
