"""CAM, Grad-CAM++, Smooth Grad-CAM++, Score-CAM, LayerCAM, Guided Grad-CAM: second opinions."""

import warnings
from types import SimpleNamespace

import captum.attr
import pytest
import torch
import torchcam.methods
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from robustlab import models
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal
from robustlab.core.wrapping import Counted, Smoothed
from robustlab.explainers import build
from robustlab.explainers.cam.layers import spatial_layer
from tests.explainers.battery import micro_batches_of, untouched
from tests.nets import Functional, Normalised, Recorder, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}
IDS = ("ada", "bob", "cyd")


def ours(name: str, net: nn.Module, images: Tensor | None = None, **options: object) -> Tensor:
    images = pictures() if images is None else images
    return build(name, **options).explain(net, images, TARGETS, ids=IDS)


def torchcam_map(name: str, net: nn.Module, layer: str, **options: object) -> Tensor:
    with getattr(torchcam.methods, name)(net, layer, **options) as extractor:
        scores = net(pictures())
        return extractor(TARGETS.tolist(), scores, normalized=False)[0].unsqueeze(1)


def vgg_layer(net: VGGLike, images: Tensor) -> SimpleNamespace:
    """A and g = ∂logit/∂A of VGG's features: the head is a net of its own here."""
    A = net.features(images).detach().requires_grad_()
    logits = net.head(A.flatten(1))
    (g,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), A)
    return SimpleNamespace(A=A.detach(), g=g)


def cam_of(weights: Tensor, A: Tensor) -> Tensor:
    return (weights.sum((2, 3), keepdim=True) * A).sum(1, keepdim=True).clamp(min=0)


# --- CAM ------------------------------------------------------------------------------------


class Headed(nn.Module):
    """Convolutions, and a head that the test writes."""

    def __init__(self, head, width: int = 5) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, stride=2)
        self.fc, self.more = nn.Linear(4, width), nn.Linear(width, 5)
        self.norm, self.drop = nn.LayerNorm(4), nn.Dropout()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, F.relu(self.conv2(F.relu(self.conv1(x)))))


def relu_ignored(net: Headed, x: Tensor) -> Tensor:
    x = x - 0.1
    x.relu_()
    return net.fc(x.mean((2, 3)))


POOLED = {
    "mean": lambda net, x: net.fc(x.mean((2, 3))),
    "kept dimensions": lambda net, x: net.fc(x.mean((2, 3), keepdim=True).squeeze()),
    "one dimension after the other": lambda net, x: net.fc(x.mean(3).mean(2)),
    "tokens": lambda net, x: net.fc(x.flatten(2).mean(2)),
    "sum": lambda net, x: net.fc(x.sum((2, 3)) / (x.shape[2] * x.shape[3])),
    "adaptive pool": lambda net, x: net.fc(net.drop(F.adaptive_avg_pool2d(x, 1).flatten(1))),
    "pool": lambda net, x: net.fc(net.drop(F.avg_pool2d(x, x.shape[2])).view(len(x), -1)),
    "a pool before": lambda net, x: net.fc(F.max_pool2d(x, 2).mean((2, 3))),
    "concatenation": lambda net, x: net.fc(torch.cat([x[:, 2:], x[:, :2]], 1).mean((2, 3))),
    "an ignored result": relu_ignored,
    "functional matrix": lambda net, x: F.linear(x.mean((2, 3)), weight=net.fc.weight),
    "a matrix before": lambda net, x: net.fc((x * torch.sigmoid(net.fc(x.mean((2, 3)))).mean())
                                             .mean((2, 3))),
}  # fmt: skip


def logit_from_map(net: nn.Module, raw: Tensor, bias: Tensor | None) -> Tensor:
    return raw.mean((1, 2, 3)) + (0 if bias is None else bias.detach()[TARGETS])


@pytest.mark.parametrize("head", POOLED)
@pytest.mark.parametrize("wrap", [lambda net: net, Counted, lambda net: Smoothed(net, 3.0)])
def test_cam_finds_the_head_however_it_is_written_and_adds_up_to_the_logit(head, wrap):
    net = seeded(lambda: Headed(POOLED[head]))
    raw = ours("cam", wrap(net))
    logits = wrap(net)(pictures()).detach().gather(1, TARGETS[:, None]).squeeze(1)
    bias = None if head == "functional matrix" else net.fc.bias
    torch.testing.assert_close(logit_from_map(net, raw, bias), logits, **EXACT)


