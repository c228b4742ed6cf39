"""Deconvnet, RectGrad, VarGrad, FullGrad and expected gradients against second opinions."""

import gc
from unittest import mock

import captum.attr
import numpy as np
import pytest
import torch
import zennit.attribution
import zennit.composites
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab import data
from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import generator, normal, uniform
from robustlab.core.streaming import logits_of
from robustlab.core.wrapping import Counted, Smoothed
from robustlab.explainers import build
from robustlab.explainers.gradient import full_grad
from tests.explainers.nets import NETS
from tests.explainers.variants.gradient import NETS as OWN_NETS
from tests.nets import (
    Functional,
    Normalised,
    Quadratic,
    Recorder,
    ResNetLike,
    Spelled,
    VGGLike,
    pictures,
    seeded,
)

TARGETS, IDS = torch.tensor([1, 3, 0]), ("a", "b", "c")
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def ours(name: str, net: nn.Module, images: Tensor | None = None, **options: object) -> Tensor:
    images = pictures() if images is None else images
    return build(name, **options).explain(net, images, TARGETS[: len(images)], ids=IDS)


def logit_gradient(net: nn.Module, images: Tensor) -> Tensor:
    """∂(target's logit)/∂x, written out."""
    leaf = images.clone().requires_grad_()
    chosen = net(leaf)[torch.arange(len(images)), TARGETS[: len(images)]].sum()
    return torch.autograd.grad(chosen, leaf)[0]


# --- deconvnet -------------------------------------------------------------------------------


@pytest.mark.parametrize("functional", [False, True])
def test_deconvnet_equals_captum_and_zennit(functional):
    twin = seeded(VGGLike)
    mine = ours("deconvnet", Functional(twin).eval() if functional else twin)
    oracle = captum.attr.Deconvolution(twin).attribute(pictures(), target=TARGETS)
    torch.testing.assert_close(mine, oracle, **EXACT)
    start = F.one_hot(TARGETS, 5).double()
    with zennit.attribution.Gradient(twin, zennit.composites.DeconvNet()) as attributor:
        torch.testing.assert_close(mine, attributor(pictures(), start)[1], **EXACT)
    for other in ("gradient", "guided_backprop"):
        assert not torch.allclose(mine, ours(other, twin)), f"the net tells it from {other}"


@pytest.mark.parametrize("activate", [F.relu, F.relu6, lambda x: x.clamp(0, 6)])
def test_deconvnet_is_transposed_layers_with_a_clamp_whatever_was_active(activate):
    net = seeded(lambda: Spelled(activate))
    positions = net.conv2(net.conv1(pictures())).shape[-2:]
    r = (net.fc.weight[TARGETS] / positions.numel())[:, :, None, None].expand(-1, -1, *positions)
    r = F.conv_transpose2d(12 * r.clamp(min=0), net.conv2.weight, stride=2, output_padding=1)
    expected = 12 * F.conv_transpose2d(r.clamp(min=0), net.conv1.weight, padding=1)
    torch.testing.assert_close(ours("deconvnet", net), expected, **EXACT)
    smooth = ours("deconvnet", Smoothed(net, 3.0))
    torch.testing.assert_close(smooth, expected, **EXACT)


# --- rectified gradient ----------------------------------------------------------------------


@pytest.mark.parametrize("net", [*NETS, "surrogate"])
def test_threshold_zero_is_guided_backprop_and_far_below_it_is_the_gradient(net):
    net = Smoothed(seeded(ResNetLike), 3.0) if net == "surrogate" else NETS[net]()
    zero, low = (ours("rectified_gradient", net, tau=tau) for tau in (0.0, -1e9))
    assert torch.equal(zero, ours("guided_backprop", net))
    assert torch.equal(low, ours("gradient", net))


@pytest.mark.parametrize("functional", [False, True])
def test_threshold_zero_equals_captums_guided_backprop(functional):
    twin = seeded(VGGLike)
    mine = ours("rectified_gradient", Functional(twin).eval() if functional else twin, tau=0.0)
    oracle = captum.attr.GuidedBackprop(twin).attribute(pictures(), target=TARGETS)
    torch.testing.assert_close(mine, oracle, **EXACT)


