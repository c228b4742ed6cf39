"""Restarts and adaptive steps."""

import math

import pytest
import torch

from attacks import build
from attacks.explanation.pace import Adaptive, _checkpoints
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.problems import maps_of, posed

BUDGET = Budget("linf", 0.05)


def test_checkpoints_are_those_of_the_paper():
    """Croce & Hein 2020, eq. 4 and 5, for 100 iterations."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    expected = {math.floor(100 * p + 0.5) for p in shares[1:]}
    assert _checkpoints(100) == {p for p in expected if p < 100}
    assert {22, 41, 57, 70, 80, 87, 93, 99} == _checkpoints(100)


class Told:
    """A selection whose best values are told to it."""

    def __init__(self, images):
        self.images, self.values = images + 1, torch.full((len(images),), -torch.inf)


def test_an_image_that_does_not_improve_halves_its_step_and_goes_back():
    problem = posed("plain")
    images = problem.images
    pace, best = Adaptive(problem, BUDGET, 100), Told(images)
    climbing = torch.tensor([1.0, 0.0, 1.0])
    for step in range(23):
        values = climbing * step
        best.values = torch.maximum(best.values, values)
        went = pace.after(step, images, values, best)
        if step < 22:
            assert torch.equal(went, images)
    assert pace.length.flatten().tolist() == pytest.approx([0.1, 0.05, 0.1])
    pace = Adaptive(problem, BUDGET, 100)
    for step in range(22):
        pace.after(step, images, climbing * step, best)
    went = pace.after(22, images, climbing * 22, best)
    assert torch.equal(went[0], images[0])
    assert torch.equal(went[1], best.images[1])


def test_a_lost_prediction_is_no_improvement():
    problem = posed("plain")
    pace, best = Adaptive(problem, BUDGET, 100), Told(problem.images)
    for step in range(23):
        pace.after(step, problem.images, torch.full((3,), -torch.inf), best)
    assert pace.length.flatten().tolist() == pytest.approx([0.05] * 3)


@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
def test_more_restarts_are_never_weaker(path):
    problem = posed("smooth")
    attack = {"name": "top_k", "k": 30, "steps": 3, "path": path}
    values = build(**attack).objective(problem).value
    once, thrice = (
        values(maps_of(problem, build(**attack, restarts=n).propose(problem, BUDGET)))
        for n in (1, 3)
    )
    assert (thrice >= once).all()
    assert (thrice > once).any(), "the restarts found nothing new: they do not start elsewhere"


def test_restarts_multiply_the_tries_of_the_control():
    assert build("top_k", steps=4, restarts=3).control().tries == 12


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"restarts": 0}, "restarts"),
        ({"restarts": 2, "select": "last"}, "restarts"),
        ({"schedule": "adaptive", "step_size": 0.1}, "step_size"),
        ({"schedule": "adaptive", "optimiser": "adam"}, "schedule"),
        ({"schedule": "adaptive", "select": "last"}, "schedule"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(options, field):
    with pytest.raises(InvalidInput, match=rf"top_k\.{field}"):
        build("top_k", **options)
