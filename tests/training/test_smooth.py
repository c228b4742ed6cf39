"""Which networks have curvature, and that the others are refused where it matters."""

import pytest
import torch
from torch import nn

from robustlab import models
from robustlab.core.errors import InvalidInput
from robustlab.training import build
from robustlab.training.objectives.smooth import bends
from tests.nets import VGGLike, pictures, seeded
from tests.training.problems import dense, images, linear, smooth


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(nn.ReLU, False), (nn.LeakyReLU, False), (nn.Hardtanh, False), (nn.Identity, False),
     (nn.GELU, True), (nn.Tanh, True), (nn.Softplus, True), (nn.SiLU, True)],
)  # fmt: skip
def test_only_smooth_activations_bend(activation, expected):
    """As the exact Hessian of every logit has it."""
    net, x = dense(activation), images(1)
    hessians = [torch.autograd.functional.hessian(lambda v, c=c: net(v)[0, c], x) for c in range(4)]
    assert any(bool((h != 0).any()) for h in hessians) == expected
    assert bends(net, x) == expected


def test_convolutions_and_pooling_do_not_bend():
    assert not bends(seeded(VGGLike), pictures(2))


def test_the_loss_of_a_relu_network_bends_all_the_same():
    """Why the test asks the logits: through the softmax every network looks smooth."""
    net, x = dense(), images(1)
    loss = torch.autograd.functional.hessian(lambda v: net(v).log_softmax(1)[0, 1], x)
    assert loss.abs().max() > 1e-3 and not bends(net, x)


@pytest.mark.parametrize("name", ["softplus", "curvature"])
def test_kinks_are_refused(name):
    objective = build(name)
    for net in (dense(), linear()):
        with pytest.raises(InvalidInput, match=r"model: .*piecewise linear.*small_cnn with beta"):
            objective.check(net, images(1))
    objective.check(smooth(), images(1))


@pytest.mark.parametrize("name", ["softplus", "curvature"])
def test_the_network_that_they_ask_for_is_accepted(name):
    objective = build(name, beta=7.0)
    assert objective.model_options() == {"beta": 7.0}
    model = models.load("small_cnn", weights="none", **objective.model_options())
    objective.check(model, torch.rand(1, 1, 28, 28))
    with pytest.raises(InvalidInput, match="piecewise linear"):
        objective.check(models.load("small_cnn"), torch.rand(1, 1, 28, 28))


def test_a_network_can_be_left_to_the_user():
    assert build("curvature", beta=None).model_options() == {}
