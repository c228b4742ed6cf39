"""One operation in many words, in place or not: the same rule, and the same meaning."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import (
    Interposition,
)
from robustlab.core.streaming import input_gradient
from robustlab.core.wrapping import Smoothed
from robustlab.explainers import build
from tests.nets import Spelled, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-10, "atol": 1e-12}
FAR = 1e9  # softplus with this β is within 1e-9 of ReLU


def ignored(change):
    """The result of an in-place operation, when the model ignores it."""

    def activate(z: Tensor) -> Tensor:
        change(z)
        return z

    return activate


RELU = {
    "F.relu": F.relu,
    "F.relu(inplace)": lambda z: F.relu(z, inplace=True),
    "F.relu(inplace), ignored": ignored(lambda z: F.relu(z, inplace=True)),
    "F.relu(input=)": lambda z: F.relu(input=z),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "x.relu()": lambda z: z.relu(),
    "x.relu_()": lambda z: z.relu_(),
    "x.relu_(), ignored": ignored(lambda z: z.relu_()),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace)": nn.ReLU(inplace=True),
    "nn.ReLU(inplace), ignored": ignored(nn.ReLU(inplace=True)),
    "x.clamp(min=0)": lambda z: z.clamp(min=0),
    "x.clamp(0)": lambda z: z.clamp(0),
    "x.clamp(min=0.0)": lambda z: z.clamp(min=0.0),
    "x.clamp_(min=0)": lambda z: z.clamp_(min=0),
    "x.clamp_min(0)": lambda z: z.clamp_min(0),
    "x.clamp_min_(0)": lambda z: z.clamp_min_(0),
    "x.clip(0)": lambda z: z.clip(0),
    "torch.clamp(x, min=0)": lambda z: torch.clamp(z, min=0),
    "torch.clamp(input=x, min=0)": lambda z: torch.clamp(input=z, min=0),
    "torch.clamp_(x, 0)": lambda z: torch.clamp_(z, 0),
    "torch.clamp_min(x, 0)": lambda z: torch.clamp_min(z, 0),
    "torch.clamp_min_(x, 0)": lambda z: torch.clamp_min_(z, 0),
    "torch.clip(x, 0)": lambda z: torch.clip(z, 0),
    "F.threshold(x, 0, 0)": lambda z: F.threshold(z, 0, 0),
    "nn.Threshold(0, 0)": nn.Threshold(0, 0),
    "nn.Threshold(0, 0, inplace)": nn.Threshold(0, 0, inplace=True),
    "torch.threshold(x, 0, 0)": lambda z: torch.threshold(z, 0, 0),
}
RELU6 = {
    "F.relu6": F.relu6,
    "F.relu6(inplace)": lambda z: F.relu6(z, inplace=True),
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6(inplace)": nn.ReLU6(inplace=True),
    "nn.ReLU6(inplace), ignored": ignored(nn.ReLU6(inplace=True)),
    "F.hardtanh(x, 0, 6)": lambda z: F.hardtanh(z, 0, 6),
    "F.hardtanh(x, 0., 6., inplace)": lambda z: F.hardtanh(z, 0.0, 6.0, inplace=True),
    "F.hardtanh_(x, 0, 6)": lambda z: F.hardtanh_(z, 0.0, 6.0),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0, 6),
    "torch.clamp(x, 0, 6)": lambda z: torch.clamp(z, 0, 6),
    "x.clamp(0, 6)": lambda z: z.clamp(0, 6),
    "x.clamp(min=0, max=6)": lambda z: z.clamp(min=0, max=6),
    "x.clamp_(0, 6)": lambda z: z.clamp_(0, 6),
}
SPELLINGS = [("relu", s) for s in RELU] + [("relu6", s) for s in RELU6]


def spelled(kind: str, spelling: str) -> nn.Module:
    return seeded(lambda: Spelled({"relu": RELU, "relu6": RELU6}[kind][spelling]))


@pytest.mark.parametrize(("kind", "spelling"), SPELLINGS)
def test_every_spelling_is_recognised(kind, spelling):
    net, plain = spelled(kind, spelling), spelled(kind, f"F.{kind}")
    images = pictures()
    torch.testing.assert_close(net(images), plain(images), rtol=0, atol=0)
    smooth = Smoothed(plain, 2.0)(images)
    torch.testing.assert_close(Smoothed(net, 2.0)(images), smooth, **EXACT)
    assert (smooth - plain(images)).abs().max() > 1e-3, "the surrogate must differ to be seen"
    torch.testing.assert_close(Smoothed(net, FAR)(images), plain(images), rtol=0, atol=1e-6)
    for name in ("guided_backprop", "lrp", "gradient"):
        explainer = build(name)
        expected = explainer.explain(plain, images, TARGETS)
        torch.testing.assert_close(explainer.explain(net, images, TARGETS), expected, **EXACT)


def test_the_two_kinds_are_told_apart():
    images = pictures()
    relu, relu6 = spelled("relu", "F.relu"), spelled("relu6", "F.relu6")
    assert not torch.allclose(relu(images), relu6(images)), "some activations must pass 6"
    for name in ("guided_backprop", "gradient"):
        explainer = build(name)
        maps = [explainer.explain(net, images, TARGETS) for net in (relu, relu6)]
        assert not torch.allclose(*maps)
    guided = build("guided_backprop").explain(relu6, images, TARGETS)
    assert not torch.allclose(guided, build("gradient").explain(relu6, images, TARGETS))


OTHERS = {
    "clamp(min=0.1)": lambda z: z.clamp(min=0.1),
    "clamp(-1, 1)": lambda z: z.clamp(-1, 1),
    "clamp(max=6)": lambda z: z.clamp(max=6),
    "clamp(min=tensor)": lambda z: z.clamp(min=torch.zeros((), dtype=z.dtype)),
    "hardtanh": F.hardtanh,
    "threshold(0.1, 0)": lambda z: F.threshold(z, 0.1, 0.0),
    "threshold(0, -1)": lambda z: F.threshold(z, 0.0, -1.0),
    "leaky_relu": lambda z: F.leaky_relu(z, 0.1),
    "silu": F.silu,
    "abs": torch.abs,
}


@pytest.mark.parametrize("spelling", OTHERS)
def test_other_functions_are_left_alone(spelling):
    net, images = seeded(lambda: Spelled(OTHERS[spelling])), pictures()
    assert torch.equal(Smoothed(net, 2.0)(images), net(images))
    guided = build("guided_backprop").explain(net, images, TARGETS)
    torch.testing.assert_close(guided, build("gradient").explain(net, images, TARGETS), **EXACT)


# --- in-place operations --------------------------------------------------------------------


def alias_kept(z: Tensor) -> Tensor:
    other = z
    z += 1.0
    return z * other


def kept_in_a_list(z: Tensor) -> Tensor:
    kept = [z]
    z.mul_(2.0)
    return torch.cat([z, *kept], 1)[:, : z.shape[1]] + torch.stack(kept).sum(0)


def chained(z: Tensor) -> Tensor:
    z.mul_(2.0).add_(1.0)
    z.sub_(0.5)
    z.relu_()
    return z


def augmented(z: Tensor) -> Tensor:
    same = z
    z -= 0.25
    z *= 3.0
    z /= 2.0
    return same


def by_keyword(z: Tensor) -> Tensor:
    z.add_(1.0)
    return torch.clamp(input=z, min=-0.5)


def as_second_argument(z: Tensor) -> Tensor:
    z.exp_()
    return torch.sub(1.0 + 0 * z, other=z, alpha=0.5)


def through_a_view_made_later(z: Tensor) -> Tensor:
    z.add_(1.0)
    return z.flatten(1).view_as(z)


def a_slice_assigned(z: Tensor) -> Tensor:
    z[:, :2] += 1.0
    z[:, 2] = 0.5
    return z


def with_a_tensor(z: Tensor) -> Tensor:
    z.add_(z.mean((2, 3), keepdim=True), alpha=2.0)
    z.mul_(torch.ones_like(z) * 0.5)
    return z


def masked(z: Tensor) -> Tensor:
    z.masked_fill_(z < 0, -0.1)
    return z


def to_its_own_shape(z: Tensor) -> Tensor:
    z.add_(1.0)
    assert z.shape == z.clone().shape and z.size(1) == z.shape[1]
    return z if float(z.detach().sum()) else -z


IN_PLACE = [
    alias_kept,
    kept_in_a_list,
    chained,
    augmented,
    by_keyword,
    as_second_argument,
    through_a_view_made_later,
    a_slice_assigned,
    with_a_tensor,
    masked,
    to_its_own_shape,
]
MODULES = [
    nn.LeakyReLU(0.1, inplace=True),
    nn.SiLU(inplace=True),
    nn.Hardswish(inplace=True),
    nn.Hardsigmoid(inplace=True),
    nn.ELU(inplace=True),
    nn.SELU(inplace=True),
    nn.CELU(inplace=True),
    nn.Mish(inplace=True),
    nn.Dropout(inplace=True),
    nn.Hardtanh(-1, 1, inplace=True),
]


def same_meaning(net: nn.Module) -> None:
    """The net computes and differentiates the same while its operations are watched."""
    images = pictures()
    expected = net(images)
    torch.testing.assert_close(Smoothed(net, FAR)(images), expected, rtol=0, atol=1e-7)
    with Interposition({}) as mode:
        torch.testing.assert_close(mode.current(net(images)), expected, rtol=0, atol=0)
    plain = input_gradient(net, images, TARGETS)
    watched = input_gradient(net, images, TARGETS, mode=Interposition({}))
    torch.testing.assert_close(watched, plain, **EXACT)
    guided = Interposition({"relu": lambda call: call.native(), "add": lambda call: call.native()})
    torch.testing.assert_close(input_gradient(net, images, TARGETS, mode=guided), plain, **EXACT)


@pytest.mark.parametrize("activate", IN_PLACE, ids=lambda f: f.__name__)
def test_in_place_operations_keep_their_meaning(activate):
    same_meaning(seeded(lambda: Spelled(activate)))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("wrap", [lambda m: m, ignored], ids=["used", "ignored"])
def test_in_place_modules_keep_their_meaning(module, wrap):
    module = copy.deepcopy(module).eval()
    net = seeded(lambda: Spelled(wrap(module)))
    same_meaning(net)
    apart = copy.deepcopy(module)
    apart.inplace = False
    twin = seeded(lambda: Spelled(apart))
    for name in ("lrp", "guided_backprop", "gradient"):
        ours, expected = (build(name).explain(n, pictures(), TARGETS) for n in (net, twin))
        torch.testing.assert_close(ours, expected, **EXACT)


class EndsInPlace(Spelled):
    """The last operation changes the logits and its result is ignored."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        logits.mul_(2.0)
        return logits