def test_cam_equals_torchcam():
    net = seeded(ResNetLike)
    oracle = torchcam_map("CAM", net, "block2", fc_layer="fc")
    torch.testing.assert_close(ours("cam", net), oracle, **EXACT)
    assert (oracle < 0).any(), "the net must tell whether negative parts are kept"


@pytest.mark.parametrize(
    "load",
    [
        lambda: seeded(ResNetLike),
        lambda: models.load("efficientnet_lite0"),
        lambda: models.load("small_resnet", in_channels=3, weights="none"),
        lambda: models.load("torchvision:resnet18", weights="none", classes=10),
        lambda: models.load("torchvision:mobilenet_v2", weights="none", classes=10),
    ],
    ids=["resnet", "efficientnet_lite0", "small_resnet", "resnet18", "mobilenet_v2"],
)
def test_cam_is_grad_cam_times_the_number_of_places(load):
    net, images = load().double().eval(), pictures(size=64)
    raw = ours("cam", net, images)
    grad_cam = ours("grad_cam", net, images, relu=False)
    places = raw[0].numel()
    assert places > 1
    torch.testing.assert_close(raw, places * grad_cam, rtol=1e-9, atol=1e-9 * raw.abs().max())
    *_, last = (m for m in net.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        logits = net(images).gather(1, TARGETS[:, None]).squeeze(1)
    torch.testing.assert_close(logit_from_map(net, raw, last.bias), logits, **EXACT)


def scaled_in_place(net: Headed, x: Tensor) -> Tensor:
    logits = net.fc(x.mean((2, 3)))
    logits.mul_(1.01)
    return logits


@pytest.mark.parametrize(
    "net",
    [
        seeded(VGGLike),
        seeded(lambda: Headed(lambda net, x: net.fc(x.amax((2, 3))))),
        seeded(lambda: Headed(lambda net, x: net.fc(net.norm(x.mean((2, 3)))))),
        seeded(lambda: Headed(lambda net, x: net.more(net.fc(x.mean((2, 3)))))),
        seeded(lambda: Headed(lambda net, x: net.more(net.fc(x.mean((2, 3)))), width=4)),
        seeded(lambda: Headed(lambda net, x: x.mean((2, 3)))),
        seeded(lambda: Headed(scaled_in_place)),
        seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 5))),
        seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 12), nn.Flatten(), nn.Linear(4, 5))),
    ],
    ids=["vgg", "maximum", "norm", "two matrices", "two matrices that fit", "no matrix", "scaled",
         "no convolution", "one position"],
)  # fmt: skip
def test_cam_refuses_a_net_without_such_a_head(net):
    images = pictures()
    with (
        untouched(net, images, TARGETS, after="an exception"),
        pytest.raises(InvalidInput, match="grad_cam, layer_cam and score_cam work") as caught,
    ):
        ours("cam", net, images)
    assert caught.value.field == "model"


def test_cam_refuses_the_small_cnn():
    with pytest.raises(InvalidInput, match="mean of a feature map of several places"):
        ours("cam", models.load("small_cnn"), pictures(3, 28, 1).float())


# --- Grad-CAM++ -----------------------------------------------------------------------------


def test_grad_cam_pp_has_the_weights_of_the_third_derivatives_of_the_exponential():
    """α = Y'' / (2 Y'' + ΣA · Y''') with the derivatives of Y = exp(s) taken one by one."""
    net = seeded(VGGLike)
    raw = ours("grad_cam_pp", net)
    for i, target in enumerate(TARGETS):
        A = net.features(pictures()[i : i + 1]).detach().flatten()

        def score(t, e, A=A, target=target):
            return torch.exp(net.head(A + t * e)[target])

        along = (torch.zeros_like(A), torch.eye(len(A), dtype=A.dtype))
        first, second, third = (
            vmap(derivative)(*along).detach().view(1, 8, 6, 6)
            for derivative in (grad(score), grad(grad(score)), grad(grad(grad(score))))
        )
        A = A.view(1, 8, 6, 6)
        denominator = 2 * second + A.sum((2, 3), keepdim=True) * third
        alpha = torch.where(second > 0, second / denominator, 0)
        alpha_relu = alpha * first.clamp(min=0) / score(0, 0).detach()
        torch.testing.assert_close(raw[i : i + 1], cam_of(alpha_relu, A), **EXACT)


