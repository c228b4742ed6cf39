"""LRP by the textbook: dense matrices in numpy, conservation, and what the rules cost."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from robustlab.core.errors import InvalidInput
from robustlab.core.score import score_of
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from robustlab.explainers.relevance.lrp import conservation
from robustlab.explainers.relevance.rules import STABILISER, AlphaBeta, ZBox, stabilised
from tests.nets import Normalised, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}

# --- the textbook ---------------------------------------------------------------------------

Vector = np.ndarray


def stab(z: float, epsilon: float) -> float:
    return z + epsilon if z >= 0 else z - epsilon


def shares(contributions: Vector, extra: Vector, r: Vector, epsilon: float = STABILISER) -> Vector:
    """R_i = Σ_j c_ij / stab(Σ_i c_ij + extra_j) · R_j, written out."""
    units, inputs = contributions.shape
    result = np.zeros(inputs)
    for j in range(units):
        denominator = stab(contributions[j].sum() + extra[j], epsilon)
        for i in range(inputs):
            result[i] += contributions[j, i] / denominator * r[j]
    return result


def epsilon_rule(w: Vector, b: Vector, x: Vector, z: Vector, r: Vector, epsilon=0.01) -> Vector:
    return shares(w * x, b, r, epsilon)


def alpha_beta_rule(w, b, x, z, r, alpha=3.0, beta=2.0):
    c = w * x
    up = shares(np.maximum(c, 0), np.maximum(b, 0), r)
    down = shares(np.minimum(c, 0), np.minimum(b, 0), r)
    return alpha * up - beta * down


def z_plus_rule(w, b, x, z, r):
    return alpha_beta_rule(w, b, x, z, r, alpha=1.0, beta=0.0)


def gamma_rule(w, b, x, z, r, gamma=0.4):
    c = w * x
    favoured_up = shares(c + gamma * np.maximum(c, 0), b + gamma * np.maximum(b, 0), r * (z > 0))
    favoured_down = shares(c + gamma * np.minimum(c, 0), b + gamma * np.minimum(b, 0), r * (z < 0))
    return favoured_up + favoured_down


def w_square_rule(w, b, x, z, r):
    return shares(w**2, b**2, r)


def flat_rule(w, b, x, z, r):
    connected = (w != 0).astype(float)  # a dense matrix also holds pairs that do not meet
    return shares(connected, 0 * b, r)


def z_box_rule(w, b, x, z, r):
    low, high = np.zeros_like(x), np.ones_like(x)
    c = w * x - np.maximum(w, 0) * low - np.minimum(w, 0) * high
    return shares(c, 0 * b, r)


RULES = {
    "epsilon": (epsilon_rule, {"epsilon": 0.01}),
    "alpha_beta": (alpha_beta_rule, {"alpha": 3.0, "beta": 2.0}),
    "z_plus": (z_plus_rule, {}),
    "gamma": (gamma_rule, {"gamma": 0.4}),
    "w_square": (w_square_rule, {}),
    "flat": (flat_rule, {}),
    "z_box": (z_box_rule, {"epsilon": 0.01}),
}


def as_matrix(conv: nn.Conv2d, side: int) -> tuple[Vector, Vector]:
    """A convolution as a matrix and a bias, index by index."""
    weight, stride, pad = conv.weight.detach().numpy(), conv.stride[0], conv.padding[0]
    outs, ins, kernel, _ = weight.shape
    result = (side + 2 * pad - kernel) // stride + 1
    matrix = np.zeros((outs, result, result, ins, side, side))
    for o, p, q, i, u, v in np.ndindex(outs, result, result, ins, kernel, kernel):
        row, column = p * stride + u - pad, q * stride + v - pad
        if 0 <= row < side and 0 <= column < side:
            matrix[o, p, q, i, row, column] = weight[o, i, u, v]
    bias = np.repeat(conv.bias.detach().numpy(), result * result)
    return matrix.reshape(outs * result * result, -1), bias


def textbook(net: nn.Sequential, image: Vector, target: int, rule: str, bias: bool) -> Vector:
    """Relevance of (convolution → activation → flatten → matrix), in dense matrices."""
    conv, activation, _, dense = net
    w1, b1 = as_matrix(conv, image.shape[-1])
    w2, b2 = dense.weight.detach().numpy(), dense.bias.detach().numpy()
    x0 = image.ravel()
    z1 = w1 @ x0 + b1
    x1 = np.maximum(z1, 0) if isinstance(activation, nn.ReLU) else z1
    z2 = w2 @ x1 + b2
    r2 = np.zeros_like(z2)
    r2[target] = z2[target]
    formula, _ = RULES[rule]
    upper = epsilon_rule if rule == "z_box" else formula  # only the first layer sees the image
    kept1, kept2 = (b1, b2) if bias else (0 * b1, 0 * b2)
    r1 = upper(w2, kept2, x1, z2, r2)
    return formula(w1, kept1, x0, z1, r1).reshape(image.shape)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Identity()])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_rules_equal_the_textbook_in_dense_matrices(rule, bias, activation, shift):
    """Inputs of both signs, at the image and (without ReLU) at the matrix."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), activation, nn.Flatten(), nn.Linear(12, 4)
        )
    )
    images = pictures(size=4, channels=2) - shift
    explainer = build("lrp", rule=rule, bias=bias, **RULES[rule][1])
    found = explainer.explain(net, images, TARGETS).numpy()
    for image, target, relevance in zip(images.numpy(), TARGETS.tolist(), found, strict=True):
        expected = textbook(net, image, target, rule, bias)
        np.testing.assert_allclose(relevance, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [True, False])