class FiveUnits(nn.Module):
    """At x = (1, 2) they are 1, 2, 3, 1, −1; R = (4, −3, 1, 5, 7), so a·R = (4, −6, 3, 5, 0)."""

    def __init__(self) -> None:
        super().__init__()
        rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, 0.0]]
        self.first = nn.Parameter(torch.tensor(rows).double())
        self.second = nn.Parameter(torch.tensor([[4.0, -3.0, 1.0, 5.0, 7.0]]).double())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(F.linear(x.flatten(1), self.first)), self.second)


@pytest.mark.parametrize(
    ("q", "units", "expected"),
    [
        (98, "4", [-5, 5]),  # place 4 · 0.02 would be 0: nothing larger; it is 1 at least
        (80, "4", [-5, 5]),  # place 0.8 → 1, τ = 4
        (62.5, "1 and 4", [-1, 5]),  # place 1.5 → 2, τ = 3
        (50, "1 and 4", [-1, 5]),  # place 2, τ = 3
        (25, "1, 3 and 4", [0, 6]),  # place 3, τ = 0
        (0, "1, 3 and 4; 5 is idle", [0, 6]),  # place 4, τ = −6
    ],
)
def test_percentiles_by_hand(q, units, expected):
    images = torch.tensor([[1.0, 2.0], [10.0, 20.0], [1e-3, 2e-3]]).double().view(3, 1, 1, 2)
    explainer = build("rectified_gradient", q=q)
    raw = explainer.explain(FiveUnits(), images, torch.zeros(3, dtype=torch.long))
    # the scale of an image does not matter: every image has its own threshold
    torch.testing.assert_close(raw.view(3, 2), torch.tensor([expected] * 3).double(), **EXACT)
    times = build("rectified_gradient", q=q, times_input=True)
    raw = times.explain(FiveUnits(), images, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(raw, images * torch.tensor(expected).double(), **EXACT)


@pytest.mark.parametrize("q", [20.0, 75.0, 98.0])
def test_percentiles_equal_numpys_nearest_rank(q):
    class Rectified(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.clamp(min=0)

        @staticmethod
        def backward(ctx, r):
            (z,) = ctx.saved_tensors
            products = (z.clamp(min=0) * r).flatten(1).numpy()
            tau = np.percentile(products, q, axis=1, method="nearest", keepdims=True)
            return r * torch.tensor(products > tau).view_as(r) * (z > 0)

    net, twin = (seeded(lambda f=f: Spelled(f)) for f in (F.relu, Rectified.apply))
    expected = logit_gradient(twin, pictures())
    torch.testing.assert_close(ours("rectified_gradient", net, q=q), expected, **EXACT)
    assert expected.any() and not torch.allclose(expected, ours("guided_backprop", net))


def test_a_layer_of_one_unit_lets_its_relevance_through():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    nn.init.ones_(net[1].weight)
    images = pictures(2, 2, 1)
    raw = build("rectified_gradient").explain(net, images, torch.tensor([0, 1]))
    expected = net[3].weight.detach().view(2, 1, 1, 1).expand(2, 1, 2, 2)
    torch.testing.assert_close(raw, expected, **EXACT)


# --- VarGrad ---------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [2, 5])
def test_var_grad_equals_captum_and_torch_at_the_noise_of_smooth_grad(samples):
    net, images, sigma = seeded(VGGLike), pictures(), 0.4
    mine = ours("var_grad", net, samples=samples, sigma=sigma, seed=3)
    noise = [sigma * normal(images, IDS, 3, f"smooth_grad/{j}") for j in range(samples)]
    gradients = torch.stack([logit_gradient(net, images + n) for n in noise])
    torch.testing.assert_close(mine, gradients.var(0, correction=0), **EXACT)
    smooth = ours("smooth_grad", net, samples=samples, sigma=sigma, seed=3)
    torch.testing.assert_close(smooth, gradients.mean(0), **EXACT)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
    image_major = torch.stack(noise, 1).flatten(0, 1)
    with mock.patch.object(torch, "normal", lambda *_: image_major):
        for kind, expected in (("vargrad", mine), ("smoothgrad", smooth)):
            oracle = tunnel.attribute(
                images, nt_type=kind, nt_samples=samples, stdevs=sigma, target=TARGETS, abs=False
            )
            torch.testing.assert_close(expected, oracle, **EXACT)


def test_var_grad_survives_a_mean_far_above_its_spread():
    """In float32 the difference of two means of squares has nothing right in it here."""
    exact = seeded(lambda: Quadratic(16, classes=4))
    with torch.no_grad():
        exact.a.mul_(0.01)
        exact.b.add_(1000.0)
    images = pictures(size=4, channels=1)
    expected = ours("var_grad", exact, images, samples=8)
    mine = ours("var_grad", exact.float(), images.float(), samples=8).double()
    scale = float(expected.amax())
    assert (mine - expected).abs().max() < 0.1 * scale
    noise = [0.15 * normal(images.float(), IDS, 0, f"smooth_grad/{j}") for j in range(8)]
    gradients = torch.stack([logit_gradient(exact, images.float() + n) for n in noise])
    naive = gradients.square().mean(0) - gradients.mean(0).square()
    assert (naive.double() - expected).abs().max() > scale, "the naive formula must fail here"


def test_var_grad_holds_no_more_than_a_micro_batch():
    net, sizes = seeded(VGGLike), []
    for samples in (4, 40):
        recorder = Recorder(net)
        with mock.patch("robustlab.core.streaming.PIXELS_PER_MICRO_BATCH", 6 * 12 * 12):
            ours("var_grad", recorder, samples=samples)
        sizes.append(max(recorder.sizes))
        assert sum(recorder.sizes) == 3 * samples
    assert sizes == [6, 6]


# --- FullGrad --------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["logit", "margin"])
@pytest.mark.parametrize("net", [*NETS, *OWN_NETS])
def test_pixels_and_biases_make_up_the_whole_score(net, score):
    net = (NETS | OWN_NETS)[net]()
    images = 3 * pictures()  # some activations reach the 6 of ReLU6
    gap = full_grad.completeness_gap(net, build("full_grad", score=score), images, TARGETS)
    assert gap.abs().max() < 1e-12
    pixels = (images * logit_gradient(net, images)).flatten(1).sum(1)
    scores = logits_of(net, images)[torch.arange(3), TARGETS]
    assert (scores - pixels).abs().min() > 1e-3, "the biases must matter"


@pytest.mark.parametrize("op", ["conv", "linear", "batch_norm", "relu6", "sub"])
def test_the_gap_shows_every_forgotten_bias(op):
    net = seeded(lambda: Normalised(ResNetLike()))
    handlers = full_grad._BiasWalk.handlers

    def without(walk):
        return {k: v for k, v in handlers(walk).items() if k != op}

    with mock.patch.object(full_grad._BiasWalk, "handlers", without):
        gap = full_grad.completeness_gap(net, build("full_grad"), 3 * pictures(), TARGETS)
    assert gap.abs().min() > 1e-4


def scaled_and_summed(terms: list[Tensor]) -> Tensor:
    """Σ_l Σ_c ψ(term), image by image and layer by layer as in the authors' code."""
    maps = torch.zeros(len(terms[0]), 1, 12, 12, dtype=torch.double)
    for term in terms:
        for i, one in enumerate(term.detach().abs()):
            one = (one - one.min()) / (one.max() - one.min())
            up = F.interpolate(one[None], size=(12, 12), mode="bilinear", align_corners=False)
            maps[i] += up.sum(1)
    return maps


def bias_terms(net: nn.Module, images: Tensor) -> list[Tensor]:
    """x ⊙ ∂s/∂x, then b ⊙ ∂s/∂z of convolutions and batch-norms, by modules and their hooks."""
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: object, z: Tensor) -> Tensor:
        outputs.append((module, z))
        return z.clone()  # what follows may change it in place

    handles = [
        m.register_forward_hook(keep)
        for m in net.modules()
        if isinstance(m, nn.Conv2d | nn.BatchNorm2d)
    ]
    leaf = images.clone().requires_grad_()
    score = net(leaf)[torch.arange(len(images)), TARGETS].sum()
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, [leaf, *(z for _, z in outputs)])
    terms = [images * gradients[0]]
    for (m, _), gradient in zip(outputs, gradients[1:], strict=True):
        bias = m.bias
        if isinstance(m, nn.BatchNorm2d):
            bias = m.bias - m.running_mean * m.weight / (m.running_var + m.eps).sqrt()
        if bias is not None:
            terms.append(bias[:, None, None] * gradient)
    return terms


