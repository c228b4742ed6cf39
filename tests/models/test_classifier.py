"""The wrapper: normalisation inside, shapes checked, the network left alone."""

import copy

import pytest
import torch
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.models import Classifier


def net(channels=3, classes=4):
    layers = nn.Conv2d(channels, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(5, classes))


MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def test_normalisation_inside_is_what_one_does_by_hand_outside():
    network, images = net(), torch.rand(2, 3, 8, 8)
    outside = images.clone()
    for channel in range(3):
        outside[:, channel] = (outside[:, channel] - MEAN[channel]) / STD[channel]
    torch.testing.assert_close(Classifier(network, MEAN, STD, 4)(images), network(outside))


def test_one_number_serves_all_channels():
    network, images = net(), torch.rand(2, 3, 8, 8)
    inside = Classifier(network, 0.5, 0.25, 4)(images)
    torch.testing.assert_close(inside, network((images - 0.5) / 0.25))


def test_the_gradient_is_with_respect_to_pixels():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    images = torch.rand(1, 3, 1, 1, requires_grad=True)
    Classifier(network, MEAN, STD, 2)(images)[0, 0].backward()
    expected = network[1].weight[0] / torch.tensor(STD)
    torch.testing.assert_close(images.grad.flatten(), expected)


def test_layers_are_reachable_and_state_holds_only_the_networks_own_weights():
    network = net()
    model = Classifier(network, MEAN, STD, 4)
    assert dict(model.named_modules())["net.0"] is network[0]
    assert set(model.state_dict()) == {f"net.{name}" for name in network.state_dict()}


def test_wrapping_and_calling_change_nothing_in_the_network():
    network = net().train()
    network[1].eval()
    before = copy.deepcopy(network.state_dict())
    modes = [m.training for m in network.modules()]
    images = torch.rand(2, 3, 8, 8)
    original = images.clone()
    Classifier(network, MEAN, STD, 4)(images)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(images, original)


def test_an_in_place_first_layer_does_not_reach_the_callers_images():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3, 2))
    images = torch.full((1, 3, 1, 1), 0.2)
    Classifier(network, 0.5, 1, 2)(images)
    assert torch.equal(images, torch.full((1, 3, 1, 1), 0.2))


@pytest.mark.parametrize("mode", [True, False])
def test_its_mode_is_the_networks(mode):
    assert Classifier(net().train(mode), class_names=4).training is mode


def test_class_names_or_their_number():
    named = Classifier(net(), class_names=["a", "b", "c", "d"])
    assert (named.classes, named.class_names) == (4, ("a", "b", "c", "d"))
    assert Classifier(net(), class_names=4).class_names == ("0", "1", "2", "3")


def test_normalisation_follows_dtype():
    model = Classifier(net(), MEAN, STD, 4).double()
    assert model(torch.rand(1, 3, 8, 8).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(3, 8, 8), r"expected \[B,C,H,W\], got shape \(3, 8, 8\).*unsqueeze"),
        (torch.rand(1, 1, 3, 8, 8), r"expected \[B,C,H,W\]"),
        (torch.rand(2, 1, 8, 8), r"takes 3 channels, got 1 in \(2, 1, 8, 8\).*expand"),
        (torch.rand(2, 4, 8, 8), "takes 3 channels, got 4"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"expected floats in \[0, 1\].*uint8"),
        (torch.rand(2, 3, 8, 9), "takes 8×8 pixels, got 8×9"),
    ],
)
def test_wrong_images_are_refused_before_the_network_sees_them(images, words):
    model = Classifier(net(), MEAN, STD, 4, input_size=(3, 8, 8), fixed_size=True)
    with pytest.raises(InvalidInput, match=words):
        model(images)


def test_channels_are_known_from_mean_or_from_input_size_or_not_at_all():
    for options in ({"mean": MEAN}, {"input_size": (3, 8, 8)}):
        with pytest.raises(InvalidInput, match="takes 3 channels, got 1"):
            Classifier(net(), class_names=4, **options)(torch.rand(1, 1, 8, 8))
    anything = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(2), nn.Flatten())
    assert Classifier(anything, class_names=4)(torch.rand(1, 1, 8, 8)).shape == (1, 4)


def test_pixel_values_are_not_looked_at():
    model = Classifier(net(), MEAN, STD, 4)
    assert model(torch.full((1, 3, 8, 8), 7.0)).shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "class_names: empty"),
        ({"class_names": 0}, "class_names: empty"),
        ({"class_names": 4, "std": 0.0}, "std: must be positive"),
        ({"class_names": 4, "std": (1, 1, -1)}, "std: must be positive"),
        ({"class_names": 4, "mean": float("nan")}, "mean: expected finite numbers"),
        ({"class_names": 4, "mean": MEAN, "std": (1, 1)}, "channels disagree"),
        ({"class_names": 4, "mean": MEAN, "input_size": (1, 8, 8)}, "channels disagree"),
    ],
)
def test_impossible_wrappers_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        Classifier(net(), **options)


def test_a_network_with_another_number_of_logits_is_found_out():
    with pytest.raises(InvalidInput, match=r"returned \(2, 4\), expected logits \[2, 7\]"):
        Classifier(net(classes=4), class_names=7)(torch.rand(2, 3, 8, 8))

    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    with pytest.raises(InvalidInput, match="returned tuple"):
        Classifier(Pair(), class_names=7)(torch.rand(2, 3, 8, 8))