def test_logits_changed_at_the_very_end_are_seen():
    same_meaning(seeded(lambda: EndsInPlace(F.relu)))


class Block(nn.Module):
    """A layer whose last operation changes its output, as many residual blocks are written."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.conv, self.relu, self.ending = nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), ending

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.ending == "ignored":
            self.relu(out)
            return out
        return self.relu(out)


def test_grad_cam_on_the_surrogate_of_a_layer_that_ends_in_place():
    nets = [
        seeded(lambda e=ending: nn.Sequential(
            Block(e), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
        ))
        for ending in ("ignored", "used")
    ]  # fmt: skip
    explainer = build("grad_cam", layer="0", relu=False)
    for wrap in (lambda net: net, lambda net: Smoothed(net, 2.0)):
        ours, expected = (explainer.explain(wrap(net), pictures(), TARGETS) for net in nets)
        torch.testing.assert_close(ours, expected, **EXACT)


def written_through_a_view(z: Tensor) -> Tensor:
    z.view(-1).relu_()
    return z


def written_through_a_flat_view(z: Tensor) -> Tensor:
    rows = z.flatten(2)
    rows.add_(1.0)
    return z


def written_through_a_slice(z: Tensor) -> Tensor:
    z[:, :2].add_(1.0)
    return z


@pytest.mark.parametrize(
    "activate",
    [written_through_a_view, written_through_a_flat_view, written_through_a_slice],
    ids=lambda f: f.__name__,
)
def test_changes_through_a_view_reach_the_whole(activate):
    """Or are refused: what must not happen is a surrogate that silently computes less."""
    try:
        same_meaning(seeded(lambda: Spelled(activate)))
    except InvalidInput as refusal:
        assert refusal.field == "model"
