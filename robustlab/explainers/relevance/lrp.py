"""Layer-wise relevance propagation: rules and composites by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Interposition, route
from robustlab.core.maps import Post
from robustlab.core.streaming import each_micro_batch, explained_logit, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.relevance.rules import (
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

RuleName = Literal["epsilon", "gamma", "z_plus", "alpha_beta", "w_square", "flat", "z_box"]
Composite = Literal["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"]


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
    acts where a layer sees the image and leaves ε elsewhere). See `relevance.rules` for formulas.

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
                start=explained_logit,
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


def conservation(raw: Tensor, scores: Tensor) -> Tensor:
    """Σ relevance / explained logit, per image: 1 where nothing was absorbed or created."""
    return raw.flatten(1).sum(1) / stabilised(scores)
