"""Dombrowski's attack: a map that looks like another, a picture and an output that stay."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks import TargetMap
from attacks.explanation.ascent import Adam
from attacks.explanation.gradients import output_gradient
from robustlab.core.batch import make_batch
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge, pose
from robustlab.explainers import LRP, GradCAM, Gradient, IntegratedGradients
from tests.attacks.battery import part
from tests.attacks.problems import TwoConvolutions, maps_of, posed
from tests.nets import Normalised, Softplus, VGGLike, pictures, seeded

BUDGET = Budget("linf", 8 / 255)


def plain():
    return Normalised(VGGLike())


def smooth():
    return Normalised(Softplus())


@pytest.fixture(scope="module")
def net():
    """A ReLU net whose prediction is safe: the target, not feasibility, limits the attack."""
    return seeded(plain)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    rows = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    return torch.tensor([np.corrcoef(x, y)[0, 1] for x, y in rows])


def probabilities(net: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.softmax(net(images), 1)


@pytest.mark.parametrize(
    ("make", "explainer", "path"),
    [
        (plain, Gradient(), "hessian_vector"),
        (plain, Gradient(), "double_backward"),
        (plain, IntegratedGradients(steps=3), "hessian_vector"),
        (plain, GradCAM(), "auto"),
        (smooth, Gradient(), "hessian_vector"),
        (smooth, IntegratedGradients(steps=3), "double_backward"),
        (TwoConvolutions, LRP(), "auto"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_map_approaches_the_target_the_more_the_larger_epsilon(make, explainer, path):
    problem = posed(seeded(make), explainer)
    reached = [pearson(problem.maps, problem.target_maps)]
    for epsilon in (4 / 255, 12 / 255, 36 / 255):
        result = judge(TargetMap(steps=15, path=path), problem, Budget("linf", epsilon))
        assert result.prediction_kept.all()
        reached.append(pearson(result.maps, problem.target_maps))
    assert (reached[-1] > reached[0]).all()
    means = torch.stack(reached).mean(1)
    assert (means.diff() > 0.02).all(), means.tolist()


@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
@pytest.mark.parametrize("likeness", ["mse", "pearson"])
def test_every_step_of_a_smooth_net_comes_closer(likeness, path):
    problem, steps = posed("smooth"), range(7)
    attack = partial(TargetMap, likeness=likeness, path=path, select="last", step_size=1e-3)
    images = [problem.images] + [
        attack(steps=n).propose(problem, Budget("linf", 24 / 255)) for n in steps[1:]
    ]
    objective = TargetMap(likeness=likeness).objective(problem)
    near = torch.stack([objective.value(maps_of(problem, i)) for i in images])
    assert (near.diff(dim=0) > 0).all(), near.tolist()


def test_output_barely_moves_and_the_judge_reports_it(net):
    problem = posed(net)
    result = judge(TargetMap(steps=15), problem, BUDGET)
    before, after = probabilities(net, problem.images), probabilities(net, result.images)
    assert float((after - before).abs().max()) < 0.01
    torch.testing.assert_close(result.confidences, after.amax(1))
    assert torch.equal(result.predictions, after.argmax(1))
    assert torch.equal(result.prediction_kept, after.argmax(1) == before.argmax(1))


def test_more_output_weight_holds_the_output_better():
    problem = posed("smooth")

    def shift(weight: float) -> float:
        attack = TargetMap(steps=15, output_weight=weight, select="last")
        moved = attack.propose(problem, Budget("linf", 24 / 255))
        gap = probabilities(problem.model, moved) - probabilities(problem.model, problem.images)
        return float(gap.square().sum())

    assert shift(1e5) < 0.2 * shift(0.0)


def testoutput_gradient_equals_finite_differences():
    problem = posed("smooth")
    g = torch.Generator().manual_seed(0)
    images = problem.images + 0.05 * torch.randn(problem.images.shape, generator=g).double()
    direction = torch.randn(problem.images.shape, generator=g).double()
    clean = probabilities(problem.model, problem.images)

    def gap(h: float) -> Tensor:
        moved = probabilities(problem.model, images + h * direction)
        return (moved - clean).square().sum(1)

    slope = (gap(1e-5) - gap(-1e-5)) / 2e-5
    predicted = (output_gradient(problem, images, clean) * direction).sum((1, 2, 3))
    torch.testing.assert_close(predicted, slope, rtol=1e-5, atol=1e-12)


def test_holding_the_output_costs_one_gradient_per_step_and_one_forward_in_all(net):
    problem, steps = posed(net), 4
    held, free = (
        judge(TargetMap(steps=steps, output_weight=weight), problem, BUDGET)
        for weight in (1.0, 0.0)
    )
    images = len(problem.images)
    assert held.forwards - free.forwards == images * (steps + 1)  # the clean output is constant
    assert held.backwards - free.backwards == images * steps


def test_more_steps_of_the_same_size_come_closer(net):
    problem = posed(net)
    objective = TargetMap().objective(problem)
    values = [
        objective.value(judge(TargetMap(steps=steps, step_size=0.004), problem, BUDGET).maps)
        for steps in (1, 2, 4, 8)
    ]
    values = torch.stack([objective.value(problem.maps), *values])
    assert (values.diff(dim=0) >= 0).all()
    assert (values[-1] > values[1]).all()


# --- whose map is the target ---------------------------------------------------------------


def test_without_target_maps_each_image_imitates_the_next(net):
    problem = posed(net)
    unaimed = replace(problem, target_maps=None)
    following = replace(problem, target_maps=problem.maps[[1, 2, 0]])
    attack = TargetMap(steps=4)
    assert torch.equal(attack.objective(unaimed).target, problem.maps[[1, 2, 0]])
    assert torch.equal(attack.propose(unaimed, BUDGET), attack.propose(following, BUDGET))


def test_given_target_maps_come_first_and_take_the_maps_dtype(net):
    problem = posed(net)
    given = replace(problem, target_maps=problem.target_maps.float())
    target = TargetMap().objective(given).target
    assert target.dtype == torch.float64
    torch.testing.assert_close(target, problem.target_maps, rtol=1e-6, atol=0)


def test_single_image_has_no_next_one(net):
    alone = replace(part(posed(net), [0]), target_maps=None)
    with pytest.raises(InvalidInput, match=r"target_maps: .*two images or more"):
        TargetMap().propose(alone, BUDGET)
    TargetMap(steps=1).propose(part(posed(net), [0]), BUDGET)


def test_target_maps_must_have_the_shape_of_the_maps(net):
    with pytest.raises(InvalidInput, match=r"target_maps: expected shape \(3, 12, 12\)"):
        pose(net, Gradient(), make_batch(pictures()), target_maps=torch.ones(3, 6, 6))


# --- the optimiser -------------------------------------------------------------------------


def test_adam_steps_like_torch():
    g = torch.Generator().manual_seed(0)
    gradients = [torch.randn(2, 3, 4, 4, generator=g, dtype=torch.float64) for _ in range(6)]
    ours, place = Adam(), torch.zeros(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([place], lr=0.03, eps=0, maximize=True)
    moved = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    for gradient in gradients:
        moved += 0.03 * ours(gradient)
        place.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(moved, place.detach(), rtol=1e-3, atol=1e-6)


def test_adam_is_blind_to_the_scale_of_the_loss_and_still_where_it_is_flat():
    g = torch.Generator().manual_seed(0)
    gradient = torch.randn(2, 3, 4, 4, generator=g, dtype=torch.float64)
    torch.testing.assert_close(Adam()(1e-12 * gradient), Adam()(gradient))
    gradient[1] = 0
    assert torch.equal(Adam()(gradient)[1], torch.zeros(3, 4, 4, dtype=torch.float64))
