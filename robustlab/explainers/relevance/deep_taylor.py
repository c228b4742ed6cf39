"""Deep Taylor decomposition: each unit's evidence, split at a root point of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.streaming import explained_logit
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.relevance.lrp import LRP

Pool = Literal["winner", "sum"]


@dataclass(frozen=True, kw_only=True)
class DeepTaylor:
    """Deep Taylor decomposition: R = max(0, f_t) is handed back by z⁺, and by z^B at the pixels.

    A unit's relevance is expanded to first order at a root point in its input domain. For a
    layer behind ReLUs that is the z⁺ rule, R_j = Σ_k x_j w_jk⁺ / Σ_i x_i w_ik⁺ · R_k; for the
    layer that sees pixels in [0,1], pushed through the model's own normalisation, the z^B
    rule; see `relevance.rules`. Matrices follow the same two rules. No bias takes part, so Σ R is
    max(0, f_t) up to the stabiliser, and no relevance is negative. What reaches a unit that
    owes its activity to its bias alone is lost (the paper asks for biases ≤ 0).

    The function decomposed is the rectified logit: a class that the net argues against
    (f_t ≤ 0) has no evidence to share out, and its map is zero; `lrp` explains it.
    Max-pooling gives relevance to its winner; ``pool="sum"`` shares it in proportion to the
    pooled values, as the sum-pooling of the paper's networks does. All else is as for `lrp`,
    also where the theory says nothing: inputs of any sign, residual sums, gates.

    Raw shape ``[B,C,H,W]``, not negative on ReLU nets without residual sums; default map:
    positive part of Σ_c. Cost: as LRP's z⁺, 2 forward and 2 backward passes.
    Source: Montavon et al. 2017, Explaining nonlinear classification decisions with deep
    Taylor decomposition.
    """

    about: ClassVar[About] = About(
        family="relevance",
        year=2017,
        source="Montavon et al. 2017, Deep Taylor decomposition",
        needs="a positive logit",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    surrogate_helps: ClassVar[bool] = False  # as for LRP
    pool: Pool = "winner"
    post: Post = "positive"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        return _RULES.propagate(
            model,
            images,
            targets,
            lambda logits, labels: explained_logit(logits, labels).clamp(min=0),
            create_graph=create_graph,
            sum_pool=self.pool == "sum",
        )

    def cost(self) -> Passes:
        return _RULES.cost()


_RULES: Final = LRP(composite="z_plus_box", bias=False)
