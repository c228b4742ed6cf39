"""The step loop that the gradient attacks on explanations share, and its two gradient paths."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.maps import to_maps
from robustlab.core.randomness import normal, uniform
from robustlab.core.streaming import logits_of, micro_batch, run_model
from robustlab.core.tables import check_finite
from robustlab.core.types import Explainer, HessianVector, Problem
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Smoothed

Path = Literal["auto", "double_backward", "hessian_vector"]


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Settings of a gradient attack on a map; its subclasses say what they want of the map.

    Attributes:
        steps: number of steps. step_size: in pixel units, by default 2.5·ε/steps.
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
        optimiser: *sign* takes steps of equal length in the budget's steepest direction,
            *adam* lets each pixel's step follow its gradient history (``step_size`` = lr).
        output_weight: weight of −‖p(x') − p(x)‖² beside the loss, p the true model's
            probabilities: holds the output where a target is worth more than an untouched label.
    """

    steps: int = 20
    step_size: float | None = None
    path: Path = "auto"
    beta: float | tuple[float, float] | Literal["auto"] | None = "auto"
    probe: float = 1.0
    select: Literal["best_metric", "best_loss", "last"] = "best_metric"
    random_start: bool = False
    optimiser: Literal["sign", "adam"] = "sign"
    output_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
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
    if budget.epsilon == 0:
        return problem.images.clone()
    path = settings.gradient_path(problem.explainer)
    if path == "impossible":
        raise NotDifferentiable(f"{type(problem.explainer).__name__} has no gradient path")
    alpha = settings.step_size or 2.5 * budget.epsilon / settings.steps
    move = Adam(alpha) if settings.optimiser == "adam" else Steepest(alpha, budget)
    images = _start(problem, budget, settings)
    best = Best(problem, _by_loss(objective) if settings.select == "best_loss" else objective)
    clean = _probabilities(problem) if settings.output_weight else None
    for step in range(settings.steps):
        fresh = step > 0 or settings.random_start  # the clean image itself is known
        wanted = path == "hessian_vector" or (fresh and settings.select != "last")
        seen = best.consider(images) if wanted else None
        if path == "hessian_vector":
            assert seen is not None  # noqa: S101
            gradient = _by_products(
                problem, images, seen.raw, objective, settings.probe * budget.epsilon
            )
        else:
            beta = settings.beta_at(step, problem.explainer)
            gradient = _by_double_backward(problem, images, objective, beta)
        if clean is not None:
            pull = _output_gradient(problem, images, clean)
            gradient = gradient - settings.output_weight * pull
        images = budget.project(images + move(gradient), problem.images)
    if settings.select == "last":
        return images
    best.consider(images)
    return best.images


class Steepest:
    """A step of length α in the steepest direction of the budget's norm."""

    def __init__(self, alpha: float, budget: Budget) -> None:
        self.alpha, self.budget = alpha, budget

    def __call__(self, gradient: Tensor) -> Tensor:
        return self.alpha * self.budget.steepest(gradient)


class Adam:
    """Adam's ascent direction, per pixel, with the usual constants. Kingma & Ba 2015."""

    def __init__(self, alpha: float) -> None:
        self.alpha, self.count = alpha, 0
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
        return self.alpha * mean / (square.sqrt() + 1e-6 * scale + 1e-30)


def _probabilities(problem: Problem) -> Tensor:
    """p(x₀) ``[B, classes]`` of the clean images: one forward pass."""
    return torch.softmax(logits_of(problem.model, problem.images), 1)


def _output_gradient(problem: Problem, images: Tensor, clean: Tensor) -> Tensor:
    """∂/∂x ‖p(x) − p(x₀)‖² on the true model: one gradient pass. ``clean`` is p(x₀)."""
    size = micro_batch(images)
    parts = []
    for start in range(0, len(images), size):
        where = slice(start, min(start + size, len(images)))
        with torch.enable_grad():
            leaf = images[where].detach().requires_grad_()
            gap = torch.softmax(run_model(problem.model, leaf), 1) - clean[where]
            parts.append(torch.autograd.grad(gap.square().sum(), leaf)[0])
    return torch.cat(parts)


def _start(problem: Problem, budget: Budget, settings: Ascent) -> Tensor:
    if not settings.random_start:
        return problem.images.clone()
    if budget.norm == "l2":
        noise = budget.steepest(normal(problem.images, problem.ids, problem.seed, "ascent/start"))
    else:
        noise = uniform(problem.images, problem.ids, problem.seed, "ascent/start")
    return budget.project(problem.images + budget.epsilon * noise, problem.images)


def _by_products(
    problem: Problem, images: Tensor, raw: Tensor, objective: Objective, step: float
) -> Tensor:
    """Jᵀ ∂loss/∂raw with the explainer's own Hessian-vector products, on the true model."""
    with torch.enable_grad():
        leaf = raw.detach().requires_grad_()
        loss = objective.loss(_maps(problem, leaf), slice(0, len(images)))
        (cotangent,) = torch.autograd.grad(loss.sum(), leaf)
    explainer = problem.explainer
    assert isinstance(explainer, HessianVector)  # noqa: S101
    return explainer.transpose_product(
        problem.model, images, problem.targets, cotangent, step=step, ids=problem.ids
    )


def _by_double_backward(
    problem: Problem, images: Tensor, objective: Objective, beta: float | None
) -> Tensor:
    """∂loss/∂x through the map's graph, on the softplus surrogate of the same weights."""
    model = problem.model if beta is None else Smoothed(problem.model, beta)
    passes = max(1, round(problem.explainer.cost().forward))
    size = max(1, micro_batch(images) // passes)  # a graph keeps every pass in memory
    parts = []
    for start in range(0, len(images), size):
        where = slice(start, min(start + size, len(images)))
        with frozen(problem.model), torch.enable_grad():
            leaf = images[where].detach().requires_grad_()
            raw = problem.explainer.explain(
                model, leaf, problem.targets[where], ids=problem.ids[where], create_graph=True
            )
            loss = objective.loss(_maps(problem, raw), where).sum()
            gradient = (
                torch.autograd.grad(loss, leaf, allow_unused=True)[0]
                if loss.requires_grad
                else None
            )
        parts.append(torch.zeros_like(leaf) if gradient is None else gradient)
    return torch.cat(parts)


def _maps(problem: Problem, raw: Tensor) -> Tensor:
    height, width = problem.images.shape[-2:]
    return to_maps(raw, problem.explainer.post, (height, width))


@dataclass(frozen=True, eq=False)
class _ByLoss:
    objective: Objective

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return self.objective.loss(maps, where)

    def value(self, maps: Tensor) -> Tensor:
        return self.objective.loss(maps, slice(0, len(maps))).double()


def _by_loss(objective: Objective) -> Objective:
    return _ByLoss(objective)
