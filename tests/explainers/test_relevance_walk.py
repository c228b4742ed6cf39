"""How relevance finds its way: one operation in many spellings, gates, folds and accounts."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.score import score_of
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from robustlab.explainers.relevance.lrp import LRP, where_it_went
from robustlab.explainers.relevance.rules import STABILISER
from tests.explainers.battery import micro_batches_of
from tests.explainers.relevance_nets import Dense, Gated, Tokens
from tests.explainers.test_lrp import RULES, Vector, epsilon_rule
from tests.nets import ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}

# --- the same operation in other words ------------------------------------------------------


class Pooled(nn.Module):
    def __init__(self, pool) -> None:
        super().__init__()
        self.conv, self.fc, self.pool = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(F.relu(self.conv(x))))


POOLS = {
    "x.mean((2, 3))": lambda x: x.mean((2, 3)),
    "x.mean(dim=[2, 3])": lambda x: x.mean(dim=[2, 3]),
    "torch.mean": lambda x: torch.mean(x, (2, 3)),
    "twice": lambda x: x.mean(3).mean(2),
    "flat": lambda x: x.flatten(2).mean(2),
    "F.adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "nn.AdaptiveAvgPool2d": lambda x: nn.AdaptiveAvgPool2d(1)(x)[:, :, 0, 0],
    "F.avg_pool2d": lambda x: F.avg_pool2d(x, 10).squeeze(),
    "sum over the count": lambda x: x.sum((2, 3)) / 100,
    "torch.sum": lambda x: torch.sum(x, dim=(2, 3)) * 0.01,
}


@pytest.mark.parametrize("spelling", POOLS)
def test_an_average_shares_in_proportion_however_it_is_written(spelling):
    net, plain = (seeded(lambda s=s: Pooled(POOLS[s])) for s in (spelling, "x.mean((2, 3))"))
    explainer = build("lrp")
    expected = explainer.explain(plain, pictures(), TARGETS)
    found = explainer.explain(net, pictures(), TARGETS)
    # two means in a row are stabilised twice, and a sum is larger than its stabiliser
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


class Written(nn.Module):
    """A normalisation in front of a network that sees the image first."""

    def __init__(self, normalise, flat: bool) -> None:
        super().__init__()
        self.normalise, self.flat = normalise, flat
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 16 if not flat else 108, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalise(x)
        return self.fc(x.flatten(1) if self.flat else F.relu(self.conv(x)).flatten(1))


def constant(value: float) -> Tensor:
    return torch.full((3, 1, 1), value, dtype=torch.float64)


NORMALISATIONS = {
    "minus, over": lambda x: (x - 0.4) / 0.2,
    "times, minus": lambda x: x * 5 - 2,
    "from a constant": lambda x: (1 - (1 - x) - 0.4) / 0.2,
    "in place": lambda x: x.clone().sub_(0.4).div_(0.2),
    "methods": lambda x: x.sub(0.4).mul(5.0),
    "by tensors": lambda x: (x - constant(0.4)) / constant(0.2),
    "laid out first": lambda x: (x.contiguous() - 0.4) / 0.2,
    "laid out last": lambda x: ((x - 0.4) / 0.2).contiguous(),
    "copied last": lambda x: ((x - 0.4) / 0.2).clone(),
}


@pytest.mark.parametrize("spelling", NORMALISATIONS)
@pytest.mark.parametrize("flat", [False, True], ids=["convolution", "matrix"])
def test_the_pixel_box_goes_through_the_models_own_normalisation(spelling, flat):
    net, plain = (
        seeded(lambda s=s: Written(NORMALISATIONS[s], flat)) for s in (spelling, "minus, over")
    )
    images, explainer = pictures(size=6), build("lrp", rule="z_box", epsilon=0.01)
    found = explainer.explain(net, images, TARGETS)
    torch.testing.assert_close(
        found, explainer.explain(plain, images, TARGETS), rtol=1e-7, atol=1e-10
    )
    epsilon = build("lrp", rule="epsilon", epsilon=0.01).explain(net, images, TARGETS)
    assert not torch.allclose(found, epsilon), "z^B at the image, not ε"


@pytest.mark.parametrize(
    "reverse", [lambda x: (0.4 - x) / 0.2, lambda x: (x - 0.4) / -0.2, lambda x: -5 * x + 2]
)
def test_a_reversed_image_reverses_its_box(reverse):
    """Black is then the upper end: negated weights undo the negated pixels."""
    plain = seeded(lambda: Written(NORMALISATIONS["minus, over"], False))
    net = seeded(lambda: Written(reverse, False))
    net.conv.weight.data.neg_()
    images, explainer = pictures(size=6), build("lrp", composite="epsilon_gamma_box")
    ours, expected = (explainer.explain(n, images, TARGETS) for n in (net, plain))
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-10)


class Shifted(nn.Module):
    """Adds to some channels of a convolution's output: in place through a slice, or apart."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.in_place = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), in_place

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        if self.in_place:
            z[:, :2].add_(1.0)
        else:
            z = torch.cat([z[:, :2] + 1.0, z[:, 2:]], 1)
        return self.fc(torch.relu(z).mean((2, 3)))


