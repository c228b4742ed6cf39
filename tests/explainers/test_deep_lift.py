"""DeepLIFT: captum, secants by hand, completeness whatever the net is made of."""

from collections.abc import Callable
from functools import partial

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.blur import gaussian_blur
from robustlab.core.interposition import smooth_activation
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from robustlab.explainers.relevance.deep_lift import completeness_gap
from tests.explainers.battery import check_derivative
from tests.explainers.nets import NETS
from tests.explainers.promises.comparing import noise
from tests.nets import Functional, Quadratic, Recorder, Spelled, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def explain(net: nn.Module, images: Tensor, targets: Tensor = TARGETS, **options) -> Tensor:
    return build("deep_lift", **options).explain(net, images, targets)


# --- captum ---------------------------------------------------------------------------------


class Apart(VGGLike):
    """A convolution between activation and pooling: captum confuses neighbours (its #1104)."""

    def __init__(self) -> None:
        super().__init__()
        self.features[4] = nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2))


@pytest.mark.parametrize("baseline", [0.0, 0.4, "mean", "blur"])
def test_it_equals_captum(baseline):
    net, images = seeded(Apart), pictures()
    explainer = build("deep_lift", baseline=baseline, blur_sigma=1.5)
    reference = explainer.reference(images)
    oracle = captum.attr.DeepLift(net).attribute(images, baselines=reference, target=TARGETS)
    torch.testing.assert_close(explainer.explain(net, images, TARGETS), oracle, **EXACT)
    gradient = build("gradient").explain(net, images, TARGETS)
    assert not torch.allclose(gradient * (images - reference), oracle), "secants are no slopes"


def test_functional_activations_make_no_difference():
    twin = seeded(VGGLike)
    functional = explain(Functional(twin).eval(), pictures())
    torch.testing.assert_close(functional, explain(twin, pictures()), **EXACT)


@pytest.mark.parametrize(
    "kind", [nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus], ids=lambda k: k.__name__
)
def test_other_activations_equal_captum(kind):
    def make() -> nn.Module:
        first, second = (nn.Conv2d(3, 5, 3, padding=1), kind()), (nn.Conv2d(5, 6, 3), kind())
        return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(600, 5))

    net, images = seeded(make), pictures()
    oracle = captum.attr.DeepLift(net).attribute(images, baselines=0.2, target=TARGETS)
    torch.testing.assert_close(explain(net, images, baseline=0.2), oracle, **EXACT)


# --- by hand --------------------------------------------------------------------------------


