"""ADV²: a changed prediction under a map that stayed, against foolbox and on a trained net."""

from dataclasses import replace

import foolbox
import pytest
import torch
from foolbox.attacks import LinfPGD

import robustlab as rl
from attacks import Dual, RandomSign
from attacks.explanation.gradients import by_double_backward, by_products
from attacks.explanation.objectives import Imitate
from attacks.toward import classes_toward, pull
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import explain_maps, judge, pose
from robustlab.explainers import FIDO, LRP, GradCAM, Gradient
from tests.attacks.battery import Unreliable
from tests.attacks.problems import posed

BUDGET = Budget("linf", 0.1)
ALONE = {"weight": (0.0, 0.0), "schedule": "linear"}  # nothing but the cross entropy


def error(problem, images, classes):
    """Σ(ŝ − t̂)²/Σ t̂² by hand, the map of ``classes`` against the clean map."""
    maps = explain_maps(problem.model, problem.explainer, images, classes, problem.ids)
    maps = maps / maps.abs().sum((1, 2), keepdim=True)
    clean = problem.maps / problem.maps.abs().sum((1, 2), keepdim=True)
    return (maps - clean).square().sum((1, 2)) / clean.square().sum((1, 2))


@pytest.fixture(scope="module")
def digits():
    """Trained net, eight digits, Grad-CAM."""
    model, batch = rl.models.load("small_resnet"), rl.data.load("mnist_5k").batch(8)
    return pose(model, GradCAM(), batch)


def test_a_changed_prediction_keeps_the_map_that_pgd_loses(digits):
    budget, wanted = Budget("linf", 0.2), classes_toward(digits, "runner_up")
    dual, plain = (
        judge(attack, digits, budget, target="current")
        for attack in (Dual(steps=15), Dual(steps=15, **ALONE))
    )
    assert torch.equal(dual.predictions, wanted), "not all were led to the runner-up"
    assert torch.equal(plain.predictions, wanted)
    ours, theirs = (error(digits, r.images, wanted) for r in (dual, plain))
    assert ours.mean() < 0.4 * theirs.mean(), (ours.mean(), theirs.mean())
    assert (ours < theirs).float().mean() >= 0.9