def test_grad_cam_pp_equals_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam", reason="the oracle grad-cam is not installed")
    net, images = seeded(VGGLike), pictures()
    at = vgg_layer(net, images)
    weights = peer.GradCAMPlusPlus.get_cam_weights(
        None, None, None, None, *map(Tensor.numpy, (at.A, at.g))
    )
    oracle = cam_of(torch.from_numpy(weights)[:, :, None, None], at.A)
    mine = ours("grad_cam_pp", net, layer="features", epsilon=1e-6)
    torch.testing.assert_close(mine, oracle, **EXACT)
    without = ours("grad_cam_pp", net, layer="features")
    assert not torch.allclose(mine, without, rtol=1e-6), "the net must feel the epsilon"


def test_grad_cam_pp_sums_the_channel_before_it_multiplies():
    """A common mistake, Σ A·g³ for (Σ A)·g³, shows only where g differs between places."""
    at = vgg_layer(seeded(VGGLike), pictures())
    mixed = at.g**2 / (2 * at.g**2 + (at.A * at.g**3).sum((2, 3), keepdim=True))
    mistaken = cam_of(torch.where(at.g > 0, mixed * at.g, 0), at.A)
    raw = ours("grad_cam_pp", seeded(VGGLike))
    assert (mistaken - raw).abs().max() > 0.01 * raw.max()


def test_grad_cam_pp_of_tiny_gradients_needs_no_epsilon():
    """α tends to ½ as the gradient vanishes, whatever the number format can square."""
    net = seeded(VGGLike)
    at = vgg_layer(net, pictures())
    half = cam_of(at.g.clamp(min=0) / 2, at.A)
    with torch.no_grad():
        net.head[2].weight.mul_(1e-25), net.head[2].bias.mul_(1e-25)
    for name, options in (("grad_cam_pp", {}), ("smooth_grad_cam_pp", {"sigma": 0.0})):
        raw = ours(name, net.float(), pictures().float(), **options)
        torch.testing.assert_close(1e25 * raw.double(), half, rtol=1e-4, atol=1e-6)


# --- Smooth Grad-CAM++ ----------------------------------------------------------------------


def smooth_oracle(numerator: int, samples: int = 5) -> Tensor:
    """One copy after the other; the numerator of α is D2, in the paper D1."""
    net, images = seeded(VGGLike), pictures()
    noise = [normal(images, IDS, 4, f"smooth_grad_cam_pp/{j}") for j in range(samples)]
    gradients = torch.stack([vgg_layer(net, images + 0.3 * n).g for n in noise])
    d = {power: (gradients**power).mean(0) for power in (1, 2, 3)}
    A = net.features(images).detach()
    denominator = 2 * d[2] + A.sum((2, 3), keepdim=True) * d[3]
    alpha = torch.where(d[2] > 0, d[numerator] / denominator, 0)
    return cam_of(alpha * d[1].clamp(min=0), A)


def test_smooth_grad_cam_pp_equals_brute_force():
    options = {"samples": 5, "sigma": 0.3, "seed": 4}
    mine = ours("smooth_grad_cam_pp", seeded(VGGLike), **options)
    torch.testing.assert_close(mine, smooth_oracle(numerator=2), **EXACT)
    with micro_batches_of(2, pictures()):
        torch.testing.assert_close(ours("smooth_grad_cam_pp", seeded(VGGLike), **options), mine)
    assert not torch.allclose(mine, smooth_oracle(numerator=1), rtol=0.01), "as printed"
    other = ours("smooth_grad_cam_pp", seeded(VGGLike), **{**options, "seed": 5})
    assert not torch.allclose(mine, other, rtol=0.01), "the noise must matter"


def test_smooth_grad_cam_pp_without_noise_is_grad_cam_pp():
    smooth = ours("smooth_grad_cam_pp", seeded(VGGLike), samples=3, sigma=0.0)
    torch.testing.assert_close(smooth, ours("grad_cam_pp", seeded(VGGLike)), **EXACT)


def test_smooth_grad_cam_pp_equals_torchcam_where_the_gradient_is_constant():
    """Behind global pooling: there torchcam's Σ A·g³ is S·g³, and its last g is the mean.

    It also takes A from its last noisy copy, hence hardly any noise there; ours has some.
    """
    net = seeded(ResNetLike)
    with torch.random.fork_rng():
        oracle = torchcam_map("SmoothGradCAMpp", net, "block2", num_samples=3, std=1e-13)
    mine = ours("smooth_grad_cam_pp", net, layer="block2", samples=2, epsilon=1e-8)
    torch.testing.assert_close(mine, oracle, **EXACT)


def test_smooth_grad_cam_pp_streams_its_copies():
    net = Recorder(seeded(VGGLike))
    with micro_batches_of(4, pictures()):
        ours("smooth_grad_cam_pp", net, samples=5, layer="net.features")
    assert sum(net.sizes) == 3 * (5 + 1) and max(net.sizes) <= 4