class OnPixels(nn.Module):
    """Two logits: a function of the two pixels of an image, and zero."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.same = function, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.same(x).flatten(1).unbind(1)
        score = self.function(first, second)
        return torch.stack([score, 0 * score], 1)


def parts(function: Callable[[Tensor, Tensor], Tensor], x, b=(0.0, 0.0)) -> list[float]:
    """What the two pixels contribute to a function of them."""
    image = torch.tensor(x, dtype=torch.float64).view(1, 1, 1, 2)
    net, first = OnPixels(function), torch.tensor([0])
    if b[0] == b[1]:
        return explain(net, image, first, baseline=b[0]).flatten().tolist()
    shift = torch.tensor(b, dtype=torch.float64)  # a reference of two values, by moving the image
    moved = OnPixels(lambda u, v: function(u + shift[0], v + shift[1]))
    return explain(moved, image - shift.view_as(image), first).flatten().tolist()


def test_the_papers_examples():
    """A saturated minimum and a thresholded sum, where gradients see nothing (its figures 1, 2)."""
    capped = lambda u, v: 1 - torch.relu(1 - u - v)  # noqa: E731
    assert parts(capped, (1.0, 1.0)) == pytest.approx([0.5, 0.5])
    assert parts(lambda u, v: torch.relu(u + v - 1.5), (1.0, 1.0)) == pytest.approx([0.25, 0.25])
    assert parts(lambda u, v: torch.relu(u - v), (3.0, 1.0)) == pytest.approx([3.0, -1.0])


def test_a_product_is_shared_evenly_between_its_factors():
    assert parts(torch.mul, (3.0, 5.0)) == pytest.approx([7.5, 7.5])
    found = parts(torch.mul, (3.0, 5.0), b=(1.0, 2.0))
    assert found == pytest.approx([2.0 * 3.5, 3.0 * 2.0])
    # a third factor halves and halves again: u·v first, then (u·v)·w with w = v
    found = parts(lambda u, v: u * v * v, (3.0, 5.0), b=(1.0, 2.0))
    of_product, of_last = (5.0 + 2.0) / 2, (15.0 + 2.0) / 2
    assert found == pytest.approx([of_product * 7.0, of_product * 6.0 + of_last * 3.0])


def test_a_quotient_is_a_product_with_the_reciprocal():
    found = parts(torch.div, (3.0, 5.0), b=(1.0, 2.0))
    assert found == pytest.approx([2.0 * (1 / 5 + 1 / 2) / 2, (1 / 5 - 1 / 2) * (3.0 + 1.0) / 2])


def test_softmax_is_the_mean_derivative_and_the_least_completion():
    x, b = np.array([1.5, -0.5]), np.array([0.2, 0.9])

    def soft(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum()

    def slope(z: np.ndarray) -> np.ndarray:  # of the first probability
        return soft(z)[0] * (np.array([1.0, 0.0]) - soft(z))

    mean, change = (slope(x) + slope(b)) / 2, x - b
    missing = soft(x)[0] - soft(b)[0] - mean @ change
    expected = (mean + missing * change / (change @ change)) * change
    found = parts(lambda u, v: torch.softmax(torch.stack([u, v], 1), 1)[:, 0], x, b)
    assert found == pytest.approx(expected.tolist(), rel=1e-12)
    assert abs(missing) > 1e-3, "the mean alone must fall short"


FUNCTIONS = {
    "relu": torch.relu,
    "relu6": lambda z: F.relu6(9 * z),
    "hardtanh": F.hardtanh,
    "clamp": lambda z: z.clamp(-0.1, 0.4),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "selu": F.selu,
    "celu": F.celu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "exp": torch.exp,
    "square": lambda z: z**2,
    "abs": torch.abs,
    "surrogate": lambda z: smooth_activation(z, 5.0, None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_single_values_hands_on_its_secant(name):
    function, x, b = FUNCTIONS[name], (0.7, 0.3), (-0.2, 0.6)
    z, reference = torch.tensor([2 * 0.7 - 0.3, 2 * -0.2 - 0.6], dtype=torch.float64)
    secant = float((function(z) - function(reference)) / (z - reference))
    found = parts(lambda u, v: function(2 * u - v), x, b)
    assert found == pytest.approx([secant * 2 * 0.9, secant * 0.3], rel=1e-9)


def pooled_by_hand(x: np.ndarray, b: np.ndarray, kernel: int, stride: int, weight: np.ndarray):
    """Each window's change goes to the place of the larger of its two maxima."""
    result = np.zeros_like(x)
    for p, q in np.ndindex(*weight.shape):
        places = [
            (p * stride + u, q * stride + v)
            for u, v in np.ndindex(kernel, kernel)
        ]  # fmt: skip
        larger = max((x, b), key=lambda z: max(z[i] for i in places))
        winner = max(places, key=lambda i: larger[i])
        change = max(x[i] for i in places) - max(b[i] for i in places)
        result[winner] += weight[p, q] * change  # times Δin, over Δin
    return result


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_max_pooling_by_hand(kernel, stride):
    """Also where windows overlap, as in ResNet's stem."""
    image, reference = pictures(2, size=7, channels=1, seed=5).split(1)
    out = (7 - kernel) // stride + 1
    weight = pictures(1, size=out, channels=1, seed=6) - 0.5

    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:  # the black image stands for the reference
            pooled = F.max_pool2d(x + reference, kernel, stride)
            return (pooled * weight).sum((2, 3)).expand(-1, 2)

    found = explain(Pooled(), image - reference, torch.tensor([0]))
    arrays = (v.squeeze().numpy() for v in (image, reference))
    expected = pooled_by_hand(*arrays, kernel, stride, weight.squeeze().numpy())
    np.testing.assert_allclose(found.squeeze().numpy(), expected, rtol=1e-9, atol=1e-12)


# --- completeness ---------------------------------------------------------------------------


