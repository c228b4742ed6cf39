"""Best feasible iterate: what an iterative attack keeps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.explanation.objectives import Objective
from robustlab.core.maps import to_maps
from robustlab.core.streaming import logits_of
from robustlab.core.types import Problem


@dataclass(frozen=True, eq=False)
class Seen:
    """What considering a batch has found out: its attribution, and whose prediction stayed."""

    raw: Tensor
    kept: Tensor


class Best:
    """The most damaging image so far that keeps the prediction, per image, on the true model.

    Starts as the clean image: where nothing better is found, the clean image is returned and
    the judge calls it infeasible. Evaluating an image costs a forward pass and an explanation.
    """

    def __init__(self, problem: Problem, objective: Objective) -> None:
        self.problem, self.objective = problem, objective
        self.images = problem.images.clone()
        self.values = objective.value(problem.maps)

    def consider(self, images: Tensor) -> Seen:
        """Keep what is better; returns what the next step can use."""
        problem = self.problem
        raw = problem.explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
        maps = to_maps(raw, problem.explainer.post, tuple(images.shape[-2:]))  # type: ignore[arg-type]
        values = self.objective.value(maps)
        kept = logits_of(problem.model, images).argmax(1) == problem.predictions
        better = kept & (values > self.values)
        self.values = torch.where(better, values, self.values)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        return Seen(raw, kept)
