"""Attack strength against closed forms: nets whose best disturbance is known, and one without.

Where the map is linear in the image, so is an objective that is linear in the map: its
gradient c is the same everywhere, and the best disturbance follows from c alone.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from attacks import ATTACKS, RandomSign, build
from attacks.explanation.ascent import Ascent, ascend
from robustlab.core.budget import Budget
from robustlab.core.judge import judge
from robustlab.explainers import build as explainer
from robustlab.metrics import build as metric
from tests.attacks.problems import maps_of, posed
from tests.nets import Quadratic, pictures, seeded

SIZE, PIXELS = 4, 3 * 4 * 4


@dataclass(frozen=True, eq=False)
class Tilt:
    """Σ_i v_i m_i: linear in the map."""

    v: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        return (maps * self.v[where]).sum((1, 2))

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


@dataclass(frozen=True, kw_only=True)
class Tilted(Ascent):
    """Raises a weighted sum of the map, weights drawn once."""

    def objective(self, problem):
        g = torch.Generator().manual_seed(5)
        return Tilt(torch.randn(problem.maps.shape, generator=g, dtype=torch.float64))

    def propose(self, problem, budget):
        return ascend(problem, budget, self.objective(problem), self)

    def control(self):
        return RandomSign(tries=self.steps, like=self)


def best_gain(c: Tensor, images: Tensor, budget: Budget) -> Tensor:
    """max ⟨c, δ⟩: over the ball and the box for linf; for l2 over the ball alone."""
    if budget.norm == "l2":
        return budget.epsilon * c.flatten(1).norm(dim=1)
    up = (1 - images).clamp(max=budget.epsilon)
    down = images.clamp(max=budget.epsilon)
    return torch.where(c > 0, c * up, -c * down).sum((1, 2, 3))


def gain(attack: Tilted, problem, budget: Budget) -> Tensor:
    objective = attack.objective(problem)
    moved = maps_of(problem, attack.propose(problem, budget))
    return objective.value(moved) - objective.value(problem.maps)


def quadratic_problem(images: Tensor):
    """Map A x + b summed over channels, and the gradient c = A Sᵀ v of the objective."""
    net = seeded(lambda: Quadratic(PIXELS))
    with torch.no_grad():
        net.b[1] = 100  # one class by far: what is tested is strength, not feasibility
    problem = posed(net, explainer("gradient", post="signed"), images)
    v = Tilted().objective(problem).v
    c = v[:, None].expand(-1, 3, -1, -1).flatten(1) @ net.a[1].detach()
    return problem, c.view_as(images)


# random pixels for linf, where the box is part of the closed form; grey ones for l2
CASES = [
    (Budget("linf", 8 / 255), pictures(size=SIZE)),
    (Budget("linf", 0.3), pictures(size=SIZE)),
    (Budget("l2", 0.5), torch.full((3, 3, SIZE, SIZE), 0.5, dtype=torch.float64)),
]


@pytest.mark.parametrize(("budget", "images"), CASES, ids=["linf", "linf at the box", "l2"])
@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
@pytest.mark.parametrize("options", [{}, {"random_start": True}, {"steps": 1}], ids=str)
def test_reaches_the_optimum_on_a_quadratic_model(path, options, budget, images):
    problem, c = quadratic_problem(images)
    attack = Tilted(path=path, beta=None, **options)
    share = gain(attack, problem, budget) / best_gain(c, problem.images, budget)
    assert (share >= 0.95).all(), f"reached {share.tolist()}"
    assert (share <= 1 + 1e-9).all(), f"more than possible: {share.tolist()}"


def test_adam_reaches_the_linf_optimum_too():
    problem, c = quadratic_problem(pictures(size=SIZE))
    budget = Budget("linf", 8 / 255)
    share = gain(Tilted(optimiser="adam"), problem, budget) / best_gain(c, problem.images, budget)
    assert (share >= 0.95).all(), f"reached {share.tolist()}"


@pytest.mark.parametrize(("budget", "images"), CASES, ids=["linf", "linf at the box", "l2"])
def test_random_signs_stay_far_below_the_optimum(budget, images):
    """The bar above means something: chance does not come near it."""
    problem, c = quadratic_problem(images)
    control = Tilted().control()
    moved = maps_of(problem, control.propose(problem, budget))
    objective = Tilted().objective(problem)
    reached = objective.value(moved) - objective.value(problem.maps)
    assert (reached / best_gain(c, problem.images, budget)).mean() < 0.6


def linear_net() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3)))


@pytest.mark.parametrize(("budget", "images"), CASES, ids=["linf", "linf at the box", "l2"])
@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients"])
def test_reaches_the_optimum_of_the_product_rule(name, path, budget, images):
    """On a linear model both maps are w ⊙ x, so c = w ⊙ v comes from the explicit x alone."""
    net = linear_net()
    with torch.no_grad():
        net[1].bias[1] = 100
    problem = posed(net, explainer(name, post="signed"), images)
    attack = Tilted(path=path, beta=None)
    c = net[1].weight[1].detach().view(3, SIZE, SIZE) * attack.objective(problem).v[:, None]
    share = gain(attack, problem, budget) / best_gain(c, problem.images, budget)
    assert ((share >= 0.95) & (share <= 1 + 1e-9)).all(), f"reached {share.tolist()}"


AIMED = [
    (name, {"steps": 4, "path": path, "beta": beta})
    for name in ("top_k", "mass_center", "target_region", "target_map", "map_distance")
    for path, beta in (("hessian_vector", None), ("double_backward", None), ("double_backward", 9))
]
AIMED += [
    ("black_box", {"queries": 6, "population": 3, "grid": 2}),
    ("worst_case", {"effort": "quick"}),
    ("universal", {"fit": {"name": "photos", "size": SIZE}, "images": 2, "steps": 2}),
    ("ensemble", {"of": ["gradient", {"name": "smooth_grad", "samples": 2}], "steps": 2}),
]
FREE = ("none", "random_sign", "random_noise", "fgsm", "pgd", "mi_fgsm", "deep_fool", "dual")
BLIND = [(name, {}) for name in FREE]  # to whether this map moves
WITH_K = ("top_k", "black_box", "worst_case", "ensemble", "universal")
OF_ONE_NORM = {"carlini_wagner": "l2", "patch": "patch"}
CASES_OF = [(norm, *case) for norm in ("linf", "l2") for case in AIMED + BLIND]
CASES_OF += [(norm, name, {}) for name, norm in OF_ONE_NORM.items()]


@pytest.mark.parametrize(("norm", "name", "options"), CASES_OF, ids=str)
def test_no_attack_moves_the_gradient_of_a_linear_model(name, options, norm):
    options = options | ({"k": 5} if name in WITH_K else {})
    problem = posed(linear_net(), "gradient", pictures(size=SIZE))
    result = judge(build(name, **options), problem, Budget(norm, 0.2))
    overlap = metric("top_k_intersection", k=5)(result.clean_maps, result.maps)
    assert torch.equal(overlap, torch.ones(3, dtype=torch.float64))
    assert torch.equal(result.maps, result.clean_maps)
    if options:
        assert result.outcomes == ("infeasible",) * 3
    else:
        assert result.outcomes == ("ok",) * 3


def test_every_attack_faces_the_linear_model():
    assert {name for _, name, _ in CASES_OF} == set(ATTACKS)


@pytest.mark.parametrize("path", ["hessian_vector", "double_backward"])
def test_input_x_gradient_of_a_linear_model_does_move(path):
    problem = posed(linear_net(), "input_x_gradient", pictures(size=SIZE))
    result = judge(build("top_k", k=5, path=path), problem, Budget("linf", 0.3))
    overlap = metric("top_k_intersection", k=5)(result.clean_maps, result.maps)
    assert (overlap < 1).any()
    assert all(
        (outcome == "ok") == (value < 1)
        for outcome, value in zip(result.outcomes, overlap, strict=True)
    )
