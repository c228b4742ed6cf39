"""Excitation backprop: dense matrices in numpy, zennit, and P as a probability."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.composites import ExcitationBackprop as ZennitExcitation

from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from robustlab.explainers.relevance.rules import STABILISER
from tests.nets import Functional, Normalised, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 4, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def explain(net: nn.Module, images: Tensor, targets: Tensor = TARGETS, **options) -> Tensor:
    return build("excitation_backprop", **options).explain(net, images, targets)


# --- the paper in dense matrices ------------------------------------------------------------


def small() -> nn.Sequential:
    """Two convolutions and two matrices; every module's output can be read by its name."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 6),
        nn.ReLU(),
        nn.Linear(6, 5),
    )


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """What a layer does to each input in turn, without its bias: ``[outputs, inputs]``."""
    each = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (layer(each) - layer(0 * each)).flatten(1).T.numpy()


def winners(w: np.ndarray, a: np.ndarray, p: np.ndarray) -> np.ndarray:
    """P(a_j) = Σ_i P(a_i) · a_j w_ij⁺ / Σ_k a_k w_ik⁺, written out."""
    result = np.zeros(w.shape[1])
    for i in range(w.shape[0]):
        excited = a * np.maximum(w[i], 0)
        result += p[i] * excited / (excited.sum() + STABILISER)
    return result


def by_hand(net: nn.Sequential, image: Tensor, target: int, depth: int, contrastive: bool):
    """Σ_c P of the input of module ``depth``, for one image."""
    inputs = [image[None]]
    for layer in net:
        inputs.append(layer(inputs[-1]).detach())
    p = np.eye(5)[target]
    for index in range(len(net) - 1, depth - 1, -1):
        layer, x = net[index], inputs[index]
        if not list(layer.parameters()):
            continue  # activations and layout hand P on
        w, a = matrix(layer, tuple(x.shape[1:])), x.numpy().ravel()
        if contrastive and index == len(net) - 1:
            p = winners(w, a, p) - winners(-w, a, p)
        else:
            p = winners(w, a, p)
    total = p.reshape(inputs[depth].shape[1:]).sum(0)
    return np.maximum(total, 0) if contrastive else total


@pytest.mark.parametrize("contrastive", [False, True])
@pytest.mark.parametrize("layer", ["input", "0", "1", "2", "3"])
def test_it_is_the_paper_in_dense_matrices(layer, contrastive):
    net, images = seeded(small), pictures(size=6, channels=2)
    found = explain(net, images, layer=layer, contrastive=contrastive)
    depth = 0 if layer == "input" else int(layer) + 1
    for image, target, raw in zip(images, TARGETS.tolist(), found.numpy(), strict=True):
        expected = by_hand(net, image, target, depth, contrastive)
        np.testing.assert_allclose(raw[0], expected, rtol=1e-9, atol=1e-12)


# --- zennit ---------------------------------------------------------------------------------


def by_zennit(net: VGGLike, images: Tensor, layer: str) -> Tensor:
    kept = []
    with ZennitExcitation(zero_params="bias").context(net) as hooked:
        images = images.clone().requires_grad_()
        module = net.get_submodule("" if layer == "input" else layer)
        handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
        logits = hooked(images)
        handle.remove()
        start = F.one_hot(TARGETS, 5).to(logits)
        place = images if layer == "input" else kept[0]
        (winning,) = torch.autograd.grad(logits, place, start)
    return winning.sum(1, keepdim=True)


@pytest.mark.parametrize("layer", ["input", "features.1", "features.4", "features.6"])
@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["pixels", "negative inputs"])
def test_it_equals_zennit(layer, shift):
    net, images = seeded(VGGLike), pictures() - shift
    torch.testing.assert_close(explain(net, images, layer=layer), by_zennit(net, images, layer))


@pytest.mark.parametrize("contrastive", [False, True])
def test_functional_activations_make_no_difference(contrastive):
    twin = seeded(VGGLike)
    options = {"contrastive": contrastive}
    modules = explain(twin, pictures(), layer="features.2", **options)
    functions = explain(Functional(twin).eval(), pictures(), layer="c2", **options)
    torch.testing.assert_close(functions, modules, **EXACT)


