"""An attack that cannot use a budget says so, and names budgets and attacks that fit."""

import pytest
import torch

from attacks import build
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.problems import posed

BALLS = [
    *("fgsm", "pgd", "mi_fgsm", "deep_fool", "carlini_wagner", "dual"),
    *("top_k", "mass_center", "target_region", "target_map"),
]
BUDGETS = {"linf": Budget("linf", 0.1), "l2": Budget("l2", 0.5), "patch": Budget("patch", 0.1)}


@pytest.mark.parametrize(
    ("name", "norm", "fitting"),
    [
        *((name, "patch", "attack named patch") for name in BALLS),
        ("carlini_wagner", "linf", "norm l2; pgd, mi_fgsm, deep_fool"),
        ("patch", "linf", "norm patch; pgd"),
        ("patch", "l2", "norm patch; pgd"),
    ],
)
@pytest.mark.parametrize("epsilon", [None, 0.0])
def test_a_norm_that_does_not_fit_is_refused(name, norm, fitting, epsilon):
    options = {"k": 5} if name == "top_k" else {}
    budget = BUDGETS[norm] if epsilon is None else Budget(norm, epsilon)
    with pytest.raises(InvalidInput, match=fitting) as caught:
        build(name, **options).propose(posed("plain"), budget)
    assert caught.value.field == "norm"
    assert norm in caught.value.problem


@pytest.mark.parametrize("name", ["pgd", "deep_fool", "top_k", "target_region", "dual", "patch"])
def test_iterative_attacks_move_on_a_grid_that_swallows_their_steps(name):
    """Steps of a fifth of a grey level: taken on the grid itself they would all be lost."""
    options = {"pgd": {"steps": 20}, "top_k": {"steps": 20, "k": 30}, "patch": {"steps": 9}}
    options |= {"target_region": {"steps": 20}, "dual": {"steps": 20}}
    problem = posed("residual", "grad_cam")
    problem.images.mul_(255).round_().div_(255)
    size = {"patch": 0.1}.get(name, 1.5 / 255)
    budget = Budget("patch" if name == "patch" else "linf", size, bits=8)
    moved = build(name, **options.get(name, {})).propose(problem, budget)
    assert torch.equal(budget.project(moved, problem.images), moved), "not on the grid"
    assert (moved != problem.images).flatten(1).any(1).any(), "no image moved"
    level = 255 * moved
    torch.testing.assert_close(level, level.round(), rtol=0, atol=1e-9)
