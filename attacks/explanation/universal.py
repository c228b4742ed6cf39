"""One perturbation for every image: Oskouie & Farnia 2023."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attacks.control import RandomSign
from attacks.explanation.ascent import slope
from attacks.explanation.ensemble import problem_of
from attacks.explanation.goals import FLAT_AT_START, Aimed, Climb
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from attacks.norms import BALLS, check_norm
from robustlab import data
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import signs
from robustlab.core.streaming import logits_of
from robustlab.core.types import Attack, Explainer, Problem

Fitted = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Universal(Aimed):
    """Universal perturbation: one δ with ‖δ‖ ≤ ε that moves the maps of images it never saw.

    δ is made on the last ``images`` images of data set ``fit`` (a name, or ``{name: ...}`` with
    options), which must not be among those that are attacked, for the classes that the
    model predicts there:

    - *gradient*: δ ← Π(δ + α·steepest(mean_i ∇L_i(x_i + δ) / ‖∇L_i‖₁)), the images' slopes at
      equal length; ``steps`` steps. Kept is the δ with the best mean of the goal's metric,
      where an image whose prediction changed counts as unmoved.
    - *pca*: the first right singular vector of the stacked slopes, scaled to length 1 each;
      its sign, which the decomposition leaves open, is the better one of the two. l2: ε·v;
      linf: ε·sign(v).

    Every attacked image gets x + δ, clipped to the box. With one image and *gradient* it is
    that image's own attack. ``goal`` is what δ is to do to each map; the paper moves
    normalised maps in l2, which is *sensitivity* here up to the scale.

    Cost: per step and fitted image that of the single attack; nothing per attacked image.
    The control is one random sign pattern per image, of full length.
    """

    fit: Fitted = "mnist_5k"
    images: int = 64
    form: Literal["gradient", "pca"] = "gradient"
    steps: int = 20
    step_size: float | None = None
    probe: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("images", "steps"):
            if getattr(self, field) < 1:
                raise InvalidInput(field, f"must be at least 1, got {getattr(self, field)}")
        self._climb()  # refuses wrong steps

    def gradient_path(self, explainer: Explainer) -> str:
        return self._climb().gradient_path(explainer)

    def control(self) -> Attack | None:
        return RandomSign()

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, BALLS, "universal")
        if budget.epsilon == 0:
            return problem.images.clone()
        delta = self.perturbation(problem, budget)
        return budget.project(problem.images + delta, problem.images)

    def perturbation(self, problem: Problem, budget: Budget) -> Tensor:
        """δ ``[1,C,H,W]``, made on images of the data set, not on those of the problem."""
        fitted, budget = self._fitted(problem), budget.free
        objective = self.objective(fitted)
        if self.form == "pca":
            return self._component(fitted, objective, budget)
        delta = self._start(fitted, budget)
        best, most = delta, -torch.inf
        alpha = self.step_size or 2.5 * budget.epsilon / self.steps
        for step in range(self.steps + 1):
            images = budget.project(fitted.images + delta, fitted.images)
            seen = Best(fitted, objective).consider(images)
            value = self._worth(fitted, objective, seen.values)
            if value > most:
                best, most = delta, value
            if step < self.steps:
                gradients = self._slopes(fitted, objective, images, seen.raw, budget, step)
                delta = delta + alpha * budget.steepest(gradients.mean(0, keepdim=True))
                delta = _inside(delta, budget)
        return best

    def _component(self, fitted: Problem, objective: Objective, budget: Budget) -> Tensor:
        images = budget.project(fitted.images + self._start(fitted, budget), fitted.images)
        raw = Best(fitted, objective).consider(images).raw
        slopes = self._slopes(fitted, objective, images, raw, budget, 0).flatten(1).double()
        # of n images and d ≫ n pixels: the n×n Gram matrix has the same singular values
        vectors = torch.linalg.eigh(slopes @ slopes.T).eigenvectors
        direction = (vectors[:, -1] @ slopes).view_as(fitted.images[:1]).to(fitted.images)
        step = budget.epsilon * budget.steepest(direction)
        both = []
        for delta in (step, -step):
            moved = budget.project(fitted.images + delta, fitted.images)
            seen = Best(fitted, objective).consider(moved)
            both.append((self._worth(fitted, objective, seen.values), delta))
        return max(both, key=lambda pair: pair[0])[1]

    def _slopes(
        self,
        fitted: Problem,
        objective: Objective,
        images: Tensor,
        raw: Tensor,
        budget: Budget,
        step: int,
    ) -> Tensor:
        """Each image's own slope, at equal length: pca wants ‖·‖₂ = 1, gradient ‖·‖₁."""
        found = slope(fitted, images, raw, objective, self._climb(), budget, step)
        flat = found.flatten(1)
        length = flat.norm(dim=1) if self.form == "pca" else flat.abs().sum(1)
        scale = torch.where(length > 0, length, 1).view(-1, 1, 1, 1)
        return found / scale

    def _worth(self, fitted: Problem, objective: Objective, values: Tensor) -> float:
        """Mean of the metric; an image that lost its prediction counts as unmoved."""
        unmoved = objective.value(fitted.maps)
        return float(torch.where(torch.isinf(values), unmoved, values).mean())

    def _start(self, fitted: Problem, budget: Budget) -> Tensor:
        delta = torch.zeros_like(fitted.images[:1])
        if self.goal not in FLAT_AT_START:
            return delta
        return (
            0.5
            * budget.epsilon
            * budget.steepest(signs(delta, ("universal",), fitted.seed, "universal/start"))
        )

    def _fitted(self, problem: Problem) -> Problem:
        """Images of the data set, explained for the classes that the model predicts there."""
        given = {"name": self.fit} if isinstance(self.fit, str) else dict(self.fit)
        if "name" not in given:
            raise InvalidInput("fit", f"{given} names no data set", "write {name: mnist_5k}")
        dataset = data.load(given.pop("name"), **given)
        ids = dataset.ids[-self.images :]
        shared = sorted(set(ids) & set(problem.ids))
        if shared:
            raise InvalidInput(
                "fit", f"{shared[0]} would be fitted and attacked", "take fewer images for either"
            )
        batch = dataset.pick(ids).to(str(problem.images.device))
        if batch.images.shape[1:] != problem.images.shape[1:]:
            has, needed = ("×".join(map(str, i.shape[1:])) for i in (batch.images, problem.images))
            raise InvalidInput("fit", f"its images are {has}, those to attack {needed}")
        images = batch.images.to(problem.images)
        predictions = logits_of(problem.model, images).argmax(1)
        return problem_of(
            replace(
                problem,
                images=images,
                targets=predictions,
                labels=batch.labels,
                predictions=predictions,
                ids=batch.ids,
                target_maps=None,
            ),
            problem.explainer,
        )

    def _climb(self) -> Climb:
        return self.climb(steps=self.steps, step_size=self.step_size, probe=self.probe)


def _inside(delta: Tensor, budget: Budget) -> Tensor:
    """δ in the ball alone: the box is another one for every image."""
    if budget.norm == "linf":
        return delta.clamp(-budget.epsilon, budget.epsilon)
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return delta * (budget.epsilon / length.clamp(min=1e-30)).clamp(max=1)