def test_on_a_residual_net_it_is_z_plus_per_unit_of_the_logit():
    """LRP's z⁺ without biases is linear in what it starts with; zennit vouches for it there."""
    net, images = seeded(ResNetLike), pictures()
    logits = logits_of(net, images).gather(1, TARGETS[:, None]).view(-1, 1, 1, 1)
    relevance = build("lrp", rule="z_plus", bias=False).explain(net, images, TARGETS)
    expected = relevance.sum(1, keepdim=True) / logits
    torch.testing.assert_close(explain(net, images, layer="input"), expected, **EXACT)


# --- what P is ------------------------------------------------------------------------------


def strong(make) -> nn.Module:
    """Activations far above the stabiliser."""
    net = seeded(make)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(6)
    return net


@pytest.mark.parametrize(
    "layer", ["input", *(f"features.{i}" for i in range(7)), "features"]
)  # fmt: skip
def test_p_is_a_distribution_in_every_layer(layer):
    found = explain(strong(VGGLike), pictures(), layer=layer)
    assert found.amin() >= 0
    torch.testing.assert_close(
        found.sum((1, 2, 3)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5
    )


def test_max_pooling_lets_its_winner_win():
    net, images = seeded(VGGLike), pictures()
    pooled, before = (explain(net, images, layer=f"features.{i}") for i in (4, 3))
    assert torch.equal(F.avg_pool2d(before, 2) * 4, pooled) or torch.allclose(
        F.avg_pool2d(before, 2) * 4, pooled, rtol=1e-12, atol=0
    )


def test_the_contrast_is_a_difference_of_two_walks():
    """Of the net and of its twin with a negated last matrix, subtracted where they are read."""
    net, images = seeded(ResNetLike), pictures()
    dual = copy.deepcopy(net)
    dual.fc.weight.data.neg_()
    for layer in ("block1", "stem.2"):
        walks = [explain(n, images, layer=layer) for n in (net, dual)]
        expected = (walks[0] - walks[1]).clamp(min=0)
        found = explain(net, images, layer=layer, contrastive=True)
        torch.testing.assert_close(found, expected, **EXACT)
        assert not torch.allclose(found, walks[0].clamp(min=0)), "the dual walk matters"


def test_the_contrast_is_cut_off_only_at_the_end():
    """The signed difference walks on: cut off at the top, it would end elsewhere."""
    net, images = seeded(small), pictures(size=6, channels=2)
    w, a = net[7].weight.detach().numpy(), net[:7](images[:1]).detach().numpy().ravel()
    p = np.eye(5)[int(TARGETS[0])]
    early = np.maximum(winners(w, a, p) - winners(-w, a, p), 0)
    early = winners(matrix(net[5], (27,)), net[:5](images[:1]).detach().numpy().ravel(), early)
    found = explain(net, images, layer="3", contrastive=True)[0, 0].numpy()
    assert not np.allclose(found, early.reshape(3, 3, 3).sum(0))


# --- which layer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (seeded(VGGLike), "features.3"),
        (seeded(ResNetLike), "block1"),
        (Functional(seeded(VGGLike)).eval(), "c2"),
        (seeded(lambda: Normalised(VGGLike())), "net.features.3"),
        (seeded(small), "1"),
        (
            seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1),
                                         nn.AdaptiveAvgPool2d(1), nn.Flatten())),
            "2",
        ),
    ],
    ids=["vgg", "resnet", "functional", "normalised", "strided", "one size"],
)  # fmt: skip
def test_the_finest_of_the_late_layers_is_chosen(net, layer):
    images = pictures(channels=next(net.parameters()).shape[1])
    images = images[..., :6, :6] if layer == "1" else images
    chosen = build("excitation_backprop").resolved(net, images)
    assert chosen == build("excitation_backprop", layer=layer)
    assert chosen.resolved(net, images) is chosen
    assert torch.equal(
        build("excitation_backprop").explain(net, images, TARGETS),
        chosen.explain(net, images, TARGETS),
    )


def test_a_convolution_is_read_as_the_batch_norm_behind_it():
    net = seeded(ResNetLike)
    assert torch.equal(*(explain(net, pictures(), layer=layer) for layer in ("stem.0", "stem.1")))


def test_a_net_without_places_can_be_explained_at_its_input():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.ReLU(), nn.Linear(8, 5)))
    assert explain(net, pictures(), layer="input").shape == (3, 1, 12, 12)
    with pytest.raises(InvalidInput) as caught:
        explain(net, pictures())
    assert caught.value.field == "model"
    with pytest.raises(InvalidInput, match="no module 'inputs'"):
        explain(net, pictures(), layer="inputs")