@pytest.mark.parametrize("rule", ["epsilon", "z_plus", "gamma"])
@pytest.mark.parametrize("count", [1, 3])
def test_writing_through_a_slice_of_a_ruled_tensor_is_followed(rule, count):
    maps = [
        build("lrp", rule=rule).explain(
            seeded(lambda w=way: Shifted(w)), pictures(count), torch.tensor([1, 4, 0])[:count]
        )
        for way in (True, False)
    ]
    torch.testing.assert_close(*maps, rtol=1e-10, atol=1e-12)


# --- constants and gates in other words ------------------------------------------------------


class Cell(nn.Module):
    """A convolution, something, a global average and a matrix."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.between = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), between

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.between(self.conv(x)).mean((2, 3)))


def gelu_by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / 2**0.5))


SAME = {
    "silu": (F.silu, lambda x: x * torch.sigmoid(x)),
    "silu, turned round": (F.silu, lambda x: torch.sigmoid(x) * x),
    "hard-swish": (F.hardswish, lambda x: x * F.relu6(x + 3.0) / 6.0),
    "hard-swish by sixths": (F.hardswish, lambda x: x * (F.relu6(3 + x) * (1 / 6))),
    "hard-swish by hardtanh": (F.hardswish, lambda x: F.hardtanh(x + 3, 0.0, 6.0) * x / 6),
    "mish": (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
    "gelu": (F.gelu, gelu_by_hand),
    "hard-sigmoid": (F.hardsigmoid, lambda x: F.relu6(x + 3) / 6),
    "square": (torch.square, lambda x: x * x),
    "quotient": (lambda x: 1 / (1 + x.exp()), lambda x: torch.reciprocal(x.exp() + 1)),
    "minus": (lambda x: F.relu(-x), lambda x: F.relu(x.neg())),
    "less": (lambda x: x - x.mean(), lambda x: -(x.mean() - x)),
    "and more": (lambda x: x + 2 * F.relu(x), lambda x: torch.add(x, F.relu(x), alpha=2)),
    "normalised": (lambda x: F.normalize(x), lambda x: x / x.norm(dim=1, keepdim=True)),
}


@pytest.mark.parametrize("spelling", SAME)
@pytest.mark.parametrize("bias", [True, False])
def test_functions_may_be_spelt_out(spelling, bias):
    nets = [seeded(lambda b=between: Cell(b)) for between in SAME[spelling]]
    explainer = build("lrp", bias=bias, composite="epsilon_alpha2_beta1")
    if spelling == "hard-sigmoid" and bias:
        explainer = build("lrp", bias=False)  # by hand, its 3 is a constant that absorbs
    found, expected = (explainer.explain(net, pictures(), TARGETS) for net in nets)
    tolerance = 1e-3 if spelling in ("less", "gelu") else 1e-9  # one stabiliser more, or less
    torch.testing.assert_close(
        found, expected, rtol=0, atol=tolerance * float(expected.abs().max())
    )


class Affine(nn.Module):
    """Two convolutions with a batch-norm between them that `spell` computes."""

    def __init__(self, spell: Callable[[nn.BatchNorm2d, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.spell = spell

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.spell(self.norm, self.conv(x))).mean((2, 3)))


def scale_of(norm: nn.BatchNorm2d) -> Tensor:
    return norm.weight * (norm.running_var + norm.eps).rsqrt()


def frozen_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """As torchvision.ops.FrozenBatchNorm2d does it."""
    scale = scale_of(norm).reshape(1, -1, 1, 1)
    return x * scale + (norm.bias - norm.running_mean * scale_of(norm)).reshape(1, -1, 1, 1)


def four_steps(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / torch.sqrt(variance + norm.eps) * weight + bias


@pytest.mark.parametrize("spell", [frozen_norm, four_steps])
@pytest.mark.parametrize("options", [{"rule": "epsilon"}, {"rule": "alpha_beta"}, {"bias": False}])
def test_a_batch_norm_may_be_spelt_out(spell, options):
    """Constants per channel are part of the layer before them, whatever their sign."""
    nets = [seeded(lambda s=s: Affine(s)) for s in (lambda norm, x: norm(x), spell)]
    for net in nets:
        net.norm.weight.data[::2].neg_()
    expected, found = (build("lrp", **options).explain(net, pictures(), TARGETS) for net in nets)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("place", [0, 1])
def test_a_batch_norm_in_training_mode_sees_the_batch_once(place):
    layers = [nn.Conv2d(3, 3, 3), nn.ReLU()]
    layers.insert(2 * place, nn.BatchNorm2d(3))
    net = seeded(lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 5)))
    norm = net[2 * place].train()
    before = norm.running_mean.clone()
    net(pictures(size=6))
    once = norm.running_mean.clone()
    norm.running_mean.copy_(before)
    build("lrp", composite="z_plus_box").explain(net, pictures(size=6), TARGETS)
    torch.testing.assert_close(norm.running_mean, once, **EXACT)
    assert not torch.allclose(once, before)


def test_constants_per_place_are_not_folded():
    place = torch.rand(1, 4, 10, 10, dtype=torch.float64) + 0.5
    net = seeded(lambda: Cell(lambda x: F.relu(x + place)))
    images = pictures()
    absorbing, passing = (
        build("lrp", rule="epsilon", epsilon=1e-12, bias=bias).explain(net, images, TARGETS)
        for bias in (True, False)
    )
    leaf = images.clone().requires_grad_()
    score = net(leaf).gather(1, TARGETS[:, None]).sum()
    by_gradient = images * torch.autograd.grad(score, leaf)[0]
    torch.testing.assert_close(absorbing, by_gradient, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(passing, absorbing, rtol=1e-3)


class Product(nn.Module):
    """A matrix, spelt by ``multiply(x, weight [out, in])``, between a convolution and another."""

    def __init__(self, multiply: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.conv, self.mid, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(6, 5)
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).mean((2, 3))
        return self.fc(F.relu(self.multiply(x, self.mid)))


PRODUCTS = {
    "x @ W.T + b": lambda x, m: x @ m.weight.T + m.bias,
    "b + matmul": lambda x, m: m.bias + torch.matmul(x, m.weight.t()),
    "mm": lambda x, m: torch.mm(x, m.weight.T) + m.bias,
    "addmm": lambda x, m: torch.addmm(m.bias, x, m.weight.T),
    "x.matmul": lambda x, m: x.matmul(m.weight.T).add(m.bias),
    "tokens": lambda x, m: (x[:, None] @ m.weight.T + m.bias)[:, 0],
}
UNBIASED = {
    "einsum": lambda x, m: torch.einsum("bi,oi->bo", x, m.weight),
    "einsum, turned round": lambda x, m: torch.einsum("oi,bi->bo", m.weight, x),
    "W @ x": lambda x, m: (m.weight @ x.T).T,
    "W @ column": lambda x, m: (m.weight @ x[:, :, None])[:, :, 0],
    "bmm": lambda x, m: torch.bmm(x[:, None], m.weight.T.expand(len(x), -1, -1))[:, 0],
    "rmatmul": lambda x, m: x.T.__rmatmul__(m.weight).T,
}


@pytest.mark.parametrize("spelling", [*PRODUCTS, *UNBIASED])
@pytest.mark.parametrize("rule", ["epsilon", "alpha_beta", "gamma", "w_square", "flat"])
def test_a_matrix_may_be_spelt_out(spelling, rule):
    multiply = (PRODUCTS | UNBIASED)[spelling]
    net, plain = (seeded(lambda m=m: Product(m)) for m in (multiply, lambda x, m: m(x)))
    if spelling in UNBIASED:
        plain.mid.bias.data.zero_()
    found, expected = (
        build("lrp", rule=rule).explain(n, pictures(), TARGETS) for n in (net, plain)
    )
    torch.testing.assert_close(found, expected, **EXACT)


UNLIKE = {
    "three factors": lambda x, m: torch.einsum("bi,oi,bi->bo", x, m.weight, x),
    "turned round": lambda x, m: torch.addmm(m.bias[:, None], m.weight, x.T).T,
    "scaled": lambda x, m: torch.addmm(m.bias, x, m.weight.T, alpha=2),
    "biased by features": lambda x, m: torch.addmm(x.repeat(1, 2)[:, :6], x, m.weight.T),
    "by name": lambda x, m: torch.mm(x, mat2=m.weight.T),
}


@pytest.mark.parametrize("spelling", UNLIKE)
def test_products_unlike_a_layer_follow_their_derivative_and_show_in_the_account(spelling):
    net = seeded(lambda: Product(UNLIKE[spelling]))
    assert abs(where_it_went(LRP(), net, pictures(), TARGETS)["elsewhere"]) > 1e-5


# --- squeeze-and-excitation by hand -----------------------------------------------------------


class Excited(nn.Module):
    """One squeeze-and-excitation block on an image of 2 channels, and a matrix."""

    def __init__(self, gate: Callable[[Tensor], Tensor], apply: Callable[..., Tensor]) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(2, 3), nn.Linear(3, 2)
        self.fc, self.gate, self.apply_gate = nn.Linear(18, 5), gate, apply

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().contiguous()
        gate = self.gate(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.fc(self.apply_gate(x, gate).flatten(1))


GATES = {
    "scaled": (torch.sigmoid, lambda x, g: x * g[:, :, None, None]),
    "turned round": (F.hardsigmoid, lambda x, g: g.view(-1, 2, 1, 1) * x),
    "in place": (torch.sigmoid, lambda x, g: x.mul_(g.unsqueeze(-1).unsqueeze(-1))),
    "expanded": (lambda z: z.softmax(1), lambda x, g: x * g[..., None, None].expand_as(x)),
    "broadcast": (lambda z: z, lambda x, g: torch.mul(g.reshape(-1, 2, 1, 1), x)),
    "broadcast, expanded": (lambda z: z, lambda x, g: g[:, :, None, None].expand_as(x) * x),
    "of a squashed signal": (
        lambda z: z.sigmoid(), lambda x, g: g[:, :, None, None].repeat(1, 1, 3, 3) * F.relu6(x)
    ),
    "one minus": (lambda z: 1 - torch.sigmoid(z), lambda x, g: x * g[:, :, None, None]),
    "divided by": (lambda z: z.exp(), lambda x, g: x / g[:, :, None, None]),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_the_signal_takes_all_and_its_gate_is_a_weight(gate):
    """By the textbook: R_i = (w_i g_i x_i) / stab(z) · f, and not a word of how g was made."""
    net, images = seeded(lambda: Excited(*GATES[gate])), pictures(size=3, channels=2)
    found = build("lrp", rule="epsilon", epsilon=0.01).explain(net, images, TARGETS)
    with torch.no_grad():
        ones = torch.ones_like(images)
        g = net.gate(net.excite(F.relu(net.squeeze(images.mean((2, 3))))))
        g = net.apply_gate(ones, g)
        w, b = net.fc.weight[TARGETS].view_as(images), net.fc.bias[TARGETS].view(-1, 1, 1, 1)
        parts = w * g * images
        f = parts.sum((1, 2, 3), keepdim=True) + b
        expected = parts / (f + 0.01 * f.sign()) * f
    torch.testing.assert_close(found, expected, **EXACT)


def test_factors_that_nothing_tells_apart_share_by_halves():
    net = seeded(lambda: Cell(lambda x: F.relu(x[:, :2]) * F.softplus(x[:, 2:])))
    net.fc = seeded(lambda: nn.Linear(2, 5))
    took: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        x.register_hook(took.append)
        return x

    net.between = lambda x: keep(F.relu(x[:, :2])) * keep(F.softplus(x[:, 2:]))
    build("lrp").explain(net, pictures(), TARGETS)
    torch.testing.assert_close(took[0], took[1], **EXACT)
    assert took[0].abs().max() > 0


def test_features_that_multiply_features_share_by_halves():
    """A matrix product of two features: each takes half of every term, by the textbook."""
    net = seeded(lambda: nn.Sequential(Bilinear(), nn.Flatten(), nn.Linear(9, 5)))
    images = pictures(size=3)
    found = build("lrp", rule="epsilon", epsilon=0.01).explain(net, images, TARGETS).numpy()
    w, b = (p.detach().numpy() for p in net[2].parameters())
    for x, target, relevance in zip(images.numpy(), TARGETS.tolist(), found, strict=True):
        z = x[0] @ x[1]
        f = w[target] @ z.ravel() + b[target]
        r = epsilon_rule(w[target : target + 1], b[target : target + 1], z.ravel(), f, [f]).reshape(
            3, 3
        )
        expected = np.zeros_like(x)
        for i, j, k in np.ndindex(3, 3, 3):
            half = x[0, i, k] * x[1, k, j] / (z[i, j] + STABILISER) * r[i, j] / 2
            expected[0, i, k] += half
            expected[1, k, j] += half
        np.testing.assert_allclose(relevance, expected, rtol=1e-8, atol=1e-12)


class Bilinear(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] @ x[:, 1]


# --- a matrix of everything that is linear ---------------------------------------------------


def linear_in_matrix(operation: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Vector:
    """The matrix of a linear operation, column by column."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    return torch.stack([operation(e[None]).flatten() for e in basis], 1).detach().numpy()


