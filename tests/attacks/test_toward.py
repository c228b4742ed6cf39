"""Which class a targeted attack leads to, and that it arrives."""

import foolbox
import pytest
import torch
from foolbox.attacks import L2PGD, LinfPGD

from attacks import MIFGSM, PGD, CarliniWagner, Dual, Patch, build
from attacks.toward import classes_toward, pull
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.problems import posed

FAR = {"linf": Budget("linf", 0.3), "l2": Budget("l2", 4.0), "patch": Budget("patch", 0.6)}
ARRIVING = [
    (PGD, "linf", {"steps": 40}),
    (PGD, "l2", {"steps": 40}),
    (MIFGSM, "linf", {"steps": 40}),
    (MIFGSM, "l2", {"steps": 40}),
    (CarliniWagner, "l2", {"steps": 40, "step_size": 0.05, "binary_search_steps": 6}),
    (Dual, "linf", {"steps": 40}),
    (Dual, "l2", {"steps": 40}),
    (Patch, "patch", {"steps": 60, "weight": 100.0}),  # an untrained net has small logits
    (Patch, "patch", {"steps": 60, "hide": False}),
]


def ranked(problem):
    """Class indices of each image, likeliest first."""
    with torch.no_grad():
        return problem.model(problem.images).argsort(1, descending=True)


def test_runner_up_and_least_likely_are_the_second_and_the_last():
    problem = posed("plain")
    assert torch.equal(classes_toward(problem, "runner_up"), ranked(problem)[:, 1])
    assert torch.equal(classes_toward(problem, "least_likely"), ranked(problem)[:, -1])
    assert classes_toward(problem, 3).tolist() == [3, 3, 3]


def test_among_equal_logits_another_class_than_the_prediction_is_chosen():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3).double()).eval()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    problem = posed(net)
    assert problem.predictions.tolist() == [0, 0, 0]
    for toward in ("runner_up", "least_likely"):
        assert (classes_toward(problem, toward) != 0).all()


@pytest.mark.parametrize("toward", ["runner_up", "least_likely", 2])
@pytest.mark.parametrize(("attack", "norm", "options"), ARRIVING, ids=str)
def test_targeted_attack_reaches_its_class(attack, norm, options, toward):
    problem = posed("plain", "grad_cam")
    wanted = {
        "runner_up": ranked(problem)[:, 1],
        "least_likely": ranked(problem)[:, -1],
        2: torch.full((3,), 2),
    }[toward]
    assert (wanted != problem.predictions).any(), "nothing to reach"
    moved = attack(toward=toward, **options).propose(problem, FAR[norm])
    with torch.no_grad():
        assert torch.equal(problem.model(moved).argmax(1), wanted)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_pgd_equals_foolbox(norm):
    problem, budget = posed("plain"), Budget(norm, {"linf": 0.05, "l2": 0.5}[norm])
    oracle = {"linf": LinfPGD, "l2": L2PGD}[norm]
    criterion = foolbox.criteria.TargetedMisclassification(ranked(problem)[:, 1])
    wrapped = foolbox.PyTorchModel(problem.model, bounds=(0, 1), device="cpu")
    attack = oracle(abs_stepsize=0.01, steps=5, random_start=False)
    theirs = attack(wrapped, problem.images, criterion, epsilons=budget.epsilon)[1]
    problem.model.zero_grad()
    ours = PGD(steps=5, step_size=0.01, toward="runner_up").propose(problem, budget)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_pull_is_minus_the_gradient_of_the_cross_entropy():
    problem, wanted = posed("plain"), torch.tensor([1, 0, 4])
    leaf = problem.images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(problem.model(leaf), wanted, reduction="sum")
    (expected,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(pull(problem, problem.images, wanted), -expected)


def test_targets_need_no_labels_even_where_the_label_is_to_be_left():
    problem = posed("plain")
    attack = PGD(against="label", toward="runner_up", steps=1)
    expected = attack.propose(problem, FAR["linf"])
    problem.labels[1] = -1
    assert torch.equal(attack.propose(problem, FAR["linf"]), expected)
    with pytest.raises(InvalidInput, match="some images have none"):
        PGD(against="label", steps=1).propose(problem, FAR["linf"])


@pytest.mark.parametrize("name", ["fgsm", "deep_fool"])
def test_attacks_that_only_leave_a_class_name_those_that_reach_one(name):
    with pytest.raises(InvalidInput, match=r"pgd, mi_fgsm and carlini_wagner") as caught:
        build(name, toward="runner_up")
    assert caught.value.field == f"{name}.toward"


@pytest.mark.parametrize("toward", ["runnerup", -1, True, 2.5])
@pytest.mark.parametrize("attack", [PGD, MIFGSM, CarliniWagner, Dual, Patch])
def test_what_is_no_class_is_refused(attack, toward):
    with pytest.raises(InvalidInput, match="runner_up, least_likely or a class index"):
        attack(toward=toward)


def test_a_class_that_the_model_lacks_is_refused():
    with pytest.raises(InvalidInput, match=r"class 5 is out of range; the model has 0\.\.4"):
        PGD(toward=5).propose(posed("plain"), FAR["linf"])


def test_a_model_of_one_class_has_nowhere_to_go():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 1).double()).eval()
    with pytest.raises(InvalidInput, match="one class"):
        PGD(toward="runner_up").propose(posed(net), FAR["linf"])