@pytest.mark.parametrize("make", [VGGLike, ResNetLike])  # too little for ReLU6 to clip
def test_full_grad_equals_the_sum_over_hooked_layers(make):
    net = seeded(make)
    expected = scaled_and_summed(bias_terms(net, pictures()))
    torch.testing.assert_close(ours("full_grad", net), expected, **EXACT)
    assert not torch.allclose(expected, scaled_and_summed(bias_terms(net, pictures())[:1]))


class Flipped(Normalised):
    """Blue, green, red, as old networks like it; normalised before or after."""

    def __init__(self, net: nn.Module, first: bool) -> None:
        super().__init__(net)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, [2, 1, 0]]) if self.first else super().forward(x.clone())


def test_full_grad_takes_the_models_own_normalisation_for_its_input():
    net = seeded(lambda: Flipped(VGGLike(), first=False))
    expected = scaled_and_summed(bias_terms(net.net, (pictures() - net.mean) / net.std))
    torch.testing.assert_close(ours("full_grad", net), expected, **EXACT)
    torch.testing.assert_close(ours("full_grad", Counted(net)), expected, **EXACT)


def test_full_grad_puts_no_constant_on_the_wrong_channel():
    """Behind a swap of channels the normalisation has a term of its own."""
    net, images = seeded(lambda: Flipped(VGGLike(), first=True)), pictures()
    swapped = images[:, [2, 1, 0]]
    terms = bias_terms(net.net, (swapped - net.mean) / net.std)
    slope = logit_gradient(net, images)
    expected = [images * slope, -net.mean * slope[:, [2, 1, 0]], *terms[1:]]
    torch.testing.assert_close(ours("full_grad", net), scaled_and_summed(expected), **EXACT)