TRANSPOSED = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1, "output_padding": 1},
    "grouped": {"groups": 2, "stride": 2},
    "dilated": {"dilation": 2, "bias": False},
}


@pytest.mark.parametrize("kind", TRANSPOSED)
@pytest.mark.parametrize("rule", ["epsilon", "alpha_beta", "w_square"])
@pytest.mark.parametrize("norm", [False, True])
def test_transposed_convolutions_equal_the_textbook(kind, rule, norm):
    up = nn.ConvTranspose2d(2, 4, 3, **TRANSPOSED[kind])
    size = up(torch.zeros(1, 2, 3, 3))[0].numel()
    between = nn.BatchNorm2d(4) if norm else nn.Identity()
    net = seeded(lambda: nn.Sequential(up, between, nn.ReLU(), nn.Flatten(), nn.Linear(size, 4)))
    images = pictures(size=3, channels=2) - 0.3
    found = build("lrp", rule=rule, **RULES[rule][1]).explain(net, images, TARGETS).numpy()
    whole = net[:2].eval()
    b1 = whole(torch.zeros(1, 2, 3, 3).double()).detach().numpy().ravel()
    w1 = linear_in_matrix(lambda x: whole(x) - whole(0 * x), (2, 3, 3))
    w2, b2 = (p.detach().numpy() for p in net[4].parameters())
    for image, target, relevance in zip(images.numpy(), TARGETS.tolist(), found, strict=True):
        x0, formula = image.ravel(), RULES[rule][0]
        z1 = w1 @ x0 + b1
        x1 = np.maximum(z1, 0)
        z2 = w2 @ x1 + b2
        r2 = np.where(np.arange(4) == target, z2, 0.0)
        expected = formula(w1, b1, x0, z1, formula(w2, b2, x1, z2, r2))
        np.testing.assert_allclose(relevance.ravel(), expected, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_resizing_shares_by_its_weights(mode, factor):
    resize = lambda x: F.interpolate(x, scale_factor=factor, mode=mode)  # noqa: E731
    net = seeded(lambda: Cell(lambda x: resize(F.relu(x))))
    epsilon = build("lrp", rule="epsilon", epsilon=1e-12)
    images, leaf = pictures(), pictures().requires_grad_()
    score = net(leaf).gather(1, TARGETS[:, None]).sum()
    by_gradient = images * torch.autograd.grad(score, leaf)[0]
    found = epsilon.explain(net, images, TARGETS)
    torch.testing.assert_close(found, by_gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shrink", [lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
                                    lambda x: F.avg_pool2d(x, 2)])  # fmt: skip
