"""Integrated gradients: quadrature by hand and by captum, baselines, completeness."""

import captum.attr
import pytest
import torch

from robustlab.core.blur import gaussian_blur
from robustlab.core.randomness import uniform
from robustlab.core.wrapping import Smoothed
from robustlab.explainers import build
from robustlab.explainers.gradient.path import completeness_gap
from tests.nets import Quadratic, ResNetLike, Softplus, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
RULES = ("right", "left", "middle", "trapezoid")
BASELINES = (0.0, 1.0, "mean", "blur", "uniform")
IDS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("rule", "nodes"),
    [
        ("right", [(1 / 3, 1 / 3), (2 / 3, 1 / 3), (1.0, 1 / 3)]),
        ("left", [(0.0, 1 / 3), (1 / 3, 1 / 3), (2 / 3, 1 / 3)]),
        ("middle", [(1 / 6, 1 / 3), (1 / 2, 1 / 3), (5 / 6, 1 / 3)]),
        ("trapezoid", [(0.0, 1 / 4), (1 / 2, 1 / 2), (1.0, 1 / 4)]),
        (
            "gauss_legendre",
            [(0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18)],
        ),
    ],
)
def test_nodes_and_weights_by_hand(rule, nodes):
    found = build("integrated_gradients", steps=3, rule=rule).nodes()
    assert found == [pytest.approx(node) for node in nodes]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_legendre_integrates_polynomials_up_to_twice_its_points(steps):
    nodes = build("integrated_gradients", steps=steps, rule="gauss_legendre").nodes()
    for degree in range(2 * steps):
        assert sum(w * a**degree for a, w in nodes) == pytest.approx(1 / (degree + 1), rel=1e-13)
    degree = 2 * steps
    assert sum(w * a**degree for a, w in nodes) != pytest.approx(1 / (degree + 1), rel=1e-13)


@pytest.mark.parametrize("baseline", BASELINES)
def test_gauss_legendre_equals_captum_from_every_baseline(baseline):
    net, images = seeded(VGGLike), pictures()
    explainer = build(
        "integrated_gradients",
        steps=7, rule="gauss_legendre", baseline=baseline, blur_sigma=2.0, seed=4,
    )  # fmt: skip
    start = {
        "mean": images.mean((2, 3), keepdim=True).expand_as(images),
        "blur": gaussian_blur(images, 2.0),
        "uniform": (uniform(images, IDS, 4, "integrated_gradients/baseline") + 1) / 2,
    }.get(baseline, baseline)
    oracle = captum.attr.IntegratedGradients(net).attribute(
        images, baselines=start, target=TARGETS, n_steps=7, method="gausslegendre"
    )
    raw = explainer.explain(net, images, TARGETS, ids=IDS)
    # captum keeps its nodes and weights in float32
    torch.testing.assert_close(raw, oracle, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", ["middle", "trapezoid", "gauss_legendre"])
@pytest.mark.parametrize("baseline", [0.3, *BASELINES])
def test_symmetric_rules_are_exact_on_a_quadratic_net(rule, baseline):
    """Its gradient is linear along the path: a = (x − b) ⊙ g at the midpoint."""
    net, images = seeded(lambda: Quadratic(48, classes=4)), pictures(size=4)
    explainer = build("integrated_gradients", steps=4, rule=rule, baseline=baseline, blur_sigma=1.0)
    raw = explainer.explain(net, images, TARGETS, ids=IDS)
    start = explainer.baseline_of(images, IDS)
    expected = (images - start) * build("gradient").explain(net, (images + start) / 2, TARGETS)
    torch.testing.assert_close(raw, expected, rtol=1e-10, atol=1e-12)
    assert completeness_gap(net, explainer, images, TARGETS, raw, IDS).abs().max() < 1e-10


def test_the_gap_belongs_to_the_baseline_of_these_ids_and_to_the_smoothed_net():
    net, images = seeded(ResNetLike), pictures()
    explainer = build(
        "integrated_gradients", steps=32, rule="gauss_legendre", baseline="uniform", beta=3.0
    )
    raw = explainer.explain(net, images, TARGETS, ids=IDS)
    assert completeness_gap(net, explainer, images, TARGETS, raw, IDS).abs().max() < 1e-7
    assert completeness_gap(net, explainer, images, TARGETS, raw).abs().max() > 1e-4
    again = build("integrated_gradients", steps=32, rule="gauss_legendre", baseline="uniform")
    apart = completeness_gap(net, again, images, TARGETS, raw, IDS)
    assert apart.abs().max() > 1e-4
    smooth = completeness_gap(Smoothed(net, 3.0), again, images, TARGETS, raw, IDS)
    assert smooth.abs().max() < 1e-7


@pytest.mark.parametrize("score", ["logit", "prob", "logprob"])
@pytest.mark.parametrize("rule", RULES)
def test_the_gap_closes_as_fast_as_the_rule_promises(rule, score):
    net, images = seeded(Softplus), pictures()
    gaps = []
    for steps in (8, 32):
        explainer = build("integrated_gradients", steps=steps, rule=rule, baseline=0.1, score=score)
        raw = explainer.explain(net, images, TARGETS)
        gaps.append(completeness_gap(net, explainer, images, TARGETS, raw).abs().max())
    order = 1 if rule in ("right", "left") else 2
    assert gaps[1] <= 1.3 * gaps[0] / 4**order
    assert gaps[0] > 1e-12, "a gap to close"


@pytest.mark.parametrize("baseline", BASELINES)
def test_eight_gauss_legendre_points_close_the_gap_from_every_baseline(baseline):
    net, images = seeded(Softplus), pictures()
    explainer = build("integrated_gradients", steps=8, rule="gauss_legendre", baseline=baseline)
    raw = explainer.explain(net, images, TARGETS)
    assert completeness_gap(net, explainer, images, TARGETS, raw).abs().max() < 1e-9


def test_the_gap_is_signed_and_per_image():
    net, images = seeded(Softplus), pictures()
    explainer = build("integrated_gradients", steps=64, rule="middle")
    raw = explainer.explain(net, images, TARGETS)
    raw[1, 0, 0, 0] += 2.0
    raw[2, 0, 0, 0] -= 3.0
    found = completeness_gap(net, explainer, images, TARGETS, raw)
    torch.testing.assert_close(
        found, torch.tensor([0.0, 2.0, -3.0], dtype=torch.float64), rtol=0, atol=1e-5
    )
