"""Searches among images nearby: against closed forms, and what a search must not win by."""

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from attacks.explanation.climbing import climb_to
from robustlab.core.errors import InvalidInput
from robustlab.core.types import Problem
from robustlab.core.wrapping import Counted
from robustlab.explainers import build as explainer
from robustlab.metrics import build
from robustlab.metrics.nearby import EXPLANATIONS_PER_STEP
from tests.attacks.problems import posed
from tests.metrics.nearby import SEARCHED, SIZE, Scaled, Told, examined, problem_of
from tests.nets import Quadratic, linear, pictures, seeded


@cache
def quadratic() -> tuple[Problem, Tensor]:
    """Φ(x) = A_t x + b_t without a norm of its own, and A_t for each image."""
    net = seeded(lambda: Quadratic(3 * SIZE * SIZE))
    problem = posed(net, explainer("gradient"), 0.3 + 0.4 * pictures(2, SIZE))
    return problem, net.a.detach()[problem.targets]


# --- closed forms --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("search", ["none", "gradient", "evolution"])
def test_the_gradient_of_a_linear_model_cannot_move(name, search):
    problem = posed(linear(3 * SIZE * SIZE, 4), "gradient", pictures(2, SIZE))
    value = examined(name, problem, climb_to, search=search, samples=4, steps=4)
    assert torch.equal(value, torch.zeros(2).double())


@pytest.mark.parametrize("way", ["products", "graph"])
def test_of_a_linear_explanation_the_lipschitz_constant_is_the_norm_of_its_matrix(way):
    problem, a = quadratic()
    if way == "graph":
        problem = replace(problem, explainer=Scaled())
    options = {"compare": "raw", "radius": 0.05, "samples": 10}
    most = torch.linalg.matrix_norm(a, 2)
    sampled = examined("local_lipschitz", problem, **options)
    found = examined("local_lipschitz", problem, climb_to, search="gradient", steps=60, **options)
    assert (found <= (1 + 1e-9) * most).all()
    assert (found >= 0.97 * most).all(), found / most
    assert (sampled < 0.9 * most).all(), "canary: random copies come near by themselves"


def test_of_a_linear_explanation_the_largest_change_is_at_a_corner():
    problem, a = quadratic()
    options = {"compare": "raw", "radius": 0.05, "samples": 10}
    corners = 0.05 * torch.tensor([*product((-1.0, 1.0), repeat=12)]).double()
    most = (corners @ a).norm(dim=2).amax(1) / problem.raw.flatten(1).norm(dim=1)
    found = examined("max_sensitivity", problem, climb_to, search="gradient", **options)
    blind = examined("max_sensitivity", problem, climb_to, search="evolution", **options)
    sampled = examined("max_sensitivity", problem, **options)
    assert (found <= (1 + 1e-9) * most).all() and (blind <= (1 + 1e-9) * most).all()
    assert (found >= 0.88 * most).all() and (blind >= 0.8 * most).all()  # one corner of many
    assert (sampled < 0.7 * most).all(), "canary"


def test_of_a_linear_explanation_sensitivity_grows_with_the_radius_and_lipschitz_does_not():
    problem, _ = quadratic()
    for name in ("max_sensitivity", "avg_sensitivity", "local_lipschitz"):
        small, large = (
            examined(name, problem, compare="raw", radius=r, samples=5) for r in (0.01, 0.03)
        )
        growth = 1 if name == "local_lipschitz" else 3
        torch.testing.assert_close(large, growth * small)
    for name in ("max_sensitivity", "local_lipschitz"):
        searched = [
            examined(name, problem, climb_to, search="gradient", radius=r, samples=5, steps=12)
            for r in (0.005, 0.01, 0.03)
        ]
        if name == "max_sensitivity":
            assert (searched[0] < searched[1]).all() and (searched[1] < searched[2]).all()


