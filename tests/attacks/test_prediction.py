"""FGSM and PGD: equal to foolbox called directly, and to ten lines written by hand."""

from copy import deepcopy

import foolbox
import pytest
import torch
from foolbox.attacks import L2PGD, L2FastGradientAttack, LinfFastGradientAttack, LinfPGD
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attacks import FGSM, PGD
from robustlab.core import streaming
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.battery import part
from tests.attacks.problems import network, posed
from tests.nets import pictures

BUDGETS = [Budget("linf", 8 / 255), Budget("linf", 0.2), Budget("l2", 0.4), Budget("l2", 3.0)]
EXACT = {torch.float64: 1e-12, torch.float32: 1e-6}


def problem_in(dtype: torch.dtype, name: str = "plain"):
    return posed(deepcopy(network(name)).to(dtype), images=pictures().to(dtype))


def foolbox_attack(problem, attack: object, budget: Budget, labels: Tensor) -> Tensor:
    oracle = deepcopy(problem.model).requires_grad_(False)
    wrapped = foolbox.PyTorchModel(oracle, bounds=(0, 1), device=problem.images.device)
    return attack(wrapped, problem.images, labels, epsilons=budget.epsilon)[1]


def by_hand(
    net: nn.Module, clean: Tensor, labels: Tensor, budget: Budget, step: float, steps: int
) -> Tensor:
    x, epsilon = clean, budget.epsilon
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(net(leaf), labels, reduction="sum"), leaf)
        if budget.norm == "linf":
            delta = (x + step * g.sign() - clean).clamp(-epsilon, epsilon)
        else:
            delta = x + step * g / length(g) - clean
            delta = delta * (epsilon / length(delta)).clamp(max=1)
        x = (clean + delta).clamp(0, 1)
    return x


def length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", ["plain", "residual"])
@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_fgsm_equals_foolbox_and_hand(dtype, name, budget):
    problem = problem_in(dtype, name)
    ours = FGSM().propose(problem, budget)
    oracle = {"linf": LinfFastGradientAttack, "l2": L2FastGradientAttack}[budget.norm]
    theirs = foolbox_attack(problem, oracle(random_start=False), budget, problem.predictions)
    close(ours, theirs)
    hand = by_hand(problem.model, problem.images, problem.predictions, budget, budget.epsilon, 1)
    close(ours, hand)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", ["plain", "residual"])
@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_pgd_equals_foolbox_and_hand(dtype, name, budget):
    problem, step = problem_in(dtype, name), 0.3 * budget.epsilon
    ours = PGD(steps=6, step_size=step).propose(problem, budget)
    oracle = {"linf": LinfPGD, "l2": L2PGD}[budget.norm]
    oracle = oracle(abs_stepsize=step, steps=6, random_start=False)
    close(ours, foolbox_attack(problem, oracle, budget, problem.predictions))
    close(ours, by_hand(problem.model, problem.images, problem.predictions, budget, step, 6))


def close(ours: Tensor, oracle: Tensor) -> None:
    assert ours.dtype == oracle.dtype
    torch.testing.assert_close(ours, oracle, rtol=0, atol=EXACT[ours.dtype])


def test_pgd_steps_by_two_and_a_half_epsilon_over_steps():
    problem, budget = posed("plain"), Budget("linf", 8 / 255)
    explicit = PGD(steps=5, step_size=2.5 * budget.epsilon / 5)
    assert torch.equal(PGD(steps=5).propose(problem, budget), explicit.propose(problem, budget))


def test_one_step_of_pgd_is_fgsm():
    problem, budget = posed("residual"), Budget("linf", 8 / 255)
    close(PGD(steps=1).propose(problem, budget), FGSM().propose(problem, budget))


@pytest.mark.parametrize("attack", [FGSM(against="label"), PGD(steps=3, against="label")], ids=str)
def test_leaves_the_label_where_asked(attack):
    problem, budget = posed("plain"), Budget("linf", 8 / 255)
    assert not torch.equal(problem.labels, problem.predictions)
    steps = getattr(attack, "steps", 1)
    step = 2.5 * budget.epsilon / steps if steps > 1 else budget.epsilon
    hand = by_hand(problem.model, problem.images, problem.labels, budget, step, steps)
    close(attack.propose(problem, budget), hand)


@pytest.mark.parametrize("attack", [FGSM(against="label"), PGD(against="label")], ids=str)
def test_unlabelled_images_have_no_label_to_leave(attack):
    problem = posed("plain")
    problem.labels[1] = -1
    with pytest.raises(InvalidInput, match="against: prediction"):
        attack.propose(problem, Budget())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attack_raises_the_cross_entropy_and_more_steps_raise_it_more(norm):
    problem, budget = posed("residual"), Budget(norm, {"linf": 8 / 255, "l2": 0.4}[norm])

    def loss(images: Tensor) -> Tensor:
        return cross_entropy(problem.model(images), problem.predictions, reduction="none")

    clean = loss(problem.images)
    once = loss(FGSM().propose(problem, budget))
    often = loss(PGD(steps=20).propose(problem, budget))
    assert (once > clean).all()
    assert often.mean() >= once.mean() - 1e-9


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_is_drawn_per_image_inside_the_ball(norm):
    problem, budget = posed("plain"), Budget(norm, 0.1)
    # a step too small to matter shows the start itself
    start = PGD(steps=1, step_size=1e-9, random_start=True).propose(problem, budget)
    radius = budget.radius(start, problem.images)
    assert ((radius > 0.5 * budget.epsilon) & (radius <= budget.epsilon + 1e-9)).all()
    other = PGD(steps=1, step_size=1e-9, random_start=True).propose(part(problem, [2, 0]), budget)
    torch.testing.assert_close(other, start[[2, 0]], rtol=0, atol=1e-8)
    assert not torch.allclose(start[0] - problem.images[0], start[1] - problem.images[1])


def test_every_micro_batch_gets_its_own_labels_and_starts(monkeypatch):
    problem, budget = posed("plain"), Budget("linf", 8 / 255)
    attack = PGD(steps=3, random_start=True, against="label")
    whole = attack.propose(problem, budget)
    monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", 2 * 12 * 12)
    torch.testing.assert_close(attack.propose(problem, budget), whole, rtol=0, atol=1e-12)


def test_respects_a_narrower_pixel_box():
    images = 0.3 + 0.4 * pictures()
    budget = Budget("linf", 0.1, lower=0.3, upper=0.7)
    problem = posed("plain", images=images)
    moved = PGD(steps=4).propose(problem, budget)
    assert float(moved.min()) >= 0.3 - 1e-12
    assert float(moved.max()) <= 0.7 + 1e-12
    assert float(moved.min()) == pytest.approx(0.3, abs=1e-12), "the box must bind"
