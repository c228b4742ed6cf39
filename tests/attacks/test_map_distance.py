"""Moving a map away: three distances against numpy, and the optimum on a quadratic model."""

import numpy as np
import pytest
import torch

from attacks import build
from attacks.explanation.objectives import MoveAway
from robustlab.core.budget import Budget
from robustlab.core.judge import judge
from robustlab.explainers import build as explainer
from tests.attacks.problems import maps_of, posed
from tests.nets import Quadratic, seeded


def by_hand(measure, before, after):
    a, b = before.ravel(), after.ravel()
    if measure == "cosine":
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    if measure == "pearson":
        return 1 - np.corrcoef(a, b)[0, 1]
    return np.linalg.norm(b - a) / np.linalg.norm(a)


@pytest.mark.parametrize("measure", ["cosine", "pearson", "sensitivity"])
@pytest.mark.parametrize("scale", [1.0, 1e-20])
def test_distances_equal_numpys(measure, scale):
    g = torch.Generator().manual_seed(0)
    clean, moved = (torch.randn(4, 6, 5, generator=g, dtype=torch.float64) for _ in range(2))
    objective = MoveAway((scale * clean).float(), measure)
    found = objective.value((scale * moved).float())
    expected = [by_hand(measure, a, b) for a, b in zip(clean.numpy(), moved.numpy(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(
        objective.loss((scale * moved[1:3]).float(), slice(1, 3)).double(), found[1:3]
    )


@pytest.mark.parametrize("measure", ["cosine", "pearson", "sensitivity"])
def test_maps_without_length_have_a_value_and_a_slope(measure):
    flat, some = torch.zeros(1, 3, 3), torch.arange(9.0).view(1, 3, 3)
    for before, after in ((flat, some), (some, flat), (flat, flat)):
        leaf = after.clone().requires_grad_()
        loss = MoveAway(before, measure).loss(leaf, slice(None))
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
def test_it_reaches_the_largest_singular_value_on_a_quadratic_model(path):
    """The map is A x + b, so that the largest ‖ΔA‖ in an l2 ball is ε times A's largest
    singular value (channels summed): max-sensitivity in closed form.
    """
    size = 4
    net = seeded(lambda: Quadratic(3 * size * size))
    with torch.no_grad():
        net.b[1] = 100
    images = torch.full((2, 3, size, size), 0.5, dtype=torch.float64)
    problem = posed(net, explainer("gradient", post="signed"), images)
    summed = net.a[1].detach().view(3, size * size, 3 * size * size).sum(0)
    most = 0.2 * torch.linalg.matrix_norm(summed, 2) / problem.maps.flatten(1).norm(dim=1)
    attack = build("map_distance", measure="sensitivity", steps=80, step_size=1.0, path=path,
                   beta=None, restarts=2)  # fmt: skip
    found = judge(attack, problem, Budget("l2", 0.2))
    moved = (found.maps - problem.maps).flatten(1).norm(dim=1)
    share = moved / problem.maps.flatten(1).norm(dim=1) / most
    assert ((share > 0.97) & (share <= 1 + 1e-9)).all(), share


def test_it_beats_sampling_at_the_same_radius():
    """What libraries report as max-sensitivity is the best of a few random draws."""
    problem, budget = posed("smooth"), Budget("linf", 0.05)
    objective = build("map_distance", measure="sensitivity").objective(problem)
    found = judge(build("map_distance", measure="sensitivity", steps=10), problem, budget)
    g = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(50):
        noise = (2 * torch.rand(problem.images.shape, generator=g).double() - 1) * budget.epsilon
        drawn.append(objective.value(maps_of(problem, budget.project(problem.images + noise,
                                                                     problem.images))))  # fmt: skip
    assert (objective.value(found.maps) > torch.stack(drawn).amax(0)).all()


def test_it_starts_beside_the_image_because_there_is_no_slope_at_it():
    problem, budget = posed("smooth"), Budget("linf", 0.05)
    for measure in ("cosine", "pearson"):
        still = build("map_distance", measure=measure, steps=3, random_start=False,
                      path="double_backward", beta=None)  # fmt: skip
        gone = build("map_distance", measure=measure, steps=3)
        values = gone.objective(problem).value
        assert (values(maps_of(problem, gone.propose(problem, budget))) > 1e-4).all()
        assert (values(maps_of(problem, still.propose(problem, budget))) >= 0).all()
