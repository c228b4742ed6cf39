"""Kindermans' truth table: which maps notice a shift that no output can show."""

import numpy as np
import pytest
import torch
from torch import nn

from attacks import build
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge
from robustlab.core.streaming import logits_of
from robustlab.explainers import build as explainer
from tests.attacks.problems import posed
from tests.nets import seeded

SHIFTS = {
    "constant": {"by": -1.0},
    "checkerboard": {"by": 0.2, "pattern": "checkerboard", "cell": 3},
}


@pytest.fixture(scope="module")
def mlp():
    return seeded(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(432, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(),
            nn.Linear(12, 4),
        )
    )  # fmt: skip


# explainer, options, and for which of the two shifts its maps stay as they were
TRUTH = [
    ("gradient", {}, ("constant", "checkerboard")),
    ("guided_backprop", {}, ("constant", "checkerboard")),
    ("deconvnet", {}, ("constant", "checkerboard")),
    ("smooth_grad", {"samples": 4}, ("constant", "checkerboard")),
    ("input_x_gradient", {}, ()),
    ("integrated_gradients", {"steps": 8}, ()),
    # a baseline that moves along: the mean of x + m is the mean of x plus that of m
    ("integrated_gradients", {"steps": 8, "baseline": "mean"}, ("constant",)),
    ("deep_lift", {"baseline": "mean"}, ("constant",)),
    ("deep_lift", {}, ()),
    ("occlusion", {"window": 4, "stride": 4}, ("constant",)),
    ("occlusion", {"window": 4, "stride": 4, "infill": 0.0}, ()),
    # relevance stops at the shifted pixels, and ε shares by what the first layer is shown
    ("lrp", {"rule": "epsilon"}, ("constant", "checkerboard")),
    # its box is that of pixels in [0, 1], which the shifted ones are not
    ("deep_taylor", {}, ()),
]


@pytest.mark.parametrize("pattern", SHIFTS)
@pytest.mark.parametrize(("name", "options", "invariant"), TRUTH, ids=str)
def test_the_truth_table(name, options, invariant, pattern, mlp):
    problem = posed(mlp, explainer(name, **options))
    found = judge(build("constant_shift", **SHIFTS[pattern]), problem)
    assert found.prediction_kept.all()
    assert found.outcomes == ("ok",) * 3
    same = torch.allclose(found.maps, found.clean_maps, rtol=1e-9, atol=1e-12)
    assert same is (pattern in invariant)


@pytest.mark.parametrize("net", ["plain", "residual"])
def test_grad_cam_does_not_notice(net):
    found = judge(build("constant_shift", by=0.4), posed(net, "grad_cam"))
    torch.testing.assert_close(found.maps, found.clean_maps)


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("pattern", SHIFTS)
def test_every_output_is_the_same(net, pattern):
    problem, attack = posed(net), build("constant_shift", **SHIFTS[pattern])
    before = {k: v.clone() for k, v in problem.model.state_dict().items()}
    model, images = attack.manipulate(problem), attack.moved(problem)
    torch.testing.assert_close(logits_of(model, images), logits_of(problem.model, problem.images),
                               rtol=0, atol=1e-12)  # fmt: skip
    assert all(torch.equal(v, before[k]) for k, v in problem.model.state_dict().items())
    for mine, theirs in zip(model.parameters(), problem.model.parameters(), strict=True):
        assert mine.data_ptr() != theirs.data_ptr()


def test_input_times_gradient_displays_the_shift(mlp):
    """g₂ − g₁ = m ⊙ ∂s/∂x, exactly."""
    problem = posed(mlp, explainer("input_x_gradient", post="signed"))
    attack = build("constant_shift", **SHIFTS["checkerboard"])
    found = judge(attack, problem)
    slope = explainer("gradient").explain(mlp, problem.images, problem.targets)
    expected = (attack.shift(problem.images) * slope).sum(1)
    torch.testing.assert_close(found.maps - found.clean_maps, expected)


def test_the_checkerboard_is_one():
    shift = build("constant_shift", by=0.5, pattern="checkerboard", cell=2).shift(
        torch.zeros(1, 3, 5, 4)
    )
    expected = 0.5 * (1 - 2 * ((np.add.outer(np.arange(5) // 2, np.arange(4) // 2)) % 2))
    np.testing.assert_array_equal(shift[0, 0].numpy(), expected)


@pytest.mark.parametrize(
    ("options", "field"), [({"by": 0}, "by"), ({"cell": 0}, "cell"), ({"by": float("nan")}, "by")]
)
def test_bad_shifts_are_refused(options, field):
    with pytest.raises(InvalidInput, match=rf"constant_shift\.{field}"):
        build("constant_shift", **options)
