"""Linear layers as functions: PyTorch's own values and derivatives, of every order."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.interposition import Call, Interposition
from robustlab.core.linear import Layer, batch_norm_affine, cheap_second_order, layer_of
from robustlab.core.untouched import frozen
from tests.nets import Convolutions, Functional, Normalised, ResNetLike, VGGLike, pictures, seeded

EXACT = {"rtol": 1e-10, "atol": 1e-12}
CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "padded": (nn.Conv2d(4, 6, 3, padding=(2, 1)), (2, 4, 5, 6)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3)), (2, 4, 8, 9)),
    "stride leaves a rest": (nn.Conv2d(4, 6, 3, stride=2), (2, 4, 8, 8)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=1), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), (2, 4, 5, 5)),
    "pointwise": (nn.Conv2d(4, 6, 1), (2, 4, 3, 3)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 5, 5)),
    "lopsided same": (nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 1)), (2, 4, 5, 6)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 5, 5)),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 5, 5)),
    "one image": (nn.Conv2d(4, 6, 3, padding=1), (1, 4, 5, 5)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 3, 4, 3)),
    "no batch": (nn.Conv2d(4, 6, 3, padding=1), (4, 5, 5)),
    "matrix": (nn.Linear(4, 6), (2, 4)),
    "matrix of many rows": (nn.Linear(4, 6, bias=False), (2, 3, 4)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    module, shape = CONVOLUTIONS[name]
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_(generator=generator)
    return module, torch.randn(shape, generator=generator, dtype=torch.float64)


def derivatives(run, x: Tensor) -> list[Tensor]:
    """Value, vector-Jacobian product, and the derivatives of a curved function of both."""
    leaf = x.clone().requires_grad_()
    value = run(leaf)
    seed = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    (first,) = torch.autograd.grad((seed * value**3).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), leaf, create_graph=True)
    (third,) = torch.autograd.grad(second.cos().sum(), leaf)
    return [t.detach() for t in (value, first, second, third)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("trainable", [False, True])
def test_derivatives_of_every_order_are_pytorchs(name, trainable):
    module, x = case(name)
    module.requires_grad_(trainable)

    def cheap(leaf: Tensor) -> Tensor:
        with cheap_second_order():
            return module(leaf)

    for ours, theirs in zip(derivatives(cheap, x), derivatives(module, x), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    module.requires_grad_(True)


@pytest.mark.parametrize(
    "name", [name for name in CONVOLUTIONS if name not in ("circular", "no batch")]
)
def test_a_layer_is_the_call_it_came_from(name):
    module, x = case(name)
    seen: list[Call] = []

    def note(call: Call) -> Tensor:
        seen.append(call)
        return call.native()

    with Interposition({"conv": note, "linear": note}):
        expected = module(x)
    layer, padded = layer_of(seen[-1])
    torch.testing.assert_close(layer.apply(padded, layer.weight, layer.bias), expected, **EXACT)
    # ⟨f(x), s⟩ = ⟨x, fᵀ(s)⟩ defines the transpose of a linear map
    s = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).double()
    back = layer.transpose(s, layer.weight, padded)
    assert back.shape == padded.shape
    forwards = (layer.apply(padded, layer.weight) * s).sum()
    torch.testing.assert_close((back * padded).sum(), forwards, **EXACT)


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_batch_norm_is_one_layer(bias):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4)))
    conv, norm = net
    layer = Layer("conv", conv.weight, conv.bias, (1, 1), (0, 0), (1, 1))
    seen: list[Call] = []
    with Interposition({"batch_norm": lambda call: seen.append(call) or call.native()}):
        expected = net(pictures())
    folded = layer.folded(*batch_norm_affine(seen[0]))
    torch.testing.assert_close(
        folded.apply(pictures(), folded.weight, folded.bias), expected, **EXACT
    )
    with Interposition({"batch_norm": lambda call: seen.append(call) or call.native()}):
        norm.train()(conv(pictures()))
        F.batch_norm(pictures(), None, None, training=True)
        nn.BatchNorm2d(3, affine=False).double().eval()(pictures())
    assert batch_norm_affine(seen[1]) is None and batch_norm_affine(seen[2]) is None
    scale, shift = batch_norm_affine(seen[3])
    torch.testing.assert_close(scale, torch.full((3,), (1 + 1e-5) ** -0.5, dtype=torch.float64))
    assert not shift.any()


@pytest.mark.parametrize(
    "make",
    [
        VGGLike,
        ResNetLike,
        Convolutions,
        lambda: Normalised(VGGLike()),
        lambda: Functional(VGGLike()),
    ],
    ids=["vgg", "resnet", "convolutions", "normalised", "functional"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_whole_nets_keep_their_derivatives(make, count):
    net, images = seeded(make), pictures(count)

    def probabilities(leaf: Tensor) -> Tensor:
        return torch.softmax(net(5 * leaf), 1)

    def cheap(leaf: Tensor) -> Tensor:
        with cheap_second_order() as mode:
            return mode.current(probabilities(leaf))

    expected = derivatives(probabilities, images)
    with frozen(net):
        constant = derivatives(cheap, images)
    for ours, theirs, trainable in zip(constant, expected, derivatives(cheap, images), strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * scale)
        torch.testing.assert_close(trainable, theirs, rtol=0, atol=1e-10 * scale)


def test_trainable_weights_keep_their_gradient():
    net = seeded(ResNetLike)
    gradients = []
    for mode in (cheap_second_order(), Interposition({})):
        leaf = pictures().requires_grad_()
        with mode:
            score = torch.softmax(net(leaf), 1)[:, 0].sum()
        (first,) = torch.autograd.grad(score, leaf, create_graph=True)
        gradients.append(
            torch.autograd.grad(first.square().sum(), list(net.parameters()), allow_unused=True)
        )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_training_mode_batch_norm_is_left_to_pytorch():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).train()
    with torch.no_grad(), cheap_second_order():
        found = net(pictures())
    torch.testing.assert_close(found.mean((0, 2, 3)), net[1].bias.detach(), rtol=0, atol=1e-6)