class ChannelsLast(nn.Module):
    """A convolution, then everything with the channels at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4)
        self.wide, self.fc = nn.Linear(4, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.wide(self.norm(self.conv(x).permute(0, 2, 3, 1))))
        return self.fc(x.mean((1, 2)))


def test_full_grad_draws_nothing_whose_place_it_does_not_know():
    net = seeded(ChannelsLast)
    expected = scaled_and_summed(bias_terms(net, pictures()))  # of the image and the convolution
    torch.testing.assert_close(ours("full_grad", net), expected, **EXACT)


@pytest.mark.parametrize("create_graph", [False, True])
def test_full_grad_leaves_no_circle_behind(create_graph):
    """A graph in a circle would stay in memory until the garbage collector finds it."""
    net, leaf = seeded(lambda: Normalised(ResNetLike())), pictures().requires_grad_()
    gc.collect()
    gc.disable()
    try:
        build("full_grad").explain(net, leaf, TARGETS, create_graph=create_graph)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("activate", [F.relu, F.relu6])
def test_full_grad_of_an_attacks_stand_in_approaches_that_of_the_net(activate):
    net = seeded(lambda: Spelled(activate))
    far, near = (
        (ours("full_grad", Smoothed(net, beta)) - ours("full_grad", net)).abs().max()
        for beta in (1e1, 1e6)
    )
    assert near < 1e-9 < 1e-3 < far


def test_rounding_is_not_taken_for_a_bias():
    """A leaky ReLU has none, but z·φ' and φ differ in the last bit."""
    leaky = seeded(lambda: Spelled(lambda x: F.leaky_relu(x, 0.3)))
    expected = scaled_and_summed(bias_terms(leaky, pictures()))
    torch.testing.assert_close(ours("full_grad", leaky), expected, **EXACT)
    with mock.patch.object(full_grad, "_largest", lambda values: torch.ones(())):
        assert not torch.allclose(ours("full_grad", leaky), expected), "rounding must show"


# --- expected gradients ----------------------------------------------------------------------


