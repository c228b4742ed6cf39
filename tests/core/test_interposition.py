"""Another rule for an operation, and nothing else changed: surrogates, routes, modes."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from tests.nets import Normalised, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-10, "atol": 1e-12}

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


# --- operations inside operations -----------------------------------------------------------


def noted(*ops: str) -> tuple[list[Call], Interposition]:
    """A mode that changes nothing, and the calls that it has seen."""
    seen: list[Call] = []

    def note(call: Call) -> Tensor:
        seen.append(call)
        return call.native()

    return seen, Interposition(dict.fromkeys(ops, note))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multi_head_attention_is_opened_for_those_who_look_for_attention(need_weights, batch_first):
    attention = nn.MultiheadAttention(6, 2, batch_first=batch_first).double().eval()
    x = torch.rand(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def run() -> tuple[Tensor, Tensor | None]:
        return attention(x, x, x, need_weights=need_weights)

    expected, weights = run()
    seen, mode = noted("linear", "attention", "matmul", "softmax")
    with mode:
        found, found_weights = run()
    torch.testing.assert_close(found, expected, **EXACT)
    assert (found_weights is None) == (weights is None) == (not need_weights)
    fused = ["linear", "attention", "linear"]
    apart = ["linear", "matmul", "softmax", "matmul", "linear"]
    assert [call.op for call in seen] == (apart if need_weights else fused)
    assert seen[0].get("weight") is attention.in_proj_weight
    assert seen[-1].get("weight") is attention.out_proj.weight
    others, mode = noted("linear", "softmax")
    with mode:
        torch.testing.assert_close(run()[0], expected, **EXACT)
    assert not others, "one call in one piece"


def test_what_is_inside_reaches_an_outer_mode_and_keeps_changes_in_place():
    attention = nn.MultiheadAttention(6, 2).double().eval()
    x = torch.rand(2, 3, 6, dtype=torch.float64)
    expected = attention(x + 1, x + 1, x + 1)[0]
    outer, outer_mode = noted("linear")
    _, inner_mode = noted("attention")
    with outer_mode, inner_mode:
        y = x.clone()
        y.add_(1)
        found = attention(y, y, y)[0]
    torch.testing.assert_close(found, expected, **EXACT)
    assert len(outer) == 2


def test_a_special_activation_is_also_a_general_one():
    x = torch.rand(3)
    general, mode = noted("activation")
    with mode:
        for function in (torch.sigmoid, torch.tanh, torch.erf, F.hardsigmoid, F.hardswish):
            function(x)
    assert [c.op for c in general] == ["sigmoid", "tanh", "erf", "hardsigmoid", "activation"]
    both, mode = noted("activation", "hardsigmoid")
    with mode:
        F.hardsigmoid(x.clone(), inplace=True)
    assert [c.op for c in both] == ["hardsigmoid"]


def test_a_call_can_be_run_on_other_operands():
    a, b, c, d = (torch.rand(2, 2, dtype=torch.float64) for _ in range(4))
    seen, mode = noted("matmul", "product", "sub", "rsub", "attention", "addmm")
    with mode:
        a @ b
        torch.einsum("ij,jk->ki", a, b)
        torch.sub(a, other=b, alpha=2)
        2 - a
        F.scaled_dot_product_attention(a, b, value=c)
        torch.addmm(a, b, c)
    matmul, einsum, sub, rsub, attention, addmm = seen
    for call, run, expected in (
        (matmul, matmul.run(c), c @ b),
        (matmul, matmul.run(a, other=d), a @ d),
        (einsum, einsum.run(c, other=d), (c @ d).T),
        (sub, sub.run(c, other=d), c - 2 * d),
        (rsub, rsub.run(c), 2 - c),
        (attention, attention.run(d), F.scaled_dot_product_attention(a, b, d)),
        (addmm, addmm.run(d), a + d @ c),
    ):
        torch.testing.assert_close(run, expected, **EXACT)
        assert isinstance(call.input, Tensor)
    assert attention.input is c and addmm.input is b


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
