"""The slope of an objective of a map in the image: by Hessian products or double backward."""

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.explanation.objectives import Objective
from robustlab.core.maps import to_maps
from robustlab.core.streaming import logits_of, micro_batch, run_model
from robustlab.core.types import HessianVector, Problem
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Smoothed

# (images, their raw attribution, which of the problem's they are) -> one number per image
Loss = Callable[[Tensor, Tensor, slice], Tensor]


def by_products(
    problem: Problem, images: Tensor, raw: Tensor, objective: Objective, step: float
) -> Tensor:
    """Jᵀ ∂loss/∂raw with the explainer's own Hessian-vector products, on the true model."""
    with torch.enable_grad():
        leaf = raw.detach().requires_grad_()
        loss = objective.loss(maps_of(problem, leaf), slice(0, len(images)))
        (cotangent,) = torch.autograd.grad(loss.sum(), leaf)
    return _product(problem, images, cotangent, step)


def by_double_backward(
    problem: Problem, images: Tensor, objective: Objective, beta: float | None
) -> Tensor:
    """∂loss/∂x through the map's graph, on the softplus surrogate of the same weights."""
    return by_double_backward_of(problem, images, of_maps(problem, objective), beta)


def of_maps(problem: Problem, objective: Objective) -> Loss:
    """The loss of an objective, which sees nothing but maps."""
    return lambda _, raw, where: objective.loss(maps_of(problem, raw), where)


def by_products_of(
    problem: Problem, images: Tensor, raw: Tensor, loss: Loss, step: float
) -> Tensor:
    """∂loss/∂x + Jᵀ ∂loss/∂raw: what the loss sees of the images themselves, and by their maps."""
    direct: list[Tensor] = []
    cotangents: list[Tensor] = []
    size = micro_batch(images)
    for start in range(0, len(images), size):
        where = slice(start, min(start + size, len(images)))
        with frozen(problem.model), torch.enable_grad():
            leaves = images[where].detach().requires_grad_(), raw[where].detach().requires_grad_()
            found = torch.autograd.grad(loss(*leaves, where).sum(), leaves, allow_unused=True)
        for kept, slope, leaf in zip((direct, cotangents), found, leaves, strict=True):
            kept.append(torch.zeros_like(leaf) if slope is None else slope)
    return torch.cat(direct) + _product(problem, images, torch.cat(cotangents), step)


def _product(problem: Problem, images: Tensor, cotangent: Tensor, step: float) -> Tensor:
    explainer = problem.explainer
    assert isinstance(explainer, HessianVector)  # noqa: S101
    return explainer.transpose_product(
        problem.model, images, problem.targets, cotangent, step=step, ids=problem.ids
    )


def by_double_backward_of(
    problem: Problem, images: Tensor, loss: Loss, beta: float | None
) -> Tensor:
    """The same through the map's graph, on the softplus surrogate of the same weights."""
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
            total = loss(leaf, raw, where).sum()
            gradient = (
                torch.autograd.grad(total, leaf, allow_unused=True)[0]
                if total.requires_grad
                else None
            )
        parts.append(torch.zeros_like(leaf) if gradient is None else gradient)
    return torch.cat(parts)


def maps_of(problem: Problem, raw: Tensor) -> Tensor:
    """Raw attribution as the explainer's map, in the images' size."""
    height, width = problem.images.shape[-2:]
    return to_maps(raw, problem.explainer.post, (height, width))


def probabilities(problem: Problem) -> Tensor:
    """p(x₀) ``[B, classes]`` of the clean images: one forward pass."""
    return torch.softmax(logits_of(problem.model, problem.images), 1)


def output_gradient(problem: Problem, images: Tensor, clean: Tensor) -> Tensor:
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