def test_one_matrix_equals_the_textbook(rule, bias):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
    image = pictures(1, size=2, channels=3)
    explainer = build("lrp", rule=rule, bias=bias, **RULES[rule][1])
    found = explainer.explain(net, image, TARGETS[:1]).numpy().ravel()
    w, b = (p.detach().numpy() for p in (net[1].weight, net[1].bias))
    x = image.numpy().ravel()
    z = w @ x + b
    r = np.where(np.arange(4) == int(TARGETS[0]), z, 0.0)
    expected = RULES[rule][0](w, b if bias else 0 * b, x, z, r)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_stabiliser_leads_away_from_zero():
    z = torch.tensor([2.0, -2.0, 0.0, 1e-9, -1e-9], dtype=torch.float64)
    expected = torch.tensor([2.1, -2.1, 0.1, 0.1, -0.1], dtype=torch.float64)
    torch.testing.assert_close(stabilised(z, 0.1), expected)
    assert z[0] == 2.0, "its argument is not its own"


# --- theorems -------------------------------------------------------------------------------

# All but α with β > 0: a unit without negative parts loses the share that β promised them.
CONSERVING = [
    *({"rule": rule} for rule in ("epsilon", "z_plus", "gamma", "w_square", "flat", "z_box")),
    {"composite": "epsilon_plus"},
    {"composite": "epsilon_gamma_box"},
]


def grown(make: Callable[[], nn.Module]) -> nn.Module:
    """Larger weights, so that logits and activations are far above the stabiliser."""
    net = seeded(make)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return net


@pytest.mark.parametrize("options", CONSERVING, ids=lambda o: "-".join(o.values()))
def test_without_biases_relevance_is_conserved(options):
    net, images = grown(lambda: VGGLike(bias=False)), pictures()
    raw = build("lrp", **options).explain(net, images, TARGETS)
    found = conservation(raw, score_of(logits_of(net, images), TARGETS))
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", CONSERVING, ids=lambda o: "-".join(o.values()))
def test_biases_can_be_left_out_of_the_shares(options):
    """Then relevance is conserved although the net has biases."""
    net, images = grown(VGGLike), pictures()
    scores = score_of(logits_of(net, images), TARGETS)
    without = build("lrp", bias=False, **options).explain(net, images, TARGETS)
    kept = conservation(without, scores)
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=0, atol=1e-4)
    within = build("lrp", **options).explain(net, images, TARGETS)
    absorbed = (conservation(within, scores) - 1).abs().max()
    assert absorbed < 1e-6 if options == {"rule": "flat"} else absorbed > 1e-3


def test_conservation_is_measured_per_image():
    raw = torch.tensor([[1.0, 2.0], [3.0, -3.0], [0.0, -4.0]]).view(3, 1, 1, 2)
    found = conservation(raw, torch.tensor([3.0, 2.0, -2.0]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 2.0]))


def test_small_epsilon_is_input_times_gradient_on_a_bias_free_relu_net():
    net, images = seeded(lambda: VGGLike(bias=False)), pictures()
    relevance = build("lrp", rule="epsilon", epsilon=1e-14).explain(net, images, TARGETS)
    expected = build("input_x_gradient").explain(net, images, TARGETS)
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=1e-9)