# --- Score-CAM ------------------------------------------------------------------------------


@torch.no_grad()
def score_cam_oracle(order, weighting="softmax", baseline=0.0, channels=None):
    """One channel of one image after the other."""
    net, cams = seeded(ResNetLike), []
    for x, target in zip(pictures(), TARGETS, strict=True):
        features = net.block2(net.block1(net.stem(x[None])))[0]
        maps = sorted(features, key=lambda A: -A.var())[:channels]
        scores = []
        for mask in maps:
            for step in order.split("_then_"):
                if step == "normalise":
                    mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
                else:
                    corners = order.startswith("upsample")
                    mask = F.interpolate(
                        mask[None, None], x.shape[1:], mode="bilinear", align_corners=corners
                    )[0, 0]
            scores.append(net((baseline + mask * (x - baseline))[None])[0, target])
        scores = torch.stack(scores)
        nothing = net(torch.full_like(x, baseline)[None])[0, target]
        weights = scores.softmax(0) if weighting == "softmax" else scores - nothing
        cams.append((weights[:, None, None] * torch.stack(maps)).sum(0).clamp(min=0))
    return torch.stack(cams).unsqueeze(1)


ORDERS = ("upsample_then_normalise", "normalise_then_upsample")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "options", [{}, {"weighting": "increase"}, {"baseline": 0.4}, {"channels": 3}], ids=str
)
def test_score_cam_equals_brute_force(order, options):
    net = seeded(ResNetLike)
    oracle = score_cam_oracle(order, **options)
    mine = ours("score_cam", net, layer="block2", order=order, **options)
    torch.testing.assert_close(mine, oracle, **EXACT)
    with micro_batches_of(5, pictures()):
        torch.testing.assert_close(
            ours("score_cam", net, layer="block2", order=order, **options), mine, **EXACT
        )


def test_the_two_orders_of_score_cam_differ():
    upsampled, normalised = (score_cam_oracle(order) for order in ORDERS)
    assert not torch.allclose(upsampled, normalised, rtol=1e-5)


def test_score_cam_equals_torchcam():
    oracle = torchcam_map("ScoreCAM", seeded(ResNetLike), "block2")
    mine = ours("score_cam", seeded(ResNetLike), layer="block2", order="normalise_then_upsample")
    torch.testing.assert_close(mine, oracle, **EXACT)


def test_score_cam_equals_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam", reason="the oracle grad-cam is not installed")
    net = seeded(ResNetLike)
    with torch.no_grad():
        A = net.block2(net.block1(net.stem(pictures())))
        extractor = peer.ScoreCAM(net, [net.block2])
        asked = [lambda logits, t=t: logits[t] for t in TARGETS]
        weights = extractor.get_cam_weights(pictures(), None, asked, A.numpy(), None)
        extractor.activations_and_grads.release()
    oracle = cam_of(torch.from_numpy(weights)[:, :, None, None], A)
    # it keeps its scores in float32
    torch.testing.assert_close(ours("score_cam", net, layer="block2"), oracle, rtol=1e-5, atol=1e-7)


def test_score_cam_counts_its_channels_when_it_is_resolved():
    net = Recorder(seeded(ResNetLike))
    free = build("score_cam")
    assert free.cost().forward == 1 + 512
    chosen = free.resolved(net, pictures())
    assert chosen == build("score_cam", layer="net.block2", channels=8)
    assert chosen.resolved(net, pictures()) == chosen
    assert build("score_cam", channels=99).resolved(net, pictures()) == chosen
    assert build("score_cam", channels=3).resolved(net, pictures()).channels == 3
    assert chosen.cost().forward == 9
    assert build("score_cam", channels=8, weighting="increase").cost().forward == 10
    net.sizes.clear()
    with micro_batches_of(7, pictures()):
        raw = chosen.explain(net, pictures(), TARGETS)
    assert net.sizes == [3] + 4 * [2 * 3], "two channels of three images fit into seven"
    torch.testing.assert_close(raw, free.explain(net, pictures(), TARGETS), **EXACT)


