"""The strongest of many attacks per image, with what must be known before it is believed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.black_box import BlackBox
from attacks.explanation.diagnosis import Findings, cautions_of
from attacks.explanation.goals import FLAT_AT_START, Aimed
from attacks.explanation.selection import Best
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.types import Attack, Explainer, HessianVector, Problem

Effort = Literal["standard", "quick"]
# steps per climb, queries of the black box, random signs
EFFORT: Final[Mapping[Effort, tuple[int, int, int]]] = {
    "standard": (40, 300, 100),
    "quick": (10, 60, 20),
}


@dataclass(frozen=True, kw_only=True)
class WorstCase(Aimed):
    """Worst case: complementary attacks on one explainer; each image gets the strongest result.

    There is nothing to tune: ``effort`` alone says how long. What auto-attack is to
    predictions this is to explanations, an ensemble that no defence can slip past by blinding
    one path (Croce & Hein 2020). Members, where the explainer lets them:

    - *plain*: the attack of the goal's own name at its defaults, steps of equal length.
    - *products*: Hessian-vector products on the true model, adaptive steps from the image.
    - *products, restarted*: the same from two random starts.
    - *fine products*: probes of a tenth of the ball, for maps that bend within it.
    - *surrogate*: double backward through softplus with β from 10 to 100, adaptive steps.
    - *true slope*: double backward on the true model, for what a surrogate leads astray.
    - *adam*: Adam on the better of the two.
    - *black box*: evolution strategies, blind to masked or shattered gradients.
    - *random sign*: the control itself, which no result can then fall behind.

    An explainer without any gradient gets the last two, the black box twice. Every member's
    proposal is compared on the true model by the goal's metric among those that keep the
    prediction, so that on no image the result is weaker than any member's. Deterministic by
    ``seed`` and image id. `propose_with_cautions` also says, per image, what speaks against
    believing the number; see `diagnosis`.

    Cost of a gradient map, counted: 511 forward and 332 backward passes per image (quick), 1983
    and 1293 (standard); of Grad-CAM 364 and 51, 1466 and 201. The control is random sign with
    as many tries as the member has.
    """

    effort: Effort = "standard"

    def gradient_path(self, explainer: Explainer) -> str:
        return ", ".join(self.members(explainer))

    def control(self) -> Attack | None:
        return RandomSign(tries=EFFORT[self.effort][2], like=self)

    def members(self, explainer: Explainer) -> dict[str, Attack]:
        """The attacks that are waged against this explainer, by name."""
        steps, queries, tries = EFFORT[self.effort]
        goal: dict[str, Any] = {"goal": self.goal, "k": self.k, "box": self.box}
        found: dict[str, Attack] = {}
        adaptive: dict[str, Any] = {"steps": steps, "schedule": "adaptive", "optimiser": "sign"}
        products: dict[str, Any] = {"path": "hessian_vector"}
        slopes: dict[str, Any] = {"path": "double_backward"}
        if isinstance(explainer, HessianVector):
            found["products"] = self.climb(**adaptive, **products)
            found["products, restarted"] = self.climb(
                **adaptive, **products, restarts=2, random_start=True
            )
            found["fine products"] = self.climb(**adaptive, **products, probe=0.1)
        if explainer.differentiable != "none":
            found["plain"] = self.climb(steps=steps, optimiser="sign")
            helps = getattr(explainer, "surrogate_helps", True)
            if helps:
                found["surrogate"] = self.climb(**adaptive, **slopes, beta=(10.0, 100.0))
            if not isinstance(explainer, HessianVector):  # their true slope is the products'
                found["true slope"] = self.climb(**adaptive, **slopes, beta=None)
                found["true slope, restarted"] = self.climb(
                    **adaptive, **slopes, beta=None, random_start=True
                )
            found["adam"] = self.climb(
                steps=steps, optimiser="adam", **(slopes if not helps else {}),
                random_start=self.goal in FLAT_AT_START,
            )  # fmt: skip
        else:
            found["fine black box"] = BlackBox(**goal, queries=queries, grid=32, sigma=0.5)
        found["black box"] = BlackBox(**goal, queries=queries)
        found["random sign"] = RandomSign(tries=tries, like=self)
        return found

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return self._search(problem, budget).images

    def propose_with_cautions(
        self, problem: Problem, budget: Budget
    ) -> tuple[Tensor, tuple[tuple[str, ...], ...]]:
        """The strongest images, and what speaks against believing them."""
        findings = self._search(problem, budget)
        if budget.epsilon == 0:
            return findings.images, ((),) * len(problem.images)
        return findings.images, cautions_of(self, problem, budget, findings)

    def _search(self, problem: Problem, budget: Budget) -> Findings:
        check_norm(budget, BALLS, "worst_case")
        best = Best(problem, self.objective(problem))
        start, values = best.values.clone(), {}
        proposals = {}
        if budget.epsilon > 0:
            for name, member in self.members(problem.explainer).items():
                proposals[name] = member.propose(problem, budget)
                values[name] = best.consider(proposals[name]).values
        return Findings(
            images=best.images, values=best.values, start=start, members=values,
            strongest=_strongest(values, len(problem.images)),
        )  # fmt: skip


def _strongest(values: Mapping[str, Tensor], count: int) -> tuple[str, ...]:
    """Per image the member with the highest value, "" where none kept the prediction."""
    if not values:
        return ("",) * count
    names = list(values)
    stack = torch.stack(list(values.values()))
    place = stack.argmax(0)
    return tuple(
        names[int(p)] if torch.isfinite(stack[int(p), i]) else "" for i, p in enumerate(place)
    )