def test_resizing_the_image_hands_on_by_place_and_keeps_the_box(shrink):
    """Black pixels are no less there: a whole black picture still gets what z^B gives it."""
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(27, 5)))
    model = nn.Sequential(Spell(shrink), net)
    images, explainer = pictures(size=6), build("lrp", rule="z_box")
    images[0] = 0
    small = explainer.explain(net, shrink(images), TARGETS)
    found = explainer.explain(model, images, TARGETS)
    expected = small.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    assert found[0].abs().sum() > 0


class Spell(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x)


BOXED = {
    "a batch-norm": lambda x: F.batch_norm(x, *BATCH_NORM),
    "clipped": lambda x: (x.clamp(0, 1) - 0.4) / 0.2,
    "moved": lambda x: ((x.permute(0, 2, 3, 1) - 0.4) / 0.2).permute(0, 3, 1, 2),
    "sliced": lambda x: (x[:, :, :] - 0.4) / 0.2,
    "negated": lambda x: -((0.4 - x) / 0.2),
}
BATCH_NORM = [torch.full((3,), v, dtype=torch.float64) for v in (0.4, 0.04 - 1e-5)]


@pytest.mark.parametrize("spelling", BOXED)
def test_more_ways_to_normalise_keep_the_box(spelling):
    net, plain = (
        seeded(lambda s=s: Written(s, False))
        for s in (BOXED[spelling], NORMALISATIONS["minus, over"])
    )
    explainer = build("lrp", composite="z_plus_box")
    found, expected = (explainer.explain(n, pictures(size=6), TARGETS) for n in (net, plain))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)
    hidden = build("lrp", rule="z_plus").explain(plain, pictures(size=6), TARGETS)
    assert not torch.allclose(expected, hidden, rtol=1e-2)


