"""Carlini-Wagner, DeepFool and MI-FGSM: foolbox in one batch, and distances that are known."""

from copy import deepcopy

import foolbox
import pytest
import torch
from foolbox.attacks import (
    L2CarliniWagnerAttack,
    L2DeepFoolAttack,
    L2MomentumIterativeFastGradientMethod,
    LinfDeepFoolAttack,
    LinfMomentumIterativeFastGradientMethod,
)
from torch import Tensor, nn

from attacks import MIFGSM, PGD, CarliniWagner, DeepFool
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.battery import part
from tests.attacks.problems import posed
from tests.nets import seeded

QUICK = {"steps": 30, "binary_search_steps": 5, "step_size": 0.05}
ALIKE = {"rtol": 0, "atol": 1e-12}


def by_foolbox(problem, attack, budget: Budget, criterion) -> tuple[Tensor, Tensor]:
    """What foolbox returns, whole and cut, for all images in one batch."""
    oracle = deepcopy(problem.model).requires_grad_(False)
    wrapped = foolbox.PyTorchModel(oracle, bounds=(0, 1), device="cpu")
    return attack(wrapped, problem.images, criterion, epsilons=budget.epsilon)[:2]


# --- foolbox -------------------------------------------------------------------------------


@pytest.mark.parametrize("against", ["prediction", "label"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_mi_fgsm_equals_foolbox_and_hand(name, norm, against):
    problem, budget = posed(name), Budget(norm, {"linf": 0.05, "l2": 0.6}[norm])
    labels = problem.predictions if against == "prediction" else problem.labels
    oracle = {
        "linf": LinfMomentumIterativeFastGradientMethod,
        "l2": L2MomentumIterativeFastGradientMethod,
    }[norm](abs_stepsize=budget.epsilon / 6, steps=6, momentum=0.7)
    ours = MIFGSM(steps=6, momentum=0.7, against=against).propose(problem, budget)
    torch.testing.assert_close(ours, by_foolbox(problem, oracle, budget, labels)[1], **ALIKE)
    torch.testing.assert_close(ours, momentum_by_hand(problem, labels, budget, 0.7, 6), **ALIKE)


def momentum_by_hand(problem, labels: Tensor, budget: Budget, mu: float, steps: int) -> Tensor:
    x, memory = problem.images, torch.zeros_like(problem.images)
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(problem.model(leaf), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        memory = mu * memory + budget.steepest(gradient)
        step = budget.epsilon / steps * budget.steepest(memory)
        x = budget.project(x + step, problem.images)
    return x


def test_mi_fgsm_without_momentum_is_pgd():
    problem, budget = posed("plain"), Budget("linf", 0.05)
    plain = PGD(steps=5, step_size=0.01).propose(problem, budget)
    assert torch.equal(MIFGSM(steps=5, momentum=0).propose(problem, budget), plain)
    assert not torch.equal(MIFGSM(steps=5).propose(problem, budget), plain)


@pytest.mark.parametrize("epsilon", [0.002, 0.5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_deep_fool_equals_foolbox(name, norm, epsilon):
    problem, budget = posed(name), Budget(norm, epsilon)
    kind = {"linf": LinfDeepFoolAttack, "l2": L2DeepFoolAttack}[norm]
    for options in ({}, {"steps": 2, "candidates": 3, "overshoot": 0.3}, {"candidates": None}):
        theirs = by_foolbox(problem, kind(**options), budget, problem.predictions)[1]
        torch.testing.assert_close(DeepFool(**options).propose(problem, budget), theirs, **ALIKE)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("epsilon", [0.05, 3.0])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_carlini_wagner_equals_foolbox_where_that_finds_something(name, epsilon, targeted):
    problem, budget = posed(name), Budget("l2", epsilon)
    oracle = L2CarliniWagnerAttack(
        steps=30, binary_search_steps=5, stepsize=0.05, initial_const=0.01, abort_early=False
    )
    criterion = foolbox.Misclassification(problem.predictions)
    if targeted:
        criterion = foolbox.criteria.TargetedMisclassification(torch.full((3,), 1))
    whole, cut = by_foolbox(problem, oracle, budget, criterion)
    found = whole.flatten(1).any(1)
    assert found.any(), "nothing to compare"
    attack = CarliniWagner(**QUICK, initial_const=0.01, toward=1 if targeted else None)
    ours = attack.propose(problem, budget)
    torch.testing.assert_close(ours[found], cut[found], **ALIKE)
    assert torch.equal(ours[~found], problem.images[~found])


def test_where_nothing_is_found_the_clean_image_is_returned():
    """Foolbox's black picture, cut to the ball, would be a meaningless darkening."""
    problem, budget = posed("plain"), Budget("l2", 0.5)
    attack = CarliniWagner(steps=1, binary_search_steps=1, step_size=1e-6)
    oracle = L2CarliniWagnerAttack(steps=1, binary_search_steps=1, stepsize=1e-6)
    assert not by_foolbox(problem, oracle, budget, problem.predictions)[0].any()
    assert torch.equal(attack.propose(problem, budget), problem.images)


def test_nobody_stops_because_of_a_neighbour():
    """Foolbox's early stop would: it watches the loss of the whole batch."""
    problem, budget = posed("plain"), Budget("l2", 3.0)
    options = {"steps": 20, "binary_search_steps": 3, "initial_const": 10.0}
    early = L2CarliniWagnerAttack(stepsize=0.01, **options)
    attack = CarliniWagner(step_size=0.01, **options)
    together = by_foolbox(problem, early, budget, problem.predictions)[1]
    ours = attack.propose(problem, budget)
    canary = 0.0
    for i in range(3):
        single = part(problem, [i])
        alone = by_foolbox(single, early, budget, single.predictions)[1]
        canary = max(canary, float((alone - together[i]).abs().max()))
        torch.testing.assert_close(
            attack.propose(single, budget), ours[i : i + 1], rtol=0, atol=1e-9
        )
    assert canary > 1e-6, "the test would not notice an early stop"


# --- an affine model: the distance to every boundary is known -------------------------------


def affine(classes: int):
    """Grey images well inside the box, and a net whose boundaries are near."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, classes)))
    g = torch.Generator().manual_seed(3)
    images = 0.5 + 0.1 * torch.randn(4, 3, 4, 4, generator=g, dtype=torch.float64)
    with torch.no_grad():  # the first class leads by a little: no boundary is far, or at hand
        net[1].bias -= net(images).mean(0)
        net[1].bias[0] += 0.15
    return posed(net, images=images.clamp(0.2, 0.8))


def nearest(problem, order: float) -> tuple[Tensor, Tensor]:
    """Distance to the nearest boundary in the dual norm, and w_k − w_c of that boundary."""
    weight = problem.model[1].weight.detach()
    logits = problem.model(problem.images).detach()
    gaps = logits.gather(1, problem.predictions.unsqueeze(1)) - logits
    normals = weight.unsqueeze(0) - weight[problem.predictions].unsqueeze(1)
    lengths = torch.linalg.vector_norm(normals, order, dim=2)
    distances = (gaps / lengths).scatter(1, problem.predictions.unsqueeze(1), torch.inf)
    best = distances.argmin(1)
    return distances.amin(1), normals[torch.arange(4), best].view_as(problem.images)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deep_fool_crosses_the_nearest_boundary_of_an_affine_model(norm, classes):
    problem = affine(classes)
    distance, normal = nearest(problem, {"linf": 1, "l2": 2}[norm])
    budget = Budget(norm, 1.0)
    moved = DeepFool(overshoot=0.02, candidates=None).propose(problem, budget)
    step = 1.02 * (distance + 1e-4).view(-1, 1, 1, 1)  # foolbox's own 1e-4 included
    expected = problem.images + step * budget.steepest(normal)
    assert expected.min() > 0 and expected.max() < 1, "the box must not bind"
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    assert (problem.model(moved).argmax(1) != problem.predictions).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deep_fool_falls_short_where_the_boundary_is_beyond_epsilon(norm):
    problem = affine(5)
    distance, _ = nearest(problem, {"linf": 1, "l2": 2}[norm])
    epsilon = float(distance.sort().values[1:3].mean())  # two of the four are within
    budget = Budget(norm, epsilon)
    moved = DeepFool(candidates=None).propose(problem, budget)
    assert torch.equal(problem.model(moved).argmax(1) != problem.predictions, distance < epsilon)
    torch.testing.assert_close(
        budget.radius(moved, problem.images)[distance > epsilon], torch.full((2,), epsilon).double()
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_carlini_wagner_comes_close_to_the_shortest_change(classes):
    problem = affine(classes)
    distance, _ = nearest(problem, 2)
    attack = CarliniWagner(steps=100, binary_search_steps=6, step_size=0.01, initial_const=0.3)
    moved = attack.propose(problem, Budget("l2", 2.0))
    assert (problem.model(moved).argmax(1) != problem.predictions).all()
    share = Budget("l2", 2.0).radius(moved, problem.images) / distance
    assert (share >= 1 - 1e-9).all(), f"shorter than possible: {share.tolist()}"
    assert (share <= 1.03).all(), f"far from the shortest: {share.tolist()}"


def test_confidence_is_the_margin_that_is_reached():
    problem = affine(3)
    attack = CarliniWagner(steps=100, step_size=0.02, initial_const=0.1, confidence=0.1)
    logits = problem.model(attack.propose(problem, Budget("l2", 3.0))).detach()
    own = logits.gather(1, problem.predictions.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, problem.predictions.unsqueeze(1), -torch.inf).amax(1)
    assert (others - own >= 0.1 - 1e-9).all()


# --- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MIFGSM(steps=0), "steps"),
        (lambda: MIFGSM(step_size=0), "step_size"),
        (lambda: MIFGSM(momentum=-1), "momentum"),
        (lambda: MIFGSM(momentum=float("inf")), "momentum"),
        (lambda: DeepFool(steps=0), "steps"),
        (lambda: DeepFool(candidates=1), "candidates"),
        (lambda: DeepFool(overshoot=-0.1), "overshoot"),
        (lambda: CarliniWagner(steps=0), "steps"),
        (lambda: CarliniWagner(binary_search_steps=0), "binary_search_steps"),
        (lambda: CarliniWagner(step_size=0), "step_size"),
        (lambda: CarliniWagner(initial_const=-1), "initial_const"),
        (lambda: CarliniWagner(confidence=-1), "confidence"),
        (lambda: CarliniWagner(confidence=float("nan")), "confidence"),
    ],
)
def test_impossible_settings_are_refused(make, field):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [MIFGSM, DeepFool, CarliniWagner])
def test_unlabelled_images_have_no_label_to_leave(kind):
    problem = posed("plain")
    problem.labels[1] = -1
    with pytest.raises(InvalidInput, match="against: prediction"):
        kind(against="label").propose(problem, Budget("l2", 1.0))
