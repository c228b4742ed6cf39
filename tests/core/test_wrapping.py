"""Wrappers answer for the wrapped model, count honestly and leave it alone."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import input_gradient, logits_of
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Counted, Smoothed, Wrapper
from robustlab.explainers import build
from tests.explainers.battery import untouched
from tests.nets import ResNetLike, Softplus, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])


def wrapped(net: nn.Module) -> nn.Module:
    return Counted(Smoothed(Counted(Smoothed(net, 10.0)), 20.0))


def test_named_layers_are_found_through_any_number_of_wrappers():
    net = seeded(ResNetLike)
    outer = wrapped(net)
    assert dict(outer.named_modules()) == dict(net.named_modules())
    assert list(outer.modules()) == list(net.modules())
    assert outer.get_submodule("block1.conv2") is net.block1.conv2
    assert outer.get_parameter("fc.weight") is net.fc.weight
    assert outer.get_buffer("stem.1.running_mean") is net.stem[1].running_mean
    assert [n for n, _ in outer.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert list(outer.parameters()) == list(net.parameters())
    assert list(outer.buffers()) == list(net.buffers())


def test_an_explainers_layer_means_the_same_inside_and_outside():
    net, grad_cam = seeded(ResNetLike), build("grad_cam")
    assert grad_cam.resolved(Counted(net), pictures()) == grad_cam.resolved(net, pictures())
    named = build("grad_cam", layer="block1")
    inside = named.explain(Smoothed(net, 10.0), pictures(), TARGETS)
    outside = named.explain(Counted(Smoothed(Counted(net), 10.0)), pictures(), TARGETS)
    assert torch.equal(inside, outside)


def test_wrappers_share_the_training_flag_and_hand_it_down():
    net = seeded(VGGLike)
    assert not Wrapper(net).training
    assert Wrapper(net.train()).training
    outer = wrapped(net)
    outer.eval()
    assert not any(m.training for m in (outer, outer.inner, net, *net.modules()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_wrappers_can_be_copied(copied):
    outer = Smoothed(seeded(VGGLike), 5.0)
    twin = copied(outer)
    assert torch.equal(twin(pictures()), outer(pictures()))
    assert twin.inner is not outer.inner


@pytest.mark.parametrize("beta", [0, -1.0, math.nan])
def test_beta_must_be_positive(beta):
    with pytest.raises(InvalidInput, match="above 0") as caught:
        Smoothed(seeded(VGGLike), beta)
    assert caught.value.field == "beta"


# --- counting -------------------------------------------------------------------------------


def test_counted_counts_images_in_and_gradients_out():
    net, images = Counted(seeded(VGGLike)), pictures()
    assert (net.forwards, net.backwards) == (0, 0)
    logits_of(net, images)
    assert (net.forwards, net.backwards) == (3, 0)
    input_gradient(net, images[:2], TARGETS[:2])
    assert (net.forwards, net.backwards) == (5, 2)
    net(images).sum().backward()  # the images want no gradient, so none comes out
    assert (net.forwards, net.backwards) == (8, 2)


def test_a_double_backward_counts_once_more():
    net, leaf = Counted(seeded(Softplus)), pictures().requires_grad_()
    gradient = input_gradient(net, leaf, TARGETS, create_graph=True)
    assert (net.forwards, net.backwards) == (3, 3)
    torch.autograd.grad(gradient.square().sum(), leaf)
    assert net.forwards == 3 and net.backwards == 6


def test_counting_changes_no_number():
    net, images = seeded(ResNetLike), pictures()
    assert torch.equal(Counted(net)(images), net(images))
    for name in ("gradient", "lrp", "guided_backprop"):
        explainer = build(name)
        counted = explainer.explain(Counted(net), images, TARGETS)
        assert torch.equal(counted, explainer.explain(net, images, TARGETS)), name
    for x in (images, images[:1]):  # second derivatives too, where strides once mattered
        results = []
        for model in (net, Counted(net)):
            leaf = x.clone().requires_grad_()
            raw = build("lrp", rule="w_square").explain(
                model, leaf, TARGETS[: len(x)], create_graph=True
            )
            results.append(torch.autograd.grad(raw.sum(), leaf)[0])
        torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-15)


def test_counters_do_not_disturb_each_other():
    net = seeded(VGGLike)
    first, second = Counted(net), Counted(net)
    first(pictures())
    assert (first.forwards, second.forwards) == (3, 0)
    outer = Counted(first)
    outer(pictures())
    assert (outer.forwards, first.forwards) == (3, 6)


# --- leaving things alone -------------------------------------------------------------------


@pytest.mark.parametrize("make", [VGGLike, ResNetLike])
def test_smoothed_leaves_the_net_alone(make):
    net, images = seeded(make), pictures()
    before = net(images)
    with untouched(net, images, TARGETS):
        Smoothed(net, 3.0)(images)
        input_gradient(Smoothed(net, 3.0), images, TARGETS)
    assert torch.equal(net(images), before)


def test_frozen_restores_exactly_the_flags_it_changed():
    net = seeded(VGGLike)
    net.features[0].weight.requires_grad_(False)
    flags = [p.requires_grad for p in net.parameters()]
    with frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        net(pictures().requires_grad_()).sum().backward()
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(RuntimeError, match="boom"), frozen(net):
        raise RuntimeError("boom")
    assert [p.requires_grad for p in net.parameters()] == flags