class Gated(nn.Module):
    """An SE gate, a CBAM-like place gate, overlapping max-pooling and a shared activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.squeeze, self.excite, self.place = nn.Linear(6, 3), nn.Linear(3, 6), nn.Conv2d(2, 1, 3)
        self.act, self.fc = nn.SiLU(inplace=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.conv(x)), 3, 2, padding=1)
        gate = torch.sigmoid(self.excite(self.act(self.squeeze(x.mean((2, 3))))))
        x = self.act(self.conv2(x * gate[:, :, None, None]))
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        x = x * F.hardsigmoid(self.place(F.pad(both, (1, 1, 1, 1))))
        return F.log_softmax(self.fc(x.amax((2, 3))), dim=1)


class Normed(nn.Module):
    """Normalisations by the image's own statistics, and one written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.group, self.instance = nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, affine=True)
        self.layer, self.fc = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(F.normalize(self.group(self.conv(x)), dim=1))
        x = torch.tanh(self.instance(self.conv2(x)))
        x = x / (1 + x.square().mean(1, keepdim=True)).sqrt()
        return self.fc(self.layer(x.mean((2, 3))))


class Attending(nn.Module):
    """Fused attention, PyTorch's attention layer and its transformer's own spelling of both."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
        self.second = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + F.scaled_dot_product_attention(*self.first(4 * tokens).chunk(3, 2))
        tokens = tokens + self.second(tokens, tokens, tokens, need_weights=False)[0]
        return self.fc(tokens.mean(1))


COMPLETE = {
    **NETS,
    "gated": lambda: seeded(Gated),
    "normed": lambda: seeded(Normed),
    "attending": lambda: seeded(Attending),
    **{
        name: lambda f=function: seeded(partial(Spelled, f))
        for name, function in FUNCTIONS.items()
        if name != "exp"  # of exp(12 x) in a row nothing is left but infinity
    },
}


@pytest.mark.parametrize("net", COMPLETE)
def test_the_parts_add_up_exactly(net):
    net, images = COMPLETE[net](), pictures()
    for baseline in (0.0, "blur"):
        explainer = build("deep_lift", baseline=baseline, blur_sigma=1.5)
        raw = explainer.explain(net, images, TARGETS)
        scale = (logits_of(net, images) - logits_of(net, explainer.reference(images))).abs().max()
        gap = completeness_gap(net, explainer, images, TARGETS, raw).abs().max()
        assert gap <= 1e-11 * scale
    slopes = build("gradient").explain(net, images, TARGETS) * (images - 0.0)
    assert completeness_gap(net, build("deep_lift"), images, TARGETS, slopes).abs().max() > 1e-5


@pytest.mark.parametrize("net", ["gated", "normed", "attending"])
def test_rules_of_their_own_have_exact_derivatives(net):
    """What the battery's nets do not have: gates, ``amax``, normalisations, attention."""
    check_derivative(build("deep_lift", baseline=0.2), COMPLETE[net](), pictures(), TARGETS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_does_not_choose_the_place_of_a_maximum(dtype):
    """Under a constant reference whole windows are equal, but for what a processor rounds."""

    class Rounded(nn.Module):
        """What follows the convolution is off by a few bits, others by every seed."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.seed = nn.Conv2d(3, 4, 3), nn.Linear(100, 5), 0

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            grain = torch.finfo(dtype).eps * noise(x[:1], self.seed)
            return self.fc(F.max_pool2d(x * (1 + 4 * grain), 2).flatten(1))

    net, explainer = seeded(Rounded).to(dtype), build("deep_lift", baseline=0.4)
    before = explainer.explain(net, pictures().to(dtype), TARGETS)
    net.seed = 1
    gap = (explainer.explain(net, pictures().to(dtype), TARGETS) - before).abs().max()
    assert gap < 1000 * torch.finfo(dtype).eps * before.abs().max()


@pytest.mark.parametrize("norm", [partial(F.group_norm, num_groups=3), F.instance_norm])
def test_rows_keep_to_themselves(norm):
    """A logit that reads one group of a normalisation has no parts in the others."""

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return norm(x)[:, :1].square().flatten(1).cumsum(1)

    raw = explain(First(), pictures(), baseline="blur", blur_sigma=1.5)
    assert raw[:, 0].abs().amin() > 0
    assert not raw[:, 1:].any()


def test_what_has_no_rule_follows_the_mean_derivative():
    """Exact for a quadratic, whoever computes it."""
    net, images = seeded(lambda: Quadratic(48, classes=5)), pictures(size=4)
    explainer = build("deep_lift", baseline=0.3)
    raw = explainer.explain(net, images, TARGETS)
    assert completeness_gap(net, explainer, images, TARGETS, raw).abs().max() < 1e-11
    cubic = OnPixels(lambda u, v: torch.cumprod(torch.stack([u, v, u + v], 1), 1)[:, -1])
    raw = build("deep_lift").explain(cubic, images[:, :1, :1, :2], 0 * TARGETS)
    gap = completeness_gap(cubic, build("deep_lift"), images[:, :1, :1, :2], 0 * TARGETS, raw)
    assert gap.abs().min() > 1e-4, "the gap tells that a rule was missing"


def test_the_gap_is_signed_and_per_image():
    net, images = seeded(VGGLike), pictures()
    explainer = build("deep_lift")
    raw = explainer.explain(net, images, TARGETS)
    raw[1, 0, 0, 0] += 2.0
    raw[2, 0, 0, 0] -= 3.0
    found = completeness_gap(net, explainer, images, TARGETS, raw)
    expected = torch.tensor([0.0, 2.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_one_module_may_be_used_twice():
    """Captum keeps a module's inputs in the module, so it refuses or confuses them."""
    act = nn.ReLU()
    shared, apart = (seeded(partial(Spelled, f)) for f in (act, torch.relu))
    torch.testing.assert_close(explain(shared, pictures()), explain(apart, pictures()), **EXACT)


# --- image and reference almost alike -------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "silu", "softplus", "gelu"])
@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-7, 1e-4])
def test_the_secants_own_slope_is_right_where_nothing_changes(name, gap):
    """∂m/∂z → ½φ'' as z nears its reference; the derivative's own slope, φ'', is twice that."""
    function, z = FUNCTIONS[name], torch.tensor(0.4, dtype=torch.float64)
    image = torch.tensor([0.3, 0.1 + gap], dtype=torch.float64).view(1, 1, 1, 2).requires_grad_()
    # z = u + v is 0.4 at the image and at the reference, whose pixels are 0.1 and 0.3
    reference = torch.tensor([0.1, 0.3], dtype=torch.float64)
    net = OnPixels(lambda u, v: function(u + reference[0] + v + reference[1]))
    start = image - reference.view(1, 1, 1, 2)
    raw = build("deep_lift").explain(net, start, torch.tensor([0]), create_graph=True)
    (found,) = torch.autograd.grad(raw[..., 0].sum(), image)
    slope, curvature = derivatives(function, z)
    expected = [slope + 0.2 * curvature / 2, 0.2 * curvature / 2]  # Δu = 0.2
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert abs(0.2 * curvature / 2) > 0.01, "a derivative with twice the slope would show"


