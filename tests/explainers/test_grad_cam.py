"""Grad-CAM: the layer it chooses, its closed form, and how it says no."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Counted, Smoothed
from robustlab.explainers import build
from robustlab.explainers.cam.layers import layer_output, spatial_layer
from tests.explainers.battery import untouched
from tests.nets import Functional, Normalised, Recorder, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def sequence(*layers: nn.Module) -> nn.Module:
    return seeded(lambda: nn.Sequential(*layers))


class Attended(nn.Module):
    """Returns more than a tensor from one module and ignores the output of another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair, self.idle = nn.Conv2d(3, 4, 3), Pair(), nn.Conv2d(3, 2, 3)
        self.unused, self.fc = nn.Conv2d(3, 2, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        features, _ = self.pair(F.relu(self.conv(x)))
        return self.fc(features.mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x, None


class Transformer(nn.Module):
    """Cuts patches with a convolution and goes on with tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.blocks = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


# --- which layer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (seeded(VGGLike), "features"),
        (seeded(ResNetLike), "block2"),
        (Functional(seeded(VGGLike)).eval(), "c3"),
        (seeded(lambda: Normalised(VGGLike())), "net.features"),
        (sequence(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), "1"),
        (sequence(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0"),
        (sequence(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 10), nn.Flatten()), "0"),
        (sequence(nn.Conv2d(3, 5, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()), "0"),
    ],
    ids=[
        "vgg",
        "resnet",
        "functional",
        "normalised",
        "pooled",
        "dropped",
        "one position",
        "pooled as tokens",
    ],
)
def test_the_last_layer_with_a_place_is_chosen(net, layer):
    images = pictures()
    with untouched(net, images, TARGETS):
        assert spatial_layer(net, images) == layer
    chosen = build("grad_cam").resolved(net, images)
    assert chosen == build("grad_cam", layer=layer)
    assert chosen.resolved(net, images) is chosen
    automatic = build("grad_cam").explain(net, images, TARGETS)
    assert torch.equal(automatic, chosen.explain(net, images, TARGETS))


@pytest.mark.parametrize("inplace", [False, True])
def test_the_choice_does_not_depend_on_in_place_activations(inplace):
    """An in-place ReLU returns the very tensor of the convolution before it."""
    net = sequence(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    assert spatial_layer(net, pictures()) == "1"


def test_the_choice_costs_one_image_and_is_settled_once():
    net, images = Recorder(seeded(ResNetLike)), pictures(3)
    chosen = build("grad_cam").resolved(net, images)
    assert net.sizes == [1]
    chosen.explain(net, images, TARGETS)
    assert net.sizes == [1, 3]


def test_a_layer_that_runs_twice_is_explained_where_it_ran_last():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(F.relu(self.conv(x))).mean((2, 3)))

    net = seeded(Twice)
    found = build("grad_cam", layer="conv", relu=False).explain(net, pictures(), TARGETS)
    last = net.conv(F.relu(net.conv(pictures()))).detach()
    expected = torch.einsum("bk,bkhw->bhw", net.fc.weight[TARGETS] / 144, last)
    torch.testing.assert_close(found.squeeze(1), expected.detach(), **EXACT)


def test_nothing_below_the_layer_is_kept_for_a_gradient_above_it():
    activation, logits = layer_output(seeded(ResNetLike), "block1", pictures(), create_graph=False)
    assert activation.is_leaf and logits.requires_grad


# --- closed form ----------------------------------------------------------------------------


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, Counted], ids=["plain", "counted"])
def test_behind_global_pooling_it_is_the_class_activation_map(relu, wrap):
    """w_k is then the matrix' own weight over the number of positions."""
    net = sequence(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    images = pictures()
    activation = F.relu(net[0](images)).detach()
    cam = torch.einsum("bk,bkhw->bhw", net[4].weight[TARGETS] / 100, activation).detach()
    found = build("grad_cam", layer="1", relu=relu).explain(wrap(net), images, TARGETS)
    assert found.shape == (3, 1, 10, 10)
    torch.testing.assert_close(found.squeeze(1), cam.clamp(min=0) if relu else cam, **EXACT)
    if not relu:  # completeness of a linear head: the map sums to the logit without its bias
        logits = net(images).gather(1, TARGETS[:, None]).squeeze(1)
        bias = net[4].bias[TARGETS]
        torch.testing.assert_close(found.sum((1, 2, 3)), (logits - bias).detach(), **EXACT)


class EndsInPlace(ResNetLike):
    """Scales its logits in place and ignores the result."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        logits.mul_(3.0)
        return logits


def test_logits_changed_at_the_very_end_are_seen():
    net, plain = seeded(EndsInPlace), seeded(ResNetLike)
    for parameter in plain.fc.parameters():
        parameter.data.mul_(3.0)
    explainer = build("grad_cam", layer="block1", score="prob")
    for wrap in (lambda net: net, lambda net: Smoothed(net, 3.0)):
        for create_graph in (False, True):
            ours, expected = (
                explainer.explain(wrap(n), pictures(), TARGETS, create_graph=create_graph).detach()
                for n in (net, plain)
            )
            torch.testing.assert_close(ours, expected, **EXACT)


class Careless(nn.Module):
    """Returns what an operation has changed in place, and not its result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x.relu_()
        return x


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_layer_that_is_changed_in_place_is_seen_through_a_surrogate(create_graph):
    net = sequence(Careless(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    plain = nn.Sequential(nn.Sequential(net[0].conv, nn.ReLU()), *net[1:])
    explainer = build("grad_cam", layer="0", relu=False)
    found, expected = (
        explainer.explain(Smoothed(n, 3.0), pictures(), TARGETS, create_graph=create_graph)
        for n in (net, plain)
    )
    torch.testing.assert_close(found, expected, **EXACT)


# --- how it says no -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "layer", "words"),
    [
        (seeded(ResNetLike), "blok2", "no module 'blok2'; did you mean 'block2'"),
        (seeded(ResNetLike), "layer4", "known: block1, block1.bn1"),
        (seeded(VGGLike), "features.9", "did you mean 'features"),
        (seeded(ResNetLike), "fc", r"'fc' has no spatial extent: its output is \(3, 5\)"),
        (
            sequence(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
            "1",
            r"'1' has no spatial extent: its output is \(3, 4, 1, 1\)",
        ),
        (
            seeded(Attended),
            "pair",
            r"'pair' has no spatial extent: its output is tuple; name a layer .* \[B,K,h,w\]",
        ),
        (
            seeded(lambda: Transformer()),
            "blocks.0",
            r"output is tokens \(3, 9, 6\); attention_rollout explains tokens, gradient",
        ),
        (seeded(Attended), "unused", "'unused' did not run"),
        (seeded(Attended), "idle", "does not depend on the output of 'idle'"),
    ],
    ids=[
        "typo",
        "another net's",
        "out of range",
        "matrix",
        "pooled",
        "tuple",
        "tokens",
        "unused",
        "idle",
    ],
)
@pytest.mark.parametrize("kept", [nullcontext, frozen], ids=["trainable", "frozen"])
def test_a_layer_that_cannot_be_explained_is_refused(net, layer, words, kept):
    images = pictures()
    with (
        kept(net),
        untouched(net, images, TARGETS, after="an exception"),
        pytest.raises(InvalidInput, match=words) as caught,
    ):
        build("grad_cam", layer=layer).explain(net, images, TARGETS)
    assert caught.value.field == "layer"


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (
            sequence(nn.Flatten(), nn.Linear(432, 5)),
            "needs a convolutional layer.*; gradient, integrated_gradients, lrp and occlusion",
        ),
        (
            sequence(nn.Conv2d(3, 5, 12), nn.Flatten()),
            "no module's output has a spatial extent; gradient, integrated_gradients",
        ),
        (
            seeded(lambda: Transformer()),
            r"tokens \[B,N,D\] after 'patches'; attention_rollout .* or name a layer",
        ),
    ],
    ids=["no convolution", "one position", "tokens"],
)
def test_a_net_without_places_is_refused(net, words):
    for act in ("resolved", "explain"):
        arguments = (net, pictures()) if act == "resolved" else (net, pictures(), TARGETS)
        with pytest.raises(InvalidInput, match=words) as caught:
            getattr(build("grad_cam"), act)(*arguments)
        assert caught.value.field == "model"
