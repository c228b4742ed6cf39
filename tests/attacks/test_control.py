"""The floors: what chance does, by exact draws, and how options are refused."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import kstest

from attacks import PGD, RandomNoise, RandomSign, TargetRegion, TopK, build
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from tests.attacks.battery import part
from tests.attacks.problems import maps_of, posed

GREY = torch.full((3, 3, 12, 12), 0.5, dtype=torch.float64)
DYADIC = 1 / 16  # 0.5 ± 1/16 is exact in binary


def test_random_sign_moves_every_pixel_by_epsilon_exactly():
    problem = posed("plain", images=GREY)
    delta = RandomSign().propose(problem, Budget("linf", DYADIC)) - GREY
    assert torch.equal(delta.abs(), torch.full_like(GREY, DYADIC))
    share = float((delta > 0).double().mean())
    assert abs(share - 0.5) < 0.05  # 1296 fair draws: three standard deviations are 0.042
    assert not torch.equal(delta[0], delta[1])


def test_random_sign_is_clipped_only_by_the_box():
    problem, epsilon = posed("plain"), 8 / 255
    signs = (
        RandomSign().propose(posed("plain", images=GREY), Budget("linf", epsilon)) - GREY
    ).sign()
    moved = RandomSign().propose(problem, Budget("linf", epsilon))
    wanted = (problem.images + epsilon * signs).clamp(0, 1)
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1e-15)


def test_random_sign_in_l2_has_length_epsilon_spread_evenly():
    problem = posed("plain", images=GREY)
    delta = RandomSign().propose(problem, Budget("l2", 0.7)) - GREY
    each = torch.full_like(delta, 0.7 / (3 * 12 * 12) ** 0.5)
    torch.testing.assert_close(delta.abs(), each, rtol=1e-6, atol=0)


def test_random_noise_is_uniform_in_the_linf_ball():
    problem = posed("plain", images=GREY)
    delta = (RandomNoise().propose(problem, Budget("linf", 0.1)) - GREY) / 0.1
    assert float(delta.abs().max()) <= 1
    for image in delta:
        assert kstest(image.flatten().numpy(), "uniform", (-1, 2)).pvalue > 0.01


def test_random_noise_in_l2_is_a_random_direction_of_full_length():
    problem = posed("plain", images=GREY)
    delta = RandomNoise().propose(problem, Budget("l2", 0.7)) - GREY
    torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((3,), 0.7).double())
    for image in delta:
        assert kstest((image / image.std()).flatten().numpy(), "norm").pvalue > 0.01
    gram = torch.corrcoef(delta.flatten(1))
    assert float((gram - torch.eye(3)).abs().max()) < 0.2


@pytest.mark.parametrize("attack", [RandomSign(), RandomNoise()], ids=str)
def test_draws_belong_to_seed_and_image(attack):
    problem, budget = posed("plain", images=GREY), Budget("linf", 0.1)
    first = attack.propose(problem, budget)
    swapped = attack.propose(part(problem, [2, 0]), budget)
    assert torch.equal(swapped, first[[2, 0]])
    other = part(problem, [0, 1, 2])
    object.__setattr__(other, "seed", 1)
    assert not torch.equal(attack.propose(other, budget), first)


def test_tries_are_independent_and_the_best_one_wins():
    """The best of n by hand, with the draws of `RandomSign` itself."""
    problem, budget = posed("plain"), Budget("linf", 6 / 255)
    objective, attack = TargetRegion().objective(problem), RandomSign(tries=5, like=TargetRegion())
    best, value = problem.images.clone(), objective.value(problem.maps)
    draws = [attack._draw(problem, budget, number) for number in range(5)]
    for draw in draws:
        kept = problem.model(draw).argmax(1) == problem.predictions
        reached = objective.value(maps_of(problem, draw))
        for i in range(3):
            if kept[i] and reached[i] > value[i]:
                best[i], value[i] = draw[i], reached[i]
    assert torch.equal(attack.propose(problem, budget), best)
    assert not any(torch.equal(draws[0], draw) for draw in draws[1:])


def test_more_tries_are_never_worse():
    problem, budget = posed("plain"), Budget("linf", 6 / 255)
    objective = TargetRegion().objective(problem)
    values = [
        objective.value(
            maps_of(problem, RandomSign(tries=n, like=TargetRegion()).propose(problem, budget))
        )
        for n in (1, 2, 4, 8)
    ]
    assert all((b >= a).all() for a, b in pairwise(values))
    assert (values[-1] > values[0]).any()


@pytest.mark.parametrize(
    ("name", "options"),
    [("top_k", {"k": 7}), ("mass_center", {}), ("target_region", {}), ("target_map", {})],
)
def test_control_shares_objective_and_tries(name, options):
    attack = build(name, steps=6, **options)
    control = attack.control()
    assert control == RandomSign(tries=6, like=attack)
    assert control.like is attack


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("none", None),
        ("random_sign", None),
        ("random_noise", None),
        ("fgsm", RandomSign()),
        ("pgd", RandomSign()),
    ],
)
def test_control_of_an_attack_without_selection_is_one_draw(name, control):
    assert build(name).control() == control


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("topk", {}, "attack: .*did you mean 'top_k'"),
        ("top_k", {"stpes": 3}, r"top_k\.stpes: .*did you mean 'steps'"),
        ("pgd", {"stepsize": 3}, r"pgd\.stepsize: .*did you mean 'step_size'"),
        ("none", {"steps": 3}, r"none\.steps: .*no options"),
        ("top_k", {"steps": 0}, r"top_k\.steps: must be at least 1, got 0"),
        ("pgd", {"steps": 0}, r"pgd\.steps: must be at least 1, got 0"),
        ("top_k", {"step_size": -0.1}, r"top_k\.step_size: must be above 0, got -0\.1"),
        ("top_k", {"step_size": 0}, r"top_k\.step_size: must be above 0"),
        ("top_k", {"step_size": float("nan")}, r"top_k\.step_size: must be above 0"),
        ("pgd", {"step_size": -1}, r"pgd\.step_size: must be above 0"),
        ("top_k", {"step_size": float("inf")}, r"top_k\.step_size: must be finite, got inf"),
        ("pgd", {"step_size": float("inf")}, r"pgd\.step_size: must be finite, got inf"),
        ("top_k", {"probe": float("inf")}, r"top_k\.probe: must be finite, got inf"),
        ("top_k", {"beta": float("inf")}, r"top_k\.beta: must be finite, got inf"),
        ("top_k", {"beta": [10, float("inf")]}, r"top_k\.beta: must be finite, got inf"),
        ("target_map", {"output_weight": float("inf")}, r"target_map\.output_weight: must be fin"),
        ("target_region", {"box": [0, 0, float("nan"), 1]}, r"target_region\.box"),
        ("top_k", {"probe": 0}, r"top_k\.probe: must be above 0"),
        ("top_k", {"beta": 0}, r"top_k\.beta: must be above 0"),
        ("top_k", {"beta": [10, -1]}, r"top_k\.beta: must be above 0"),
        ("target_map", {"output_weight": -1}, r"target_map\.output_weight: must be at least 0"),
        ("top_k", {"steps": "many"}, r"top_k\.steps"),
        ("top_k", {"select": "best"}, r"top_k\.select"),
        ("top_k", {"path": "black_box"}, r"top_k\.path"),
        ("top_k", {"optimiser": "sgd"}, r"top_k\.optimiser"),
        ("fgsm", {"against": "target"}, r"fgsm\.against"),
        ("random_sign", {"tries": 0}, r"random_sign\.tries: must be at least 1"),
        ("random_sign", {"tries": 3}, r"random_sign\.tries: .*select like"),
        ("target_region", {"box": [0, 0, 1.5, 1]}, r"target_region\.box: .*within the image"),
        ("target_region", {"box": [-0.1, 0, 1, 1]}, r"target_region\.box"),
        ("target_region", {"box": [0.5, 0, 0.5, 1]}, r"target_region\.box"),
        ("target_region", {"box": [0, 0.9, 1, 0.1]}, r"target_region\.box"),
    ],
)
def test_options_are_refused_in_the_callers_words(name, options, message):
    with pytest.raises(InvalidInput, match=message):
        build(name, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("cls", "field"),
    [(TopK, "step_size"), (TopK, "probe"), (TopK, "beta"), (TopK, "output_weight"),
     (PGD, "step_size")],
)  # fmt: skip
def test_an_attack_made_by_hand_refuses_what_is_not_finite(cls, field, value):
    with pytest.raises(InvalidInput) as caught:
        cls(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("k", [0, -3, 145])
def test_top_k_needs_a_k_within_the_map(k):
    problem = posed("plain")
    with pytest.raises(InvalidInput, match=rf"k: {k} is not within 1\.\.144"):
        build("top_k", k=k).propose(problem, Budget())
    build("top_k", k=144, steps=1).propose(problem, Budget())


def test_a_region_between_pixels_is_refused():
    problem = posed("plain")
    with pytest.raises(InvalidInput, match=r"box: .*holds no pixel"):
        TargetRegion(box=(0.0, 0.0, 0.01, 0.01)).propose(problem, Budget())


def test_random_sign_can_be_built_like_another_attack():
    like = TopK(k=5)
    assert build("random_sign", tries=3, like=like) == RandomSign(tries=3, like=like)


@pytest.mark.parametrize("like", ["top_k", 3, build("fgsm")], ids=str)
def test_random_sign_refuses_to_be_like_something_without_objective(like):
    with pytest.raises(InvalidInput, match=r"random_sign\.like"):
        build("random_sign", tries=3, like=like)