def derivatives(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[float, float]:
    z = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(z), z, create_graph=True)
    (second,) = torch.autograd.grad(first, z)
    return first.item(), second.item()


def test_kinks_are_never_smoothed_over_in_float32():
    """Values of opposite signs keep their secant, however small they are."""
    image = torch.tensor([[[[3e-5, 0.0]]]])
    net = OnPixels(lambda u, v: torch.relu(u - 1e-5 + v))
    raw = build("deep_lift").explain(net, image, torch.tensor([0]))
    assert float(raw.sum()) == pytest.approx(2e-5, rel=1e-3)


def test_an_image_like_its_reference_has_no_parts_and_the_gradient_as_slope():
    net = seeded(VGGLike)
    image = torch.full((3, 3, 12, 12), 0.5, dtype=torch.float64, requires_grad=True)
    raw = build("deep_lift", baseline=0.5).explain(net, image, TARGETS, create_graph=True)
    assert not raw.any()
    (slope,) = torch.autograd.grad(raw.sum(), image)
    torch.testing.assert_close(slope, build("gradient").explain(net, image, TARGETS), **EXACT)


# --- references and batches -----------------------------------------------------------------


def test_references():
    images = pictures()
    assert (build("deep_lift", baseline=0.25).reference(images) == 0.25).all()
    mean = build("deep_lift", baseline="mean").reference(images)
    torch.testing.assert_close(mean[1, 2], images[1, 2].mean().expand(12, 12))
    blurred = build("deep_lift", baseline="blur", blur_sigma=2.0).reference(images)
    assert torch.equal(blurred, gaussian_blur(images, 2.0))


def test_image_and_reference_share_a_micro_batch(monkeypatch):
    """Of a size that fills the cache together, and of no other."""
    monkeypatch.setattr("robustlab.core.streaming.PIXELS_PER_MICRO_BATCH", 4 * 144)
    net = Recorder(seeded(VGGLike))
    images = pictures(5)
    whole = explain(net, images, torch.arange(5))
    assert net.sizes == [4, 4, 2]
    singles = [explain(net, images[i : i + 1], torch.tensor([i])) for i in range(5)]
    torch.testing.assert_close(whole, torch.cat(singles), **EXACT)