def test_without_the_map_it_is_foolbox_targeted_pgd():
    problem, steps = posed("plain", "grad_cam"), 6
    wanted = classes_toward(problem, "least_likely")
    attack = Dual(steps=steps, step_size=0.001, toward="least_likely", **ALONE)
    wrapped = foolbox.PyTorchModel(problem.model, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(wanted)
    iterates = [
        LinfPGD(abs_stepsize=0.001, steps=n, random_start=False)(
            wrapped, problem.images, criterion, epsilons=0.004
        )[1]
        for n in range(1, steps + 1)
    ]
    problem.model.zero_grad()
    small = attack.propose(problem, Budget("linf", 0.004))
    reached = problem.model(iterates[-1]).argmax(1) == wanted
    assert not reached.any(), "too far: the last iterate would not be what is returned"
    torch.testing.assert_close(small, iterates[-1], rtol=0, atol=1e-12)


def test_keeps_the_iterate_with_the_closest_map_of_those_that_reached():
    """Iterates by foolbox, their maps by the explainer, the choice by hand."""
    problem, steps, step = posed("plain", "grad_cam"), 12, 0.02
    wanted = classes_toward(problem, "runner_up")
    wrapped = foolbox.PyTorchModel(problem.model, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(wanted)
    best, chosen = torch.full((3,), torch.inf, dtype=torch.float64), problem.images.clone()
    for n in range(1, steps + 1):
        pgd = LinfPGD(abs_stepsize=step, steps=n, random_start=False)
        images = pgd(wrapped, problem.images, criterion, epsilons=0.1)[1]
        errors = error(problem, images, wanted)
        better = (problem.model(images).argmax(1) == wanted) & (errors < best)
        best, chosen[better] = torch.where(better, errors, best), images[better]
    problem.model.zero_grad()
    assert torch.isfinite(best).all(), "nothing to choose from"
    ours = Dual(steps=steps, step_size=step, **ALONE).propose(problem, BUDGET)
    torch.testing.assert_close(ours, chosen, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("explainer", "path"),
    [(GradCAM(), "double_backward"), (LRP(), "double_backward"), (Gradient(), "hessian_vector")],
    ids=str,
)
def test_one_step_follows_the_sum_of_both_gradients(explainer, path):
    """The map of the new class is differentiated, at the clean image, and compared with the old."""
    problem, weight = posed("plain", explainer), 5.0
    wanted = classes_toward(problem, "runner_up")
    attack = Dual(steps=1, first_stage=0, weight=(weight, weight), step_size=0.001)
    assert attack.gradient_path(explainer) == path
    aimed, objective, x = replace(problem, targets=wanted), Imitate(problem.maps), problem.images
    if path == "hessian_vector":
        raw = explainer.explain(problem.model, x, wanted, ids=problem.ids)
        slope = by_products(aimed, x, raw, objective, BUDGET.epsilon)
    else:
        slope = by_double_backward(aimed, x, objective, attack._along().beta_at(0, explainer))
    both = pull(problem, x, wanted) + weight * slope
    expected = (x + 0.001 * both.sign()).clamp(0, 1)
    assert (both.sign() != pull(problem, x, wanted).sign()).any(), "the map makes no difference"
    torch.testing.assert_close(attack.propose(problem, BUDGET), expected, rtol=0, atol=1e-12)


class Watched(Unreliable):
    """Notes which explanations were asked for with a graph, and of which classes."""

    def __init__(self, inner):
        super().__init__(inner)
        self.graphs = []

    def explain(self, model, images, targets, **options):
        if options.get("create_graph"):
            self.graphs.append(targets.tolist())
        return super().explain(model, images, targets, **options)


def test_the_explainer_at_hand_is_differentiated_after_the_first_stage():
    problem = posed("plain", "grad_cam")
    watched = Watched(problem.explainer)
    Dual(steps=8, first_stage=0.5).propose(replace(problem, explainer=watched), BUDGET)
    assert watched.graphs == [classes_toward(problem, "runner_up").tolist()] * 4


def test_where_no_iterate_arrives_the_last_is_returned_and_the_judge_says_so():
    problem = posed("plain", "grad_cam")
    result = judge(Dual(steps=4), problem, Budget("linf", 1e-6))
    assert result.prediction_kept.all() and result.outcomes == ("ok",) * 3
    assert (result.radius > 5e-7).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "linear", "weight": (5.0, 10.0)}, [0, 0, 5, 7.5, 10]),
        ({"schedule": "geometric", "weight": (1.0, 100.0)}, [0, 0, 1, 10, 100]),
        ({"first_stage": 0.0, "schedule": "linear", "weight": (0.0, 8.0)}, [0, 2, 4, 6, 8]),
        ({"first_stage": 1.0}, [0, 0, 0, 0, 0]),
        ({"first_stage": 0.8, "weight": (3.0, 9.0)}, [0, 0, 0, 0, 3]),
    ],
    ids=str,
)
def test_the_weight_follows_its_schedule(options, expected):
    attack = Dual(steps=5, **{"first_stage": 0.4, **options})
    assert [attack.weight_at(step) for step in range(5)] == pytest.approx(expected)


def test_its_control_is_the_shared_random_sign():
    assert Dual().control() == RandomSign()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"first_stage": 1.5}, "first_stage"),
        ({"weight": (-1.0, 1.0), "schedule": "linear"}, "weight"),
        ({"weight": (0.0, 1.0)}, "weight"),
        ({"weight": (1.0, float("inf"))}, "weight"),
        ({"steps": 0}, "steps"),
        ({"probe": 0.0}, "probe"),
        ({"beta": (0.0, 10.0)}, "beta"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options, field):
    with pytest.raises(InvalidInput) as caught:
        Dual(**options)
    assert caught.value.field == field


def test_an_explainer_without_a_gradient_is_refused():
    problem = posed("plain", FIDO(steps=1))
    with pytest.raises(NotDifferentiable, match="FIDO"):
        Dual().propose(problem, BUDGET)