def test_score_cam_keeps_the_channels_that_vary_most_in_each_image():
    """Of one channel the softmax is 1, so that the map is the channel."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(432, 5)))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3).view(3, 3, 1, 1)), net[0].bias.zero_()
    spread = torch.tensor([[0.1, 0.2, 0.0], [0.2, 0.1, 0.0], [0.1, 0.0, 0.2]])
    images = 0.7 - spread[:, :, None, None].double() * pictures()  # the brightest is flat
    raw = ours("score_cam", net, images, layer="0", channels=1)
    for i, most in enumerate((1, 0, 2)):
        torch.testing.assert_close(raw[i, 0], images[i, most], **EXACT)


# --- LayerCAM -------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["features.0", "features.3", "features"])
def test_layer_cam_equals_torchcam(layer):
    net = seeded(VGGLike)
    oracle = torchcam_map("LayerCAM", net, layer)
    torch.testing.assert_close(ours("layer_cam", net, layer=layer), oracle, **EXACT)


def test_layer_cam_keeps_every_places_own_weight():
    net, at = seeded(VGGLike), vgg_layer(seeded(VGGLike), pictures())
    raw = ours("layer_cam", net)
    torch.testing.assert_close(raw, (at.g.clamp(min=0) * at.A).sum(1, keepdim=True), **EXACT)
    averaged = at.g.clamp(min=0).mean((2, 3), keepdim=True) * at.A
    assert not torch.allclose(raw, averaged.sum(1, keepdim=True), rtol=0.01)
    signed = (at.g * at.A).sum(1, keepdim=True).clamp(min=0)
    assert not torch.allclose(raw, signed, rtol=0.01)


# --- Guided Grad-CAM ------------------------------------------------------------------------


def captum_guided(net: nn.Module, layer: nn.Module, mode: str) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # captum tells of its hooks
        peer = captum.attr.GuidedGradCam(net, layer)
        return peer.attribute(pictures(), target=TARGETS, interpolate_mode=mode).detach()


@pytest.mark.parametrize("functional", [False, True], ids=["modules", "functional"])
@pytest.mark.parametrize(("layer", "twins"), [("features.0", "c1"), ("features.5", "c3")])
@pytest.mark.parametrize("score", ["logit", "prob"])
def test_guided_grad_cam_equals_captum(functional, layer, twins, score):
    twin = seeded(VGGLike)
    scored = twin if score == "logit" else nn.Sequential(twin, nn.Softmax(1))
    oracle = captum_guided(scored, twin.get_submodule(layer), "bilinear")
    net = Functional(twin).eval() if functional else twin
    mine = ours("guided_grad_cam", net, layer=twins if functional else layer, score=score)
    torch.testing.assert_close(mine, oracle, **EXACT)


def test_guided_grad_cam_enlarges_bilinearly_and_guides_the_gradient():
    net = seeded(VGGLike)
    mine = ours("guided_grad_cam", net)
    nearest = captum_guided(net, net.features, "nearest")
    region = F.interpolate(ours("grad_cam", net), (12, 12), mode="bilinear", align_corners=False)
    for mistaken in (nearest, region * ours("gradient", net), region * ours("gradient", net).abs()):
        assert not torch.allclose(mine, mistaken, rtol=0.01)


# --- all of them ----------------------------------------------------------------------------

LAYERED = (
    "grad_cam", "grad_cam_pp", "smooth_grad_cam_pp", "score_cam", "layer_cam", "guided_grad_cam",
)  # fmt: skip


@pytest.mark.parametrize("name", LAYERED)
def test_the_layer_is_chosen_once_and_found_through_wrappers(name):
    net, images = seeded(lambda: Normalised(VGGLike())), pictures()
    chosen = build(name).resolved(Counted(Smoothed(net, 3.0)), images)
    assert chosen.layer == spatial_layer(net, images) == "net.features"
    assert chosen.resolved(net, images) == chosen
    torch.testing.assert_close(
        chosen.explain(Counted(net), images, TARGETS, ids=IDS), ours(name, net), **EXACT
    )


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_layer_that_is_refused_leaves_nothing_behind(name, create_graph):
    net, images = seeded(ResNetLike), pictures()
    for layer, words in (("fc", "no spatial extent"), ("blok2", "did you mean 'block2'")):
        with (
            untouched(net, images, TARGETS, after="an exception"),
            pytest.raises(InvalidInput, match=words),
        ):
            build(name, layer=layer).explain(net, images, TARGETS, create_graph=create_graph)


@pytest.mark.parametrize("name", LAYERED)
def test_forward_passes_are_as_many_as_stated(name):
    """The battery can only say that there are not more: backward passes end at the layer."""
    net = seeded(VGGLike)
    chosen = build(name).resolved(net, pictures())
    counted = Counted(net)
    chosen.explain(counted, pictures(), TARGETS)
    assert counted.forwards == 3 * chosen.cost().forward
