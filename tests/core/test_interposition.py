"""Another rule for an operation, however the model writes it, and nothing else changed."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import (
    Call,
    Interposition,
    Phase,
    route,
    smooth_activation,
)
from robustlab.core.streaming import input_gradient
from robustlab.core.wrapping import Smoothed
from robustlab.explainers import build
from robustlab.explainers.relevance.walk import RelevanceWalk
from tests.nets import Normalised, ResNetLike, Spelled, VGGLike, pictures, seeded

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


# --- the softplus surrogate -----------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 10.0, 1000.0])
def test_softplus_is_within_ln2_over_beta_of_relu(beta):
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    gap = smooth_activation(x, beta) - F.relu(x)
    assert gap.min() >= -1e-14
    assert gap.max() == pytest.approx(math.log(2) / beta), "attained at 0"
    gap6 = smooth_activation(x, beta, 6.0) - F.relu6(x)
    assert gap6.abs().max() <= math.log(2) / beta + 1e-12


@pytest.mark.parametrize("beta", [1.0, 7.0, 100.0])
@pytest.mark.parametrize("ceiling", [None, 6.0])
def test_softplus_by_hand(beta, ceiling):
    x = torch.tensor([-1.0, 0.0, 0.5, 6.0, 7.0], dtype=torch.float64)
    expected = torch.log1p(torch.exp(beta * x)) / beta
    if ceiling:
        expected = expected - torch.log1p(torch.exp(beta * (x - ceiling))) / beta
    torch.testing.assert_close(smooth_activation(x, beta, ceiling), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("beta", [1.0, 7.0])
@pytest.mark.parametrize("ceiling", [None, 6.0])
def test_softplus_has_the_right_derivatives(beta, ceiling):
    x = torch.tensor([-1.0, 0.0, 0.5, 5.9, 6.0, 7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: smooth_activation(v, beta, ceiling), x)
    assert torch.autograd.gradgradcheck(lambda v: smooth_activation(v, beta, ceiling), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_stays_finite_far_out(dtype):
    x = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
    value = smooth_activation(x, 100.0)
    assert value.tolist() == [0.0, 1e4]
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert slope.tolist() == [0.0, 1.0]
    assert torch.autograd.grad(slope.sum(), x)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("make", [VGGLike, ResNetLike, lambda: Normalised(VGGLike())])
def test_smoothed_tends_to_the_net_at_rate_one_over_beta(make):
    net, images = seeded(make), pictures()
    with torch.no_grad():
        expected = net(images)
        gaps = [float((Smoothed(net, b)(images) - expected).abs().max()) for b in (1e3, 1e4, 1e5)]
    assert gaps[0] > 0
    for coarse, fine in itertools.pairwise(gaps):
        assert fine <= 0.2 * coarse, "ten times β is about a tenth of the gap"


def test_one_layer_of_units_moves_by_at_most_ln2_over_beta_each():
    net = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(27, 20), nn.ReLU(), nn.Linear(20, 5))
    )
    images = pictures(size=3)
    for beta in (1.0, 30.0):
        gap = (Smoothed(net, beta)(images) - net(images)).abs()
        reach = net[3].weight.abs().sum(1) * math.log(2) / beta
        assert (gap <= reach + 1e-12).all()


# --- what an attack gets --------------------------------------------------------------------


def attack_gradient(net: nn.Module, name: str, **options: object) -> Tensor:
    """∂/∂x of a weighted sum of the raw attribution, through its graph."""
    leaf = pictures().requires_grad_()
    raw = build(name, **options).explain(net, leaf, TARGETS, create_graph=True)
    weights = torch.linspace(-1, 1, raw.numel(), dtype=raw.dtype).view_as(raw)
    (gradient,) = torch.autograd.grad((raw * weights).sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient


@pytest.mark.parametrize("make", [VGGLike, ResNetLike])
def test_a_relu_nets_logit_gradient_cannot_be_attacked_but_its_surrogates_can(make):
    net = seeded(make)
    assert not attack_gradient(net, "gradient").any(), "exactly zero"
    assert not attack_gradient(net, "guided_backprop").any()
    for beta in (1.0, 10.0, 100.0):
        assert attack_gradient(Smoothed(net, beta), "gradient").abs().max() > 1e-8
        assert attack_gradient(Smoothed(net, beta), "guided_backprop").abs().max() > 1e-8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient", {"score": "prob"}),  # the softmax is curved
        ("gradient", {"score": "logprob"}),
        ("input_x_gradient", {}),  # the image is a factor
        ("integrated_gradients", {"steps": 3}),
        ("lrp", {}),  # activations appear in the rules
        ("grad_cam", {}),
    ],
)
def test_what_moves_on_a_relu_net_without_a_surrogate(name, options):
    assert attack_gradient(seeded(VGGLike), name, **options).abs().max() > 1e-8


# --- routes ---------------------------------------------------------------------------------


def test_a_route_takes_the_pullback_in_its_phase_and_the_true_path_outside():
    phase, x = Phase(), torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    seed = torch.tensor([1.0, 10.0, 100.0])
    output = route(phase, x.square(), lambda g: (None, 5 * g), x)
    assert torch.equal(output, x.square())
    (outside,) = torch.autograd.grad(output, x, seed, retain_graph=True)
    assert torch.equal(outside, seed * 2 * x)
    with phase:
        (inside,) = torch.autograd.grad(output, x, seed, retain_graph=True)
    assert torch.equal(inside, 5 * seed)
    assert not phase.active
    (again,) = torch.autograd.grad(output, x, seed)
    assert torch.equal(again, outside)


def test_a_route_may_change_what_flows_on_through_the_operation():
    phase, x = Phase(), torch.tensor([1.0, -2.0], requires_grad=True)
    output = route(phase, x.square(), lambda g: (g.clamp(min=0),))
    with phase:
        (inside,) = torch.autograd.grad(output, x, torch.tensor([3.0, -3.0]))
    assert inside.tolist() == [6.0, 0.0]


def test_a_route_can_be_blocked():
    phase, x = Phase(), torch.tensor([1.0], requires_grad=True)
    output = route(phase, x.square(), lambda g: (None, None), x)
    with phase:
        (inside,) = torch.autograd.grad(output, x, allow_unused=True)
    assert inside is None or not inside.any()


def test_a_route_can_be_differentiated_by_the_true_derivative():
    """R = x·g inside the phase; its derivative must use x by the true operation."""
    phase = Phase()

    def relevance(x: Tensor) -> Tensor:
        hidden = x**3
        output = route(phase, hidden.square(), lambda g: (None, hidden * g), hidden)
        with phase:
            (r,) = torch.autograd.grad(output.sum(), hidden, create_graph=True)
        return r  # = hidden

    x = torch.tensor([0.5, -1.5], dtype=torch.float64, requires_grad=True)
    assert torch.equal(relevance(x), x**3)
    (slope,) = torch.autograd.grad(relevance(x).sum(), x)
    torch.testing.assert_close(slope, 3 * x**2)


def test_a_phase_ends_with_an_exception():
    phase = Phase()
    with pytest.raises(RuntimeError), phase:
        raise RuntimeError
    assert not phase.active


def test_a_route_keeps_strides():
    """A batch of one with other strides makes torch's batch_norm backward wrong."""
    x = torch.empty_strided((1, 8, 3, 3), (72, 1, 24, 8)).normal_().requires_grad_()
    assert route(Phase(), x, lambda g: (g,)).stride() == x.stride()