# --- what a search may find, and where -----------------------------------------------------


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize(
    ("search", "shows"),
    [
        ("gradient", "gradient"),
        ("gradient", "grad_cam"),
        ("gradient", "lrp"),
        ("evolution", "gradient"),
        ("evolution", "occlusion"),
    ],
)
def test_a_search_never_finds_less_on_any_image(name, search, shows):
    problem = problem_of("plain", shows)
    options = {"samples": 4, "radius": 0.05}
    sampled = examined(name, problem, **options)
    steps = 2 if shows == "occlusion" else 6
    searched = examined(name, problem, climb_to, search=search, steps=steps, **options)
    assert (searched >= sampled).all()
    assert (searched > sampled).any(), "the search finds nothing at all"


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_is_not_believed(name):
    problem, asked = problem_of("plain"), []

    def lies(search, posed_, change, start, budget, steps):
        asked.append((search, posed_.seed, steps))
        raw = posed_.explainer.explain(posed_.model, start, posed_.targets, ids=posed_.ids)
        began = change.value(start, raw, slice(0, 3))
        torch.testing.assert_close(began, sampled)  # at the best copies
        return posed_.images.clone()  # where nothing has changed

    options = {"samples": 4, "seed": 5}
    sampled = examined(name, problem, **options)
    found = examined(name, problem, lies, search="evolution", steps=9, **options)
    assert torch.equal(found, sampled) and asked == [("evolution", 5, 9)]


def test_a_floor_keeps_a_search_from_winning_next_to_the_image():
    problem = problem_of("plain")  # whose gradient jumps at every kink
    options = {"search": "gradient", "steps": 30, "samples": 4, "radius": 0.05}
    bounded = examined("local_lipschitz", problem, climb_to, **options, floor=0.1)
    free = examined("local_lipschitz", problem, climb_to, **options, floor=1e-9)
    sampled = [examined("local_lipschitz", problem, samples=4, floor=f) for f in (0.1, 1e-9)]
    assert torch.equal(*sampled), "a copy is never so near"
    assert (free >= sampled[0]).all() and (bounded >= sampled[0]).all()
    length = problem.images[0].numel() ** 0.5
    jump = examined("max_sensitivity", problem, climb_to, **options)
    most = 20 * jump * problem.maps.flatten(1).norm(dim=1)
    assert (bounded <= most / (0.1 * 0.05 * length)).all()


def test_next_to_a_jump_the_floor_is_what_counts():
    base = problem_of("plain")
    problem = posed("plain", Told(known=base.images, here=1.0, there=3.0))
    length, jump = 0.1 * problem.images[0].numel() ** 0.5, 2.0 * 12

    def next_door(search, posed_, change, start, budget, steps):
        return posed_.images + 1e-9

    for floor in (0.01, 0.2):
        value = examined(
            "local_lipschitz", problem, next_door, search="evolution", radius=0.1, samples=3,
            floor=floor, compare="raw",
        )  # fmt: skip
        torch.testing.assert_close(value, torch.full((3,), jump / (floor * length)).double())


def test_a_search_by_gradient_wants_one():
    problem = problem_of("plain", "lime", samples=40)
    with pytest.raises(InvalidInput, match="has no gradient to climb; search: evolution"):
        examined("max_sensitivity", problem, climb_to, search="gradient", samples=1)


# --- what it costs -------------------------------------------------------------------------


def test_the_cost_of_a_search_is_about_what_is_stated():
    for search, shows in (("gradient", "gradient"), ("evolution", "grad_cam")):
        counted = Counted(problem_of("plain").model)
        problem = replace(problem_of("plain", shows), model=counted)
        metric = build("max_sensitivity", samples=2, search=search, steps=20)
        metric.examine(problem, climb_to)
        assert counted.forwards == pytest.approx(
            3 * metric.cost(problem.explainer).forward, rel=0.3
        )


def test_the_passes_per_step_are_those_of_the_searches():
    assert EXPLANATIONS_PER_STEP == {"none": 0, "gradient": 3, "evolution": 8}
