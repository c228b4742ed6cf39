"""Several explainers at once."""

from dataclasses import replace

import pytest
import torch

from attacks import build
from attacks.explanation.ensemble import problem_of
from robustlab.core.batch import make_batch
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge, pose
from robustlab.core.streaming import logits_of
from robustlab.explainers import build as explainer
from tests.attacks.problems import posed

BUDGET = Budget("linf", 0.03)
OF = ("gradient", "grad_cam", {"name": "lrp", "composite": "epsilon_plus"})


def values_of(problem, attack, images):
    """The goal's metric for every member, and whose prediction stayed."""
    found = []
    for member in attack.members:
        own = problem_of(problem, member)
        batch = make_batch(images, problem.labels, problem.ids)
        moved = pose(problem.model, own.explainer, batch)
        maps = problem_of(replace(moved, targets=problem.targets), own.explainer).maps
        found.append(attack.objective(own).value(maps))
    kept = logits_of(problem.model, images).argmax(1) == problem.predictions
    return torch.stack(found), kept


def test_twice_the_same_explainer_is_that_explainers_attack():
    problem = posed("smooth")
    twice = build("ensemble", of=["gradient", "gradient"], k=30, steps=4)
    once = build("top_k", k=30, steps=4)
    torch.testing.assert_close(twice.propose(problem, BUDGET), once.propose(problem, BUDGET))


def test_it_moves_all_members_and_the_mean_decides():
    problem = posed("smooth")
    attack = build("ensemble", of=OF, k=30, steps=8)
    images = attack.propose(problem, BUDGET)
    values, kept = values_of(problem, attack, images)
    assert kept.all()
    assert (values > -1).all(), "a member's map has not moved at all"
    for name in ("gradient", "grad_cam"):
        other = problem_of(problem, explainer(name))
        single = build("top_k", k=30, steps=8).propose(other, BUDGET)
        alone, _ = values_of(problem, attack, single)
        assert (values.mean(0) >= alone.mean(0) - 0.05).all()


def test_its_control_shares_tries_and_selection():
    problem = posed("smooth")
    attack = build("ensemble", of=OF, k=30, steps=5)
    control = attack.control()
    assert not control.needs_explainer
    chosen = control.propose(problem, BUDGET)
    found, _ = values_of(problem, attack, chosen)
    tries = [control._draw(problem, BUDGET, n) for n in range(5)]
    best = torch.full((len(problem.images),), -1.0, dtype=torch.float64)
    for images in tries:
        values, kept = values_of(problem, attack, images)
        best = torch.maximum(best, torch.where(kept, values.mean(0), -1.0))
    torch.testing.assert_close(found.mean(0), best)


def test_the_judge_measures_any_explainer_after_it():
    problem = posed("smooth", "smooth_grad")
    found = judge(build("ensemble", of=OF, k=30, steps=2), problem, BUDGET)
    assert found.prediction_kept.all()


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (["gradient"], "at least two"),
        (["gradient", "gradd"], "gradd"),
        (["gradient", "lime"], "black_box attacks any explainer"),
        (["gradient", "activation_maximization"], "explains the model"),
        (["gradient", {"samples": 3}], "names no explainer"),
    ],
    ids=str,
)
def test_members_that_cannot_be_attacked_are_refused(of, words):
    with pytest.raises(InvalidInput, match=words):
        build("ensemble", of=of)
