"""Integrated gradients: its quadrature by hand, and completeness on a smooth net."""

import pytest
import torch

from robustlab.explainers import build
from robustlab.explainers.gradient.path import completeness_gap
from tests.nets import Quadratic, Softplus, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
RULES = ("right", "left", "middle", "trapezoid")


@pytest.mark.parametrize(
    ("rule", "nodes"),
    [
        ("right", [(1 / 3, 1 / 3), (2 / 3, 1 / 3), (1.0, 1 / 3)]),
        ("left", [(0.0, 1 / 3), (1 / 3, 1 / 3), (2 / 3, 1 / 3)]),
        ("middle", [(1 / 6, 1 / 3), (1 / 2, 1 / 3), (5 / 6, 1 / 3)]),
        ("trapezoid", [(0.0, 1 / 4), (1 / 2, 1 / 2), (1.0, 1 / 4)]),
    ],
)
def test_nodes_and_weights_by_hand(rule, nodes):
    found = build("integrated_gradients", steps=3, rule=rule).nodes()
    assert found == [pytest.approx(node) for node in nodes]


@pytest.mark.parametrize("rule", ["middle", "trapezoid"])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_symmetric_rules_are_exact_on_a_quadratic_net(rule, baseline):
    """Its gradient is linear along the path: a = (x − b) ⊙ g at the midpoint."""
    net, images = seeded(lambda: Quadratic(48, classes=4)), pictures(size=4)
    explainer = build("integrated_gradients", steps=4, rule=rule, baseline=baseline)
    raw = explainer.explain(net, images, TARGETS)
    midpoint = (images + baseline) / 2
    expected = (images - baseline) * build("gradient").explain(net, midpoint, TARGETS)
    torch.testing.assert_close(raw, expected, rtol=1e-10, atol=1e-12)
    assert completeness_gap(net, explainer, images, TARGETS, raw).abs().max() < 1e-10


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
