"""Best feasible iterate: what an iterative attack keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacks.explanation.objectives import Objective
from robustlab.core.budget import Budget
from robustlab.core.maps import to_maps
from robustlab.core.streaming import logits_of
from robustlab.core.types import Problem


@dataclass(frozen=True, eq=False)
class Seen:
    """What considering a batch has found out.

    Attributes:
        raw: the attribution. kept: whose prediction stayed (or is the wanted class).
        values: the objective's; −∞ where the prediction did not stay.
    """

    raw: Tensor
    kept: Tensor
    values: Tensor


class Best:
    """The most damaging image so far that keeps the prediction, per image, on the true model.

    Starts as the clean image: where nothing better is found, the clean image is returned and
    the judge calls it infeasible. With ``wanted`` an image has to be predicted as that class
    instead, and nothing is ``found`` before one is. With a ``budget`` images are judged as
    that budget would hand them over. Evaluating an image costs a forward pass and an
    explanation.
    """

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        *,
        budget: Budget | None = None,
        wanted: Tensor | None = None,
    ) -> None:
        self.problem, self.objective, self.budget = problem, objective, budget
        self.images = problem.images.clone()
        self.values = objective.value(problem.maps)
        self._wanted = problem.predictions
        if wanted is not None:
            self._wanted, self.values = wanted, torch.full_like(self.values, -torch.inf)

    @property
    def found(self) -> Tensor:
        """Which images ``[B]`` have had a feasible iterate, or were feasible from the start."""
        return self.values > -torch.inf

    def consider(self, images: Tensor) -> Seen:
        """Keep what is better; returns what the next step can use."""
        problem = self.problem
        if self.budget is not None:
            images = self.budget.finished(images, problem.images)
        raw = problem.explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
        maps = to_maps(raw, problem.explainer.post, tuple(images.shape[-2:]))  # type: ignore[arg-type]
        values = self.objective.value(maps)
        kept = logits_of(problem.model, images).argmax(1) == self._wanted
        better = kept & (values > self.values)
        self.values = torch.where(better, values, self.values)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        return Seen(raw, kept, torch.where(kept, values, -torch.inf))


class Selection(Protocol):
    """Keeps the best of what it is shown."""

    images: Tensor

    def consider(self, images: Tensor) -> object: ...


class BestOfAll:
    """The same for several explainers at once: the best by the mean of their values.

    The prediction is asked for once per explainer; the value of the clean image is the start.
    """

    def __init__(self, problems: Sequence[Problem], objectives: Sequence[Objective]) -> None:
        self.parts = [Best(p, o) for p, o in zip(problems, objectives, strict=True)]
        self.images = problems[0].images.clone()
        self.values = torch.stack([part.values for part in self.parts]).mean(0)

    def consider(self, images: Tensor) -> list[Seen]:
        """Keep what is better; returns what each explainer has seen."""
        seen = [part.consider(images) for part in self.parts]
        values = torch.stack([s.values for s in seen]).mean(0)
        better = values > self.values
        self.values = torch.where(better, values, self.values)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        return seen
