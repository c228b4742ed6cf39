"""The two ways to an attack gradient, against each other and against finite differences."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks import build
from attacks.explanation import gradients
from attacks.explanation.gradients import by_double_backward
from robustlab.core.budget import Budget
from robustlab.core.errors import NotDifferentiable
from robustlab.explainers import (
    LRP,
    GradCAM,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
)
from tests.attacks.problems import maps_of, posed
from tests.nets import pictures

WITH_PRODUCTS = [
    Gradient(),
    Gradient(score="prob"),
    InputXGradient(),
    IntegratedGradients(steps=4),
    IntegratedGradients(steps=3, rule="middle", baseline=0.3),
    SmoothGrad(samples=3, sigma=0.1),
]
ATTACKS = [build("target_region"), build("target_map"), build("mass_center"), build("top_k", k=20)]
TINY = 1e-5  # a probe short enough for central differences to be a derivative


def away(images: Tensor, seed: int = 2) -> Tensor:
    """A point near the images: objectives have a zero gradient or a kink at the images."""
    g = torch.Generator().manual_seed(seed)
    return images + 0.02 * torch.randn(images.shape, generator=g, dtype=images.dtype)


def by_products(problem, images, objective, probe=TINY):
    raw = problem.explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
    return gradients.by_products(problem, images, raw, objective, probe)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a.flatten(1), b.flatten(1), dim=1)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("explainer", WITH_PRODUCTS, ids=str)
def test_both_paths_agree_on_a_smooth_net(explainer, attack):
    problem = posed("smooth", explainer, pictures(size=8))
    objective, images = attack.objective(problem), away(problem.images)
    exact = by_double_backward(problem, images, objective, None)
    probed = by_products(problem, images, objective)
    torch.testing.assert_close(probed, exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))
    rough = by_products(problem, images, objective, probe=8 / 255)  # as long as attacks use
    assert (cosines(rough, exact) > 0.95).all()


@pytest.mark.parametrize("attack", ATTACKS[:2], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    "explainer",
    [
        *WITH_PRODUCTS,
        GradCAM(),
        LRP(post="abs_sum"),
        LRP(rule="gamma", post="abs_sum"),
        LRP(composite="epsilon_alpha2_beta1", post="abs_sum"),
    ],
    ids=str,
)
def test_double_backward_is_the_derivative_of_the_loss(explainer, attack):
    problem = posed("smooth", explainer, pictures(size=8))
    objective, images = attack.objective(problem), away(problem.images)
    gradient = by_double_backward(problem, images, objective, None)
    direction = away(torch.zeros_like(images), seed=7)

    def loss(h: float) -> Tensor:
        return objective.loss(maps_of(problem, images + h * direction), slice(0, len(images)))

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    predicted = (gradient * direction).sum((1, 2, 3))
    scale = gradient.flatten(1).norm(dim=1) * direction.flatten(1).norm(dim=1)
    assert (predicted.abs() > 1e-4 * scale).all(), "the direction must tell something"
    assert ((slope - predicted).abs() <= 1e-5 * scale).all()


def test_without_the_product_rule_the_paths_would_not_agree():
    """One published attack drops the term of the explicit image: the comparison sees it."""
    problem = posed("smooth", InputXGradient(), pictures(size=8))
    objective, images = build("target_region").objective(problem), away(problem.images)
    exact = by_double_backward(problem, images, objective, None)
    plain = posed("smooth", Gradient(), pictures(size=8))
    assert cosines(by_products(plain, images, objective), exact).max() < 0.95


# --- a ReLU net: the logit's gradient is constant in pieces ---------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_the_logit_gradient_of_a_relu_net_has_no_slope(attack):
    problem = posed("plain", Gradient())
    objective, images = attack.objective(problem), away(problem.images)
    zero = by_double_backward(problem, images, objective, None)
    assert torch.equal(zero, torch.zeros_like(images))
    for other in (
        by_double_backward(problem, images, objective, 10.0),  # the softplus surrogate
        by_products(problem, images, objective, probe=8 / 255),  # differences over a distance
    ):
        assert (other.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    "explainer",
    [Gradient(score="prob"), InputXGradient(), IntegratedGradients(steps=3), GradCAM(), LRP()],
    ids=str,
)
def test_other_maps_of_a_relu_net_have_one(explainer):
    problem = posed("plain", explainer)
    objective = build("target_region").objective(problem)
    gradient = by_double_backward(problem, away(problem.images), objective, None)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("select", ["best_metric", "last"])
def test_top_k_without_surrogate_stays_put_on_a_relu_net(select):
    problem, budget = posed("plain"), Budget("linf", 8 / 255)
    stuck = build("top_k", k=20, steps=3, path="double_backward", beta=None, select=select)
    assert torch.equal(stuck.propose(problem, budget), problem.images)


# --- which path ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "explainer", "expected"),
    [
        ("auto", Gradient(), "hessian_vector"),
        ("auto", LRP(), "double_backward"),
        ("auto", GradCAM(), "double_backward"),
        ("hessian_vector", IntegratedGradients(), "hessian_vector"),
        ("hessian_vector", LRP(), "impossible"),
        ("double_backward", Gradient(), "double_backward"),
    ],
    ids=str,
)
def test_path_is_chosen_by_what_the_explainer_offers(path, explainer, expected):
    assert build("top_k", path=path).gradient_path(explainer) == expected


def test_impossible_path_is_refused():
    with pytest.raises(NotDifferentiable, match="GradCAM"):
        build("target_region", path="hessian_vector").propose(
            posed("plain", "grad_cam"), Budget("linf", 8 / 255)
        )


def test_probe_is_a_share_of_epsilon():
    """Twice the ball with half the share is the same probe, hence the same first gradient."""
    problem = posed("plain")
    steps = [
        build("target_region", steps=1, step_size=1e-4, probe=probe, select="last").propose(
            problem, Budget("linf", epsilon)
        )
        for probe, epsilon in ((1.0, 0.02), (0.5, 0.04), (1.0, 0.04))
    ]
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[0], steps[2])
