"""Carlini and Wagner's attack: the shortest change that is enough."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.norms import check_norm
from attacks.prediction.through_foolbox import Against, import_foolbox, run_foolbox
from attacks.toward import Toward, check_toward
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Carlini & Wagner, L2: min ‖x' − x‖² + c·max(0, f_c(x') − max_{k≠c} f_k(x') + κ).

    x' = (tanh(w) + 1)/2 stays in the box by itself; Adam moves w with rate ``step_size``;
    c starts at ``initial_const`` and is searched, per image, in ``binary_search_steps``
    rounds: tenfold until something is found, then by bisection. κ = ``confidence``. The
    shortest success of all rounds is cut to the ball: where it is longer than ε, the
    prediction mostly stays. ``toward``: reach that class, instead of leaving that of
    ``against``. Cost: ``binary_search_steps``·``steps`` gradient passes.
    Source: Carlini & Wagner 2017; foolbox's L2CarliniWagnerAttack. Deviations: foolbox's
    ``abort_early`` looks at the loss of the whole batch and is off, since an image's result
    must not depend on its neighbours; where nothing is found foolbox returns a black picture,
    here the clean image is returned.
    """

    steps: int = 100
    binary_search_steps: int = 9
    step_size: float = 0.01
    confidence: float = 0.0
    initial_const: float = 1e-3
    against: Against = "prediction"
    toward: Toward | None = None

    def __post_init__(self) -> None:
        for field in ("steps", "binary_search_steps"):
            if getattr(self, field) < 1:
                raise InvalidInput(field, f"must be at least 1, got {getattr(self, field)}")
        for field in ("step_size", "initial_const"):
            if not getattr(self, field) > 0:
                raise InvalidInput(field, f"must be above 0, got {getattr(self, field)}")
        if not self.confidence >= 0:
            raise InvalidInput("confidence", f"must be at least 0, got {self.confidence}")
        for field in ("step_size", "initial_const", "confidence"):
            check_finite(field, getattr(self, field))
        check_toward(self.toward)

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, ("l2",), "carlini_wagner")
        attack = import_foolbox().attacks.L2CarliniWagnerAttack(
            steps=self.steps,
            binary_search_steps=self.binary_search_steps,
            stepsize=self.step_size,
            confidence=self.confidence,
            initial_const=self.initial_const,
            abort_early=False,
        )

        def attempt(model: Any, images: Tensor, criterion: Any, *, epsilons: float) -> Any:
            raw, cut, success = attack(model, images, criterion, epsilons=epsilons)
            found = raw.flatten(1).any(1).view(-1, 1, 1, 1)
            return raw, torch.where(found, cut, images), success

        return run_foolbox(lambda _: attempt, problem, budget, self.against, self.toward)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return RandomSign()