class Keeper(nn.Module):
    """Keeps the logits of its last forward pass, with their graph."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        self.logits = self.net(x)
        return self.logits


@pytest.mark.parametrize("make", [VGGLike, ResNetLike, lambda: Normalised(VGGLike())])
@pytest.mark.parametrize("options", [{}, {"rule": "epsilon"}, {"composite": "epsilon_gamma_box"}])
def test_outside_the_phase_a_net_under_lrp_has_its_true_gradient(make, options):
    net = seeded(make)
    for images in (pictures(), pictures()[:1]):
        leaf, targets = images.clone().requires_grad_(), TARGETS[: len(images)]
        walk, kept = RelevanceWalk(build("lrp", **options).assignment()), Keeper(net)
        mode = Interposition(walk.handlers())
        input_gradient(kept, leaf, targets, create_graph=True, mode=mode, phase=walk.phase)
        score = kept.logits.gather(1, targets[:, None]).sum()
        plain = build("gradient").explain(net, images, targets)
        (true,) = torch.autograd.grad(score, leaf, retain_graph=True)
        torch.testing.assert_close(true, plain, **EXACT)
        with walk.phase:
            (relevance,) = torch.autograd.grad(score, leaf, retain_graph=True)
        assert not torch.allclose(relevance, plain), "the rules must differ to be seen"
        (true,) = torch.autograd.grad(score, leaf)
        torch.testing.assert_close(true, plain, **EXACT)


# --- modes ----------------------------------------------------------------------------------


def test_guided_backprop_on_the_surrogate_by_hand():
    """Clamp what arrives, then multiply by the derivative of softplus."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(27, 9), nn.ReLU(), nn.Linear(9, 5)))
    images, beta = pictures(size=3), 3.0
    found = build("guided_backprop").explain(Smoothed(net, beta), images, TARGETS)
    z = net[1](images.flatten(1))
    arriving = net[3].weight[TARGETS].clamp(min=0)
    expected = (arriving * torch.sigmoid(beta * z)) @ net[1].weight
    torch.testing.assert_close(found.flatten(1), expected.detach(), **EXACT)


