"""The step loop that the gradient attacks on explanations share, and its two gradient paths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from attacks.explanation.gradients import (
    by_double_backward,
    by_products,
    output_gradient,
    probabilities,
)
from attacks.explanation.objectives import Objective
from attacks.explanation.pace import Adaptive, Constant, Kept
from attacks.explanation.selection import Best, Seen
from attacks.norms import BALLS, check_norm
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.randomness import normal, uniform
from robustlab.core.tables import check_finite
from robustlab.core.types import Explainer, HessianVector, Problem

Path = Literal["auto", "double_backward", "hessian_vector"]
# (images, their attribution where it is known, number of the step) -> where the loss grows
Uphill = Callable[[Tensor, Tensor | None, int], Tensor]


@dataclass(frozen=True, eq=False)
class Gait:
    """How long steps are, and which way they go for a gradient."""

    pace: Constant | Adaptive
    move: Callable[[Tensor], Tensor]


class Keeper(Kept, Protocol):
    """Keeps the best of the images that it is shown."""

    def consider(self, images: Tensor) -> Seen: ...


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Settings of a gradient attack on a map; its subclasses say what they want of the map.

    Attributes:
        steps: number of steps. step_size: in pixel units, by default 2.5·ε/steps.
        schedule: *constant* steps, or *adaptive* ones as in Auto-PGD, which start at 2ε and
            are halved for each image where they stop to pay.
        path: where gradients come from. *hessian_vector*: central differences of plain
            gradients on the true model, for explainers made of input gradients; needs no
            surrogate. *double_backward*: through the map's own graph, any differentiable
            explainer. *auto* takes the first where the explainer offers it.
        beta: for double_backward, softplus_β replaces ReLU: one β, or (first, last) for a
            geometric schedule, or None for the true ReLU net (where the gradient of a
            logit-gradient map is zero, but not that of Grad-CAM or LRP). *auto* is (10, 100),
            but None for explainers that a surrogate misleads: LRP divides by activations, and
            softplus has them where ReLU has none, so its map there is another function.
        probe: for hessian_vector, the largest pixel change of a probe, as a share of ε.
        select: *best_metric* keeps the best iterate by the metric itself, *best_loss* is
            the same with the loss on the true model, *last* returns the last iterate.
        random_start: start in the ball (l2: on its surface) instead of at the image.
        restarts: go all the way so many times, each after the first from a random start of
            its own; the best iterate of all is kept.
        optimiser: *sign* takes steps of equal length in the budget's steepest direction,
            *adam* lets each pixel's step follow its gradient history (``step_size`` = lr).
        output_weight: weight of −‖p(x') − p(x)‖² beside the loss, p the true model's
            probabilities: holds the output where a target is worth more than an untouched label.
    """

    steps: int = 20
    step_size: float | None = None
    schedule: Literal["constant", "adaptive"] = "constant"
    path: Path = "auto"
    beta: float | tuple[float, float] | Literal["auto"] | None = "auto"
    probe: float = 1.0
    select: Literal["best_metric", "best_loss", "last"] = "best_metric"
    random_start: bool = False
    restarts: int = 1
    optimiser: Literal["sign", "adam"] = "sign"
    output_weight: float = 0.0

    def __post_init__(self) -> None:
        for field in ("steps", "restarts"):
            if getattr(self, field) < 1:
                raise InvalidInput(field, f"must be at least 1, got {getattr(self, field)}")
        if self.restarts > 1 and self.select == "last":
            raise InvalidInput("restarts", "of several only the best counts", "select: best_metric")
        if self.schedule == "adaptive" and self.step_size is not None:
            raise InvalidInput("step_size", "an adaptive schedule finds its own", "leave it out")
        if self.schedule == "adaptive" and (self.select == "last" or self.optimiser == "adam"):
            remedy = "select: best_metric and optimiser: sign"
            raise InvalidInput("schedule", "adaptive steps go back to the best iterate", remedy)
        for field in ("step_size", "probe"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise InvalidInput(field, f"must be above 0, got {value}")
        betas = self.beta if isinstance(self.beta, tuple) else (self.beta,)
        if any(isinstance(b, float | int) and not b > 0 for b in betas):
            raise InvalidInput("beta", f"must be above 0, got {self.beta}")
        if not self.output_weight >= 0:
            raise InvalidInput("output_weight", f"must be at least 0, got {self.output_weight}")
        for field in ("step_size", "probe", "beta", "output_weight"):
            check_finite(field, getattr(self, field))

    @property
    def needs_explainer(self) -> bool:
        return True

    def gradient_path(self, explainer: Explainer) -> str:
        """The path that *auto* stands for; "impossible" if the explainer has none."""
        if self.path in ("auto", "hessian_vector") and isinstance(explainer, HessianVector):
            return "hessian_vector"
        if self.path == "hessian_vector" or explainer.differentiable == "none":
            return "impossible"
        return "double_backward"

    def beta_at(self, step: int, explainer: Explainer | None = None) -> float | None:
        """β of the surrogate at a step: geometric from the first to the last value."""
        beta = self.beta
        if beta == "auto":
            beta = (10.0, 100.0) if getattr(explainer, "surrogate_helps", True) else None
        if not isinstance(beta, tuple):
            return beta
        first, last = beta
        return float(first * (last / first) ** (step / max(1, self.steps - 1)))


def ascend(problem: Problem, budget: Budget, objective: Objective, settings: Ascent) -> Tensor:
    """Iterate x ← Π(x + α·steepest(∇ loss(map(x)))), then the best feasible iterate.

    Cost per step and image, with E the passes of one explanation: one forward and one
    explanation to evaluate the iterate on the true model, plus 2E (hessian_vector) or a
    double backward through the surrogate (double_backward).
    """
    check_norm(budget, BALLS, type(settings).__name__)
    if budget.epsilon == 0:
        return problem.images.clone()
    path = settings.gradient_path(problem.explainer)
    if path == "impossible":
        raise NotDifferentiable(f"{type(problem.explainer).__name__} has no gradient path")
    chosen_by = _by_loss(objective) if settings.select == "best_loss" else objective
    best = Best(problem, chosen_by, budget=budget)
    clean = probabilities(problem) if settings.output_weight else None
    free, images = budget.free, problem.images

    def uphill(at: Tensor, raw: Tensor | None, step: int) -> Tensor:
        gradient = slope(problem, at, raw, objective, settings, free, step)
        if clean is None:
            return gradient
        return gradient - settings.output_weight * output_gradient(problem, at, clean)

    for restart in range(settings.restarts):
        images = _start(problem, free, settings, restart)
        # the clean image itself is known
        known = not (settings.random_start or restart > 0)
        gait = _gait(problem, free, settings)
        images = climb(problem, free, uphill, settings, best, images, gait, known=known)
    last = settings.select == "last"
    return budget.finished(images, problem.images) if last else best.images


def climb(
    problem: Problem,
    budget: Budget,
    uphill: Uphill,
    settings: Ascent,
    best: Keeper,
    images: Tensor,
    gait: Gait,
    *,
    known: bool = False,
) -> Tensor:
    """All steps from ``images``; ``best`` sees every iterate. Returns the last one.

    ``known`` images need not be looked at before the first step, unless it is by them.
    """
    path, pace = settings.gradient_path(problem.explainer), gait.pace
    adaptive = isinstance(pace, Adaptive)
    for step in range(settings.steps):
        fresh = step > 0 or not known
        needed = adaptive or path == "hessian_vector"
        seen = best.consider(images) if needed or (fresh and settings.select != "last") else None
        if seen is not None and adaptive:
            before, images = images, pace.after(step, images, seen.values, best)
            seen = seen if torch.equal(before, images) else best.consider(images)
        raw = None if seen is None else seen.raw
        gradient = uphill(images, raw, step)
        images = budget.project(images + pace.length * gait.move(gradient), problem.images)
    if settings.select != "last":
        best.consider(images)
    return images


def _gait(problem: Problem, budget: Budget, settings: Ascent) -> Gait:
    """How the settings would have the steps."""
    alpha = settings.step_size or 2.5 * budget.epsilon / settings.steps
    adaptive = settings.schedule == "adaptive"
    pace = Adaptive(problem, budget, settings.steps) if adaptive else Constant(alpha)
    return Gait(pace, Adam() if settings.optimiser == "adam" else budget.steepest)


def slope(
    problem: Problem,
    images: Tensor,
    raw: Tensor | None,
    objective: Objective,
    settings: Ascent,
    budget: Budget,
    step: int,
) -> Tensor:
    """∂loss/∂x by the settings' path. ``raw``, the attribution there, is for Hessian products."""
    if settings.gradient_path(problem.explainer) == "hessian_vector" and raw is not None:
        return by_products(problem, images, raw, objective, settings.probe * budget.epsilon)
    beta = settings.beta_at(step, problem.explainer)
    return by_double_backward(problem, images, objective, beta)


class Adam:
    """Adam's ascent direction, per pixel, with the usual constants. Kingma & Ba 2015."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.square: Tensor | float = 0.0

    def __call__(self, gradient: Tensor) -> Tensor:
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean = self.mean / (1 - 0.9**self.count)
        square = self.square / (1 - 0.999**self.count)
        # gradients of relative losses can be far below Adam's usual 1e-8
        scale = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        return mean / (square.sqrt() + 1e-6 * scale + 1e-30)


def _start(problem: Problem, budget: Budget, settings: Ascent, restart: int) -> Tensor:
    if not settings.random_start and restart == 0:
        return problem.images.clone()
    purpose = f"ascent/start/{restart}" if restart else "ascent/start"
    if budget.norm == "l2":
        noise = budget.steepest(normal(problem.images, problem.ids, problem.seed, purpose))
    else:
        noise = uniform(problem.images, problem.ids, problem.seed, purpose)
    return budget.project(problem.images + budget.epsilon * noise, problem.images)


@dataclass(frozen=True, eq=False)
class _ByLoss:
    objective: Objective

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return self.objective.loss(maps, where)

    def value(self, maps: Tensor) -> Tensor:
        return self.objective.loss(maps, slice(0, len(maps))).double()


def _by_loss(objective: Objective) -> Objective:
    return _ByLoss(objective)