def draws(images: Tensor, samples: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Background images and α of every sample, from the project's own streams."""
    one = images[:, :1, :1, :1]
    starts = [
        uniform(images, IDS, seed, f"expected_gradients/background/{j}") for j in range(samples)
    ]
    alphas = [uniform(one, IDS, seed, f"expected_gradients/alpha/{j}") for j in range(samples)]
    return [(b + 1) / 2 for b in starts], [(a + 1) / 2 for a in alphas]


def by_captum(net: nn.Module, images: Tensor, starts: list[Tensor], alphas: list[Tensor]) -> Tensor:
    """captum's GradientShap without its noise, at these draws (it takes images one by one)."""
    every = torch.stack(starts, 1).flatten(0, 1)
    with (
        mock.patch.object(
            np.random, "uniform", lambda *_: torch.stack(alphas, 1).flatten().numpy()
        ),
        mock.patch.object(np.random, "choice", lambda *_, **__: np.arange(len(every))),
        mock.patch.object(np.random, "randint", lambda *_, **__: np.arange(len(every))),
    ):
        return captum.attr.GradientShap(net).attribute(
            images,
            baselines=every,
            n_samples=len(starts),
            stdevs=0.0,
            target=TARGETS[: len(images)],
        )


def test_expected_gradients_equal_captum():
    net, images = seeded(VGGLike), pictures()
    starts, alphas = draws(images, 5, seed=2)
    mine = ours("expected_gradients", net, samples=5, seed=2)
    torch.testing.assert_close(mine, by_captum(net, images, starts, alphas), **EXACT)
    assert len({float(a[0]) for a in alphas}) == 5 and len({float(a) for a in alphas[0]}) == 3
    blurred = ours("expected_gradients", net, samples=5, seed=2, background="blur", blur_sigma=2.0)
    starts = [gaussian_blur(images, 2.0)] * 5
    torch.testing.assert_close(blurred, by_captum(net, images, starts, alphas), **EXACT)


def test_expected_gradients_by_hand_on_a_quadratic_net():
    net, images = seeded(lambda: Quadratic(48, classes=4)), pictures(size=4)
    expected = torch.zeros(3, 48, dtype=torch.double)
    for start, alpha in zip(*draws(images, 4), strict=True):
        path = (images - start).flatten(1)
        point = start.flatten(1) + alpha.flatten(1) * path
        slope = torch.einsum("bij,bj->bi", net.a[TARGETS], point) + net.b[TARGETS]
        expected += path * slope / 4
    mine = ours("expected_gradients", net, images, samples=4)
    torch.testing.assert_close(mine.flatten(1), expected.detach(), **EXACT)


def small_digit_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5))


def test_expected_gradients_draw_from_a_data_set():
    net, images = seeded(small_digit_net), pictures(size=28, channels=1)
    digits, starts = data.load("mnist_5k"), []
    for j in range(4):
        rows = [generator(1, name, f"expected_gradients/background/{j}") for name in IDS]
        rows = [int(torch.randint(len(digits), (), generator=g)) for g in rows]
        starts.append(torch.stack([digits.read(row) for row in rows]).double())
    mine = ours("expected_gradients", net, images, samples=4, seed=1, background="mnist_5k")
    torch.testing.assert_close(
        mine, by_captum(net, images, starts, draws(images, 4, 1)[1]), **EXACT
    )
    assert not torch.equal(starts[0][0], starts[0][1]) and not torch.equal(
        *(s[0] for s in starts[:2])
    )


@pytest.mark.parametrize(
    ("background", "words"),
    [
        ("mnist_5k", "'mnist_5k' are 1×28×28, those to explain 3×12×12; uniform and blur fit any"),
        ("fashion_mnist", "cannot be loaded by name: fashion_mnist.root: .* this option"),
    ],
)
def test_backgrounds_that_do_not_fit_are_refused_with_those_that_do(background, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        ours("expected_gradients", seeded(VGGLike), background=background)
    assert caught.value.field == "background"


# --- β-smoothing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient", {}),
        ("input_x_gradient", {}),
        ("smooth_grad", {"samples": 2}),
        ("integrated_gradients", {"steps": 3}),
    ],
)
def test_beta_explains_the_smoothed_net(name, options):
    net, images, v = seeded(ResNetLike), pictures(), pictures(seed=2)
    beta, plain = build(name, beta=3.0, **options), build(name, **options)
    for call in (
        lambda explainer, model: explainer.explain(model, images, TARGETS),
        lambda explainer, model: explainer.transpose_product(model, images, TARGETS, v, step=0.01),
    ):
        mine = call(beta, net)
        torch.testing.assert_close(mine, call(plain, Smoothed(net, 3.0)), **EXACT)
        assert not torch.allclose(mine, call(plain, net), rtol=1e-3)
