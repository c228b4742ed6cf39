"""The black-box attack against closed forms: what it must reach, and what it never can."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from attacks import RandomSign, build
from attacks.explanation.black_box import BlackBox
from attacks.explanation.evolution import direction, steps_of
from attacks.explanation.objectives import Objective
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge
from robustlab.explainers import build as explainer
from robustlab.metrics import build as metric
from tests.attacks.problems import maps_of, posed
from tests.nets import Quadratic, linear, pictures, seeded

SIZE = 4
MIDDLE = Budget("linf", 0.05)


@dataclass(frozen=True, eq=False)
class Tilt:
    """Σ_i v_i m_i: linear in the map, which is linear in the image."""

    v: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return (maps * self.v[where]).sum((1, 2))

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


@dataclass(frozen=True, kw_only=True)
class Tilted(BlackBox):
    def objective(self, problem) -> Objective:
        g = torch.Generator().manual_seed(5)
        return Tilt(torch.randn(problem.maps.shape, generator=g, dtype=torch.float64))


@pytest.fixture(scope="module")
def quadratic():
    images = 0.3 + 0.4 * pictures(2, SIZE)
    return posed(seeded(lambda: Quadratic(3 * SIZE * SIZE)), explainer("gradient", post="signed"),
                 images)  # fmt: skip


def slope(problem, attack) -> Tensor:
    """The gradient of the tilt in the pixels, the same everywhere: Aᵀ applied to v."""
    leaf = problem.images.clone().requires_grad_()
    raw = problem.explainer.explain(problem.model, leaf, problem.targets, create_graph=True)
    loss = attack.objective(problem).loss(raw.sum(1), slice(None)).sum()
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.8), ("l2", 0.8)])
def test_it_reaches_most_of_the_known_optimum_with_enough_queries(quadratic, norm, share):
    budget = Budget(norm, 0.05 if norm == "linf" else 0.3)
    attack = Tilted(queries=600, population=30, grid=SIZE, rate=0.2, sigma=0.3)
    c = slope(quadratic, attack).flatten(1)
    dual = c.abs().sum(1) if norm == "linf" else c.norm(dim=1)
    images = attack.propose(quadratic, budget)
    value = attack.objective(quadratic).value
    gained = value(maps_of(quadratic, images)) - value(quadratic.maps)
    assert (gained >= share * budget.epsilon * dual).all(), gained / (budget.epsilon * dual)
    assert (gained <= (1 + 1e-9) * budget.epsilon * dual).all()


def test_it_beats_random_signs_of_as_many_queries(quadratic):
    attack = Tilted(queries=200, population=20, grid=SIZE)
    control = RandomSign(tries=200, like=attack)
    value = attack.objective(quadratic).value
    ours, theirs = (
        value(maps_of(quadratic, a.propose(quadratic, MIDDLE))) for a in (attack, control)
    )
    assert (ours > theirs).all()


def test_one_generation_points_along_the_true_gradient(quadratic):
    attack = Tilted(queries=400, population=400, grid=SIZE, sigma=0.1)
    c = slope(quadratic, attack)
    steps = steps_of(attack, quadratic, 0, 400, "black_box")
    value = attack.objective(quadratic).value
    gains = torch.stack([value(maps_of(quadratic, quadratic.images + 0.01 * s)) for s in steps])
    marks = torch.stack([gains, torch.zeros_like(gains)], 2)
    cosine = torch.cosine_similarity(direction(marks, steps).flatten(1), c.flatten(1))
    # of n random directions in d dimensions a cosine of about √(n / (n + d)) is to be had
    assert (cosine > 0.8).all(), cosine
    wrong = torch.cosine_similarity(direction(-marks, steps).flatten(1), c.flatten(1))
    torch.testing.assert_close(wrong, -cosine)


@pytest.mark.parametrize(
    ("metric_", "loss", "weights"),
    [
        ([0, 0, 0, 0], [7, 7, 7, 7], [0, 0, 0, 0]),
        ([1, 2, 3, 4], [0, 0, 0, 0], [-3, -1, 1, 3]),
        ([2, -torch.inf, -torch.inf, -torch.inf], [9] * 4, [3, -1, -1, -1]),
        ([5, 1, 5, 1], [0, 3, 1, 2], [1, -1, 3, -3]),  # equals go by their loss
        ([5, 1, 5, 1], [2, 3, 2, 3], [2, -2, 2, -2]),  # equals in both share their rank
    ],
)
def test_candidates_count_by_their_rank(metric_, loss, weights):
    steps = torch.randn(4, 1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    marks = torch.tensor([metric_, loss]).double().T.unsqueeze(1)
    if torch.inf in [-m for m in metric_]:
        marks[1:] = -torch.inf
    expected = sum(w * step for w, step in zip(weights, steps, strict=True))
    length = expected.square().mean().sqrt().clamp(min=1e-300)
    torch.testing.assert_close(direction(marks, steps), expected / length)


def test_a_generation_that_loses_every_prediction_sends_the_mean_half_the_way_back(quadratic):
    latents = []

    @dataclass(frozen=True, kw_only=True)
    class Lost(Tilted):
        """After its first generation no candidate keeps the prediction of the second image."""

        def _marks(self, problem, budget, best, objective, latent):
            latents.append(latent)
            marks = latent.sum((1, 2, 3)).unsqueeze(1).repeat(1, 2)
            if len(latents) > self.population:
                marks[1] = -torch.inf
            return marks

    attack = Lost(queries=16, population=4, grid=SIZE, rate=0.1)
    attack.propose(quadratic, Budget("l2", 0.3))
    first, second, third = ((latents[g] + latents[g + 1]) / 2 for g in (4, 8, 12))
    assert first.flatten(1).norm(dim=1).min() > 0.1
    torch.testing.assert_close(second[1], first[1] / 2)
    torch.testing.assert_close(third[1], first[1] / 4)
    assert (third.sum((1, 2, 3))[0] > second.sum((1, 2, 3))[0]).all(), "the other one climbs on"


def test_a_cell_moves_as_one_and_reaches_the_corners_of_the_ball(quadratic):
    attack = Tilted(queries=40, grid=2, sigma=3.0)
    change = (attack.propose(quadratic, MIDDLE) - quadratic.images).unfold(2, 2, 2).unfold(3, 2, 2)
    cells = change.flatten(4)
    torch.testing.assert_close(cells, cells[..., :1].expand_as(cells))
    assert float((cells.abs() > 0.999 * MIDDLE.epsilon).double().mean()) > 0.5


def test_the_gradient_of_a_linear_net_cannot_be_moved():
    problem = posed(linear(3 * SIZE * SIZE, 3), "gradient", pictures(2, SIZE))
    result = judge(build("black_box", k=4, queries=20, grid=2), problem, MIDDLE)
    assert torch.equal(result.maps, result.clean_maps)
    assert result.outcomes == ("infeasible",) * 2


@pytest.mark.parametrize("name", ["lime", "occlusion"])
def test_it_moves_explanations_that_have_no_gradient_or_are_dear(name):
    options = {"lime": {"samples": 40}, "occlusion": {}}[name]
    problem = posed("plain", explainer(name, **options))
    attack = build("black_box", k=30, queries=8, population=4, grid=6)
    result = judge(attack, problem, Budget("linf", 0.1))
    assert bool(result.prediction_kept.all())
    assert (metric("top_k_intersection", k=30)(result.clean_maps, result.maps) < 1).any()


def test_queries_are_counted_and_kept_to(quadratic):
    explained = []

    @dataclass(frozen=True)
    class Counting:
        inner: object
        differentiable = "none"
        post = "signed"

        def explain(self, *args: object, **kwargs: object) -> Tensor:
            explained.append(1)
            return self.inner.explain(*args, **kwargs)

    problem = replace(quadratic, explainer=Counting(quadratic.explainer))
    for queries in (1, 7, 23):
        explained.clear()
        Tilted(queries=queries, population=5, grid=2).propose(problem, MIDDLE)
        assert len(explained) == queries


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"queries": 0}, "black_box.queries", "at least 1"),
        ({"population": 1}, "black_box.population", "at least 2"),
        ({"grid": 0}, "black_box.grid", "at least 1"),
        ({"k": 0}, "black_box.k", "at least 1"),
        ({"sigma": 0}, "black_box.sigma", "above 0"),
        ({"rate": -1}, "black_box.rate", "above 0"),
        ({"goal": "topk"}, "black_box.goal", "'top_k'"),
        ({"box": (0.5, 0, 0.2, 1)}, "black_box.box", "not within"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("black_box", **options)
    assert caught.value.field == field