NORMS = {
    "layer": nn.LayerNorm((3, 2, 2)),
    "group": nn.GroupNorm(1, 3),
    "instance": nn.InstanceNorm2d(3, affine=True),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_normalisations_equal_the_textbook(norm, bias):
    """The matrix of x ↦ (x − mean) · w/σ for the σ of this image, and its shift."""
    net = seeded(lambda: nn.Sequential(NORMS[norm], nn.Flatten(), nn.Linear(12, 5)))
    module, _, dense = net
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1, torch.Generator().manual_seed(parameter.ndim))
    options = {"rule": "epsilon", "epsilon": 1e-9, "bias": bias}
    found = build("lrp", **options).explain(net, pictures(size=2), TARGETS).numpy()
    weight, shift = (
        np.broadcast_to(p.detach().numpy().reshape(3, -1), (3, 4)).ravel()
        for p in (module.weight, module.bias)
    )
    rows = 4 if norm == "instance" else 12
    centring = np.eye(12) - np.kron(np.eye(12 // rows), np.ones((rows, rows)) / rows)
    w2, b2 = (p.detach().numpy() for p in dense.parameters())
    for image, target, relevance in zip(pictures(size=2).numpy(), TARGETS, found, strict=True):
        x = image.ravel()
        groups = x.reshape(-1, rows)
        sigma = np.sqrt(groups.var(1, keepdims=True) + 1e-5).repeat(rows, 1).ravel()
        matrix = (weight / sigma)[:, None] * centring
        z = matrix @ x + shift
        r = np.where(np.arange(5) == int(target), w2 @ z + b2, 0.0)
        kept, kept2 = (shift, b2) if bias else (0 * shift, 0 * b2)
        r = epsilon_rule(w2, kept2, z, None, r, epsilon=1e-9)
        expected = epsilon_rule(matrix, kept, x, None, r, epsilon=1e-9)
        np.testing.assert_allclose(relevance.ravel(), expected, rtol=1e-6, atol=1e-9)


# --- where relevance went ---------------------------------------------------------------------


def test_what_no_rule_knows_shows_in_the_account():
    known = seeded(lambda: Cell(F.relu))
    unknown = seeded(lambda: Cell(lambda x: x.var(1, keepdim=True).expand(-1, 4, 10, 10)))
    total = [float(score_of(logits_of(n, pictures()), TARGETS).sum()) for n in (known, unknown)]
    for net, logit, clean in ((known, total[0], True), (unknown, total[1], False)):
        went = where_it_went(LRP(), net, pictures(), TARGETS)
        assert sum(went.values()) == pytest.approx(logit)
        assert (abs(went["elsewhere"]) < 1e-12) == clean
        assert clean or abs(went["elsewhere"]) > 0.01 * abs(logit)


def test_the_account_does_not_depend_on_micro_batches():
    net, images = seeded(VGGLike), pictures()
    whole = where_it_went(LRP(), net, images, TARGETS)
    with micro_batches_of(1, images):
        parts = where_it_went(LRP(), net, images, TARGETS)
    assert parts == pytest.approx(whole)


@pytest.mark.parametrize("name", ["lrp", "deep_taylor", "clrp", "sglrp"])
def test_a_graph_is_freed_at_once(name):
    """Rules that refer to the walk, which remembers tensors of the graph, would keep it."""
    images, explainer = pictures().requires_grad_(), build(name)
    nets = [seeded(make) for make in (ResNetLike, Dense, Gated, Tokens)]
    for net in nets:
        explainer.explain(net, images, TARGETS)
    gc.collect()
    gc.disable()
    try:
        for net in nets:
            for create_graph in (False, True):
                explainer.explain(net, images, TARGETS, create_graph=create_graph)
        assert gc.collect() == 0
    finally:
        gc.enable()
