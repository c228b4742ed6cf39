"""What every attack on images must keep: one function that raises on the first breach.

Everything is measured here, from outside; nothing that the attack or the judge says is used.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from robustlab.core import streaming
from robustlab.core.budget import Budget
from robustlab.core.types import Attack, HessianVector, Problem
from tests.attacks.problems import maps_of

SLACK = 1e-6  # rounding allowed at the edge of the ball and of the box
ALIKE = 1e-9  # float64 rounding differs with the batch; a flipped sign is a whole step


def check_attack(
    attack: Attack, problem: Problem, budget: Budget, *, feasible: bool = True
) -> Tensor:
    """Raise AssertionError where ``attack`` breaks its promises; returns its proposal.

    Args:
        problem: a few float64 images, with target maps (without them "the next image" is
            the target, which depends on the batch by definition).
        budget: must leave room to move.
        feasible: claims to keep the prediction and never to do worse, by its own objective,
            than the clean image.
    """
    assert problem.images.dtype == torch.float64 and len(problem.images) > 1
    with untouched(problem):
        proposal = attack.propose(problem, budget)
    check_form(problem, proposal)
    check_budget(problem, budget, proposal)
    if feasible:
        check_feasible(attack, problem, proposal)
    check_repeats(attack, problem, budget, proposal)
    check_zero_budget(attack, problem, budget)
    check_batches(attack, problem, budget, proposal)
    check_interruptions(attack, problem, budget)
    return proposal


def check_form(problem: Problem, proposal: Tensor) -> None:
    clean = problem.images
    assert proposal.shape == clean.shape, f"shape became {tuple(proposal.shape)}"
    assert proposal.dtype == clean.dtype, f"dtype became {proposal.dtype}"
    assert torch.isfinite(proposal).all(), "not finite"
    assert not proposal.requires_grad, "carries a gradient"
    assert proposal.data_ptr() != clean.data_ptr(), "shares memory with the clean images"


def check_budget(problem: Problem, budget: Budget, proposal: Tensor) -> None:
    delta = (proposal.double() - problem.images.double()).flatten(1)
    if budget.norm == "patch":
        length = torch.tensor([patch_area(d) for d in delta.view_as(proposal)])
    else:
        order = float("inf") if budget.norm == "linf" else 2
        length = torch.linalg.vector_norm(delta, order, dim=1)
    assert (length <= budget.epsilon + SLACK).all(), f"left the ball: {length.tolist()}"
    low, high = float(proposal.min()), float(proposal.max())
    assert low >= budget.lower - SLACK, f"left the box: {low}"
    assert high <= budget.upper + SLACK, f"left the box: {high}"


def patch_area(delta: Tensor) -> float:
    """Share of the picture of the square around all that changed."""
    rows, columns = delta.ne(0).any(0).nonzero(as_tuple=True)
    if not len(rows):
        return 0.0
    side = 1 + max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
    return side**2 / (delta.shape[1] * delta.shape[2])


def check_feasible(attack: Any, problem: Problem, proposal: Tensor) -> None:
    with torch.no_grad():
        predictions = problem.model(proposal).argmax(1)
    assert torch.equal(predictions, problem.predictions), "changed the prediction"
    objective = (getattr(attack, "like", None) or attack).objective(problem)

    def damage(maps: Tensor) -> Tensor:
        by_loss = getattr(attack, "select", "") == "best_loss"
        return objective.loss(maps, slice(0, len(maps))) if by_loss else objective.value(maps)

    before, after = damage(problem.maps), damage(maps_of(problem, proposal))
    assert (after >= before - ALIKE).all(), f"worse than doing nothing: {before} to {after}"


def check_repeats(attack: Attack, problem: Problem, budget: Budget, proposal: Tensor) -> None:
    with torch.random.fork_rng(), torch.no_grad():  # a caller's state that must not matter
        torch.manual_seed(99)
        again = attack.propose(problem, budget)
    assert torch.equal(again, proposal), "a second call differs"


def check_zero_budget(attack: Attack, problem: Problem, budget: Budget) -> None:
    with untouched(problem):
        still = attack.propose(problem, replace(budget, epsilon=0.0))
    assert torch.equal(still, problem.images), "moves at epsilon 0"
    check_form(problem, still)


def check_batches(attack: Attack, problem: Problem, budget: Budget, proposal: Tensor) -> None:
    last = len(problem.images) - 1
    alone = attack.propose(part(problem, [last]), budget)
    close(alone, proposal[last:], "mixes the batch: an image alone")
    order = list(range(last, -1, -1))
    height, width = problem.images.shape[-2:]
    with mock.patch.object(streaming, "PIXELS_PER_MICRO_BATCH", height * width):
        turned = attack.propose(part(problem, order), budget)
    close(turned, proposal[order], "mixes the batch: another order, one image at a time")


def check_interruptions(attack: Attack, problem: Problem, budget: Budget) -> None:
    """Break the run inside the explainer and deep inside the model: nothing may remain."""
    explainer: Unreliable = (
        UnreliableProducts(problem.explainer)
        if isinstance(problem.explainer, HessianVector)
        else Unreliable(problem.explainer)
    )
    explainer.at = 3
    with untouched(problem), pytest.raises(Broken) if attack.needs_explainer else suppress(Broken):
        attack.propose(replace(problem, explainer=explainer), budget)

    leaf = [m for m in problem.model.modules() if not list(m.children())][-1]
    count = Counter()
    handle = leaf.register_forward_hook(lambda *_: count())
    try:
        attack.propose(problem, budget)
        total, count.calls = count.calls, 0
        count.at = (total + 1) // 2
        with untouched(problem), pytest.raises(Broken) if total else suppress(Broken):
            attack.propose(problem, budget)
    finally:
        handle.remove()


class Broken(RuntimeError):
    """Raised on purpose."""


class Counter:
    """Counts calls and raises at the ``at``-th."""

    def __init__(self) -> None:
        self.calls, self.at = 0, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Broken


class Unreliable(Counter):
    """An explainer that gives up at its ``at``-th call."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def explain(self, *args: Any, **options: Any) -> Tensor:
        return self.passed_on(self.inner.explain, *args, **options)

    def passed_on(self, call: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        ids = options.get("ids") or ()
        assert len(ids) == len(args[1]), "explains without the images' ids"
        self()
        return call(*args, **options)


class UnreliableProducts(Unreliable):
    def transpose_product(self, *args: Any, **options: Any) -> Tensor:
        return self.passed_on(self.inner.transpose_product, *args, **options)


@contextmanager
def untouched(problem: Problem) -> Iterator[None]:
    """The model, the problem's tensors and all global state are the same on the way out."""
    before = state_of(problem)
    try:
        yield
    finally:
        after = state_of(problem)
        changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
        assert not changed, f"did not leave as found: {changed}"


def state_of(problem: Problem) -> dict[str, object]:
    """Everything an attack could leave behind, in comparable form."""
    state: dict[str, object] = {
        "torch's random state": bytes(torch.get_rng_state().numpy()),
        "numpy's random state": repr(np.random.get_state()),  # noqa: NPY002
        "python's random state": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "function modes": torch._C._len_torch_function_stack(),
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
    }
    for name, module in problem.model.named_modules():
        state[f"mode of {name}"] = module.training
        state[f"attributes of {name}"] = sorted(vars(module))
        state[f"hooks of {name}"] = [
            list(value) for key, value in vars(module).items() if key.endswith("_hooks")
        ]
    for name, parameter in problem.model.named_parameters():
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f"grad of {name}"] = parameter.grad is None
    for name, tensor in [*problem.model.named_parameters(), *problem.model.named_buffers()]:
        state[f"identity of {name}"] = id(tensor)
        state[f"value of {name}"] = tensor.detach().numpy().tobytes()
    for name, value in vars(problem).items():
        if isinstance(value, Tensor):
            state[f"problem.{name}"] = value.detach().numpy().tobytes()
            state[f"problem.{name}.requires_grad"] = value.requires_grad
    return state


def part(problem: Problem, which: list[int]) -> Problem:
    """The same clean facts about some of the images, in the order of ``which``."""
    tensors = {k: v[which] for k, v in vars(problem).items() if isinstance(v, Tensor)}
    return replace(problem, **tensors, ids=tuple(problem.ids[i] for i in which))


def close(got: Tensor, expected: Tensor, breach: str) -> None:
    gap = float((got - expected).abs().max())
    assert gap <= ALIKE, f"{breach} differs by {gap}"