def test_modes_nest_and_the_inner_one_acts_first():
    seen: list[tuple[str, str]] = []

    def note(who: str):
        def handle(call: Call) -> Tensor:
            seen.append((who, call.op))
            return call.native()

        return handle

    with Interposition({"relu": note("outer")}), Interposition({"relu": note("inner")}):
        F.relu(torch.ones(2))
    assert seen == [("inner", "relu"), ("outer", "relu")]


def test_a_mode_forgets_its_tensors_and_can_be_used_again():
    mode = Interposition({})
    x = torch.ones(2)
    with mode:
        x.add_(1)
        assert mode.current(x).tolist() == [2, 2]
    assert mode.current(x) is x and x.tolist() == [1, 1]
    with pytest.raises(RuntimeError), mode:
        x.add_(1)
        raise RuntimeError
    assert mode.current(x) is x


def test_a_handler_may_switch_an_in_place_operation_off():
    with Interposition({"relu": lambda call: call.input}):
        x = torch.tensor([-1.0])
        x.relu_()
        assert (2 * x).item() == -2.0


def test_a_call_knows_its_arguments_by_name():
    seen: list[Call] = []

    def note(call: Call) -> Tensor:
        seen.append(call)
        return call.native()

    ops = ("conv", "linear", "batch_norm", "add", "mul", "avg_pool", "clamp")
    x, conv, norm = torch.rand(2, 3, 5, 5), nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(3).eval()
    with Interposition(dict.fromkeys(ops, note)):
        conv(x)
        F.linear(x, bias=None, weight=torch.eye(5))
        norm(x)
        torch.add(x, x, alpha=2)
        2 * x
        F.adaptive_avg_pool2d(x, 1)
        x.mean((2, 3))
        x.clamp(-1, 1)
    assert [c.op for c in seen] == [
        "conv", "linear", "batch_norm", "add", "mul", "avg_pool", "avg_pool", "clamp"
    ]  # fmt: skip
    assert seen[0].get("weight") is conv.weight and tuple(seen[0].get("stride")) == (2, 2)
    assert seen[1].get("bias", "missing") is None
    assert torch.equal(seen[1].get("weight"), torch.eye(5))
    assert seen[2].get("running_mean") is norm.running_mean and seen[2].get("eps") == norm.eps
    assert seen[3].get("alpha") == 2 and seen[3].get("other") is x
    assert seen[4].input is x and seen[4].get("other") == 2
    assert all(call.input is x for call in seen)
    doubled = seen[0].run(2 * x)
    torch.testing.assert_close(doubled, conv(2 * x))


# --- which tensor is the image --------------------------------------------------------------


class Affine(nn.Module):
    """Scales and shifts its features by reshaped parameters: neither leaf nor image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.scale, self.shift = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return self.fc(F.relu(x).mean((2, 3)))


class Standardised(nn.Module):
    """Weight standardisation: the first thing it computes with is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight - self.conv.weight.mean((1, 2, 3), keepdim=True)
        return self.fc(F.relu(F.conv2d(x, weight, self.conv.bias)).mean((2, 3)))


@pytest.mark.parametrize("make", [Affine, Standardised])
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_gamma_box"])
def test_relevance_does_not_depend_on_which_parameters_are_trainable(make, composite):
    net, explainer = seeded(make), build("lrp", composite=composite)
    found = []
    for trainable in (False, True):
        net.requires_grad_(trainable)
        for create_graph in (False, True):
            raw = explainer.explain(net, pictures(), TARGETS, create_graph=create_graph)
            found.append(raw.detach())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **EXACT)