def test_z_plus_is_alpha_one_beta_zero():
    net, images = seeded(VGGLike), pictures()
    plus = build("lrp", rule="z_plus").explain(net, images, TARGETS)
    special = build("lrp", rule="alpha_beta", alpha=1.0, beta=0.0).explain(net, images, TARGETS)
    assert torch.equal(plus, special)
    assert not torch.equal(plus, build("lrp", rule="alpha_beta").explain(net, images, TARGETS))


def test_gamma_tends_to_z_plus_where_inputs_are_not_negative():
    """On R ≥ 0 and z > 0 a large γ leaves only the positive contributions."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)))
    images = pictures(size=2)
    logits = logits_of(net, images)
    targets = logits.argmax(1)
    assert (logits.amax(1) > 0).all()
    gamma = build("lrp", rule="gamma", gamma=1e9).explain(net, images, targets)
    plus = build("lrp", rule="z_plus").explain(net, images, targets)
    torch.testing.assert_close(gamma, plus, rtol=1e-5, atol=1e-9)


# --- refusals ---------------------------------------------------------------------------------


def test_z_box_refuses_a_layer_that_does_not_see_the_image():
    with pytest.raises(InvalidInput, match="sees the image"):
        ZBox().relevance(None, torch.ones(1), torch.ones(1), torch.ones(1), None)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 0.5), (-1.0, -2.0)])
def test_alpha_and_beta_must_fit(alpha, beta):
    with pytest.raises(InvalidInput, match="must be 1"):
        AlphaBeta(alpha, beta)


# --- cost -----------------------------------------------------------------------------------


class Convolutions(TorchDispatchMode):
    """Counts convolutions and their transposes as they reach the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.forwards += func is torch.ops.aten.convolution.default
        self.backwards += func is torch.ops.aten.convolution_backward.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "forwards", "backwards"),
    [
        ({"rule": "epsilon"}, 1, 1),
        ({"rule": "z_plus"}, 2, 1),
        ({"rule": "w_square"}, 2, 1),
        ({"rule": "flat"}, 2, 1),
        ({"rule": "gamma"}, 3, 2),
        ({"rule": "alpha_beta"}, 3, 2),
        ({"composite": "epsilon_plus"}, 2, 1),
        ({"composite": "epsilon_alpha2_beta1"}, 3, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [VGGLike, lambda: Normalised(VGGLike())])
def test_rules_run_no_more_convolutions_than_they_must(options, forwards, backwards, make):
    net, explainer = seeded(make), build("lrp", **options)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    with Convolutions() as counted:
        explainer.explain(net, pictures(), TARGETS)
    # negative inputs, as behind a normalisation, cost both parts of a rule at the first layer
    extra = 2 if make is not VGGLike else 0
    assert counted.forwards <= forwards * len(convs) + extra
    assert counted.backwards <= backwards * len(convs) + extra
    assert explainer.cost().forward >= forwards and explainer.cost().backward >= backwards


# --- relevance at a layer inside -----------------------------------------------------------


class _Halves(nn.Module):
    """A small net in two halves: what the upper one is shown is the output of the lower."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.upper = nn.Sequential(
            nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.upper(self.lower(images))


@pytest.mark.parametrize("options", [{"rule": "epsilon"}, {"rule": "gamma"}, {"rule": "z_plus"}])
def test_relevance_at_a_layer_is_what_the_rest_of_the_network_hands_to_its_input(options):
    net = seeded(_Halves)
    images = pictures(size=8)
    with torch.no_grad():
        features = net.lower(images)
    found = build("lrp", layer="lower", **options).explain(net, images, TARGETS)
    expected = build("lrp", **options).explain(net.upper, features, TARGETS)
    assert found.shape == (3, 1, 8, 8)
    torch.testing.assert_close(found, expected.sum(1, keepdim=True), **EXACT)


def test_every_layer_holds_all_relevance_where_nothing_is_absorbed():
    net = seeded(lambda: Normalised(VGGLike()))
    images = pictures()
    scores = score_of(logits_of(net, images), TARGETS, "logit")
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            raw = build("lrp", bias=False, rule="epsilon", epsilon=1e-12, layer=name).explain(
                net, images, TARGETS
            )
            ratio = conservation(raw, scores)  # less what the stabilisers of pooling take
            torch.testing.assert_close(ratio, torch.ones(3).double(), rtol=0, atol=3e-5)


def test_a_layer_that_does_not_exist_is_named():
    with pytest.raises(InvalidInput, match=r"no module 'lowr'; did you mean 'lower'"):
        build("lrp", layer="lowr").explain(seeded(_Halves), pictures(size=8), TARGETS)
