"""Second opinions in float64: captum, zennit and torchcam compute the same maps."""

import captum.attr
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    LayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZPlus
from zennit.types import Convolution

from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from tests.nets import Block, Functional, Normalised, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 4, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(params=["modules", "functional"])
def nets(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """(the network we explain, the twin of ReLU modules that the oracle can handle)."""
    twin = seeded(VGGLike)
    return (twin if request.param == "modules" else Functional(twin).eval()), twin


def ours(name: str, net: nn.Module, images: Tensor, **options: object) -> Tensor:
    return build(name, **options).explain(net, images, TARGETS)


def test_gradient_equals_captum(nets: tuple[nn.Module, nn.Module]) -> None:
    net, twin = nets
    oracle = captum.attr.Saliency(twin).attribute(pictures(), target=TARGETS, abs=False)
    torch.testing.assert_close(ours("gradient", net, pictures()), oracle, **EXACT)


def test_input_x_gradient_equals_captum(nets: tuple[nn.Module, nn.Module]) -> None:
    net, twin = nets
    oracle = captum.attr.InputXGradient(twin).attribute(pictures(), target=TARGETS)
    torch.testing.assert_close(ours("input_x_gradient", net, pictures()), oracle, **EXACT)


def test_guided_backprop_equals_captum(nets: tuple[nn.Module, nn.Module]) -> None:
    net, twin = nets
    oracle = captum.attr.GuidedBackprop(twin).attribute(pictures(), target=TARGETS)
    torch.testing.assert_close(ours("guided_backprop", net, pictures()), oracle, **EXACT)
    plain = ours("gradient", net, pictures())
    assert not torch.allclose(plain, oracle), "the net must tell the two apart"


@pytest.mark.parametrize(
    ("rule", "method"),
    [
        ("right", "riemann_right"),
        ("left", "riemann_left"),
        ("middle", "riemann_middle"),
        ("trapezoid", "riemann_trapezoid"),
    ],
)
@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_integrated_gradients_equals_captum(rule: str, method: str, baseline: float) -> None:
    net = seeded(VGGLike)
    oracle = captum.attr.IntegratedGradients(net).attribute(
        pictures(), baselines=baseline, target=TARGETS, n_steps=7, method=method
    )
    if rule == "trapezoid":
        oracle = oracle * 7 / 6  # captum's seven trapezoid weights sum to 6/7, ours to 1
    mine = ours("integrated_gradients", net, pictures(), steps=7, rule=rule, baseline=baseline)
    # captum keeps its nodes and weights in float32
    torch.testing.assert_close(mine, oracle, rtol=1e-6, atol=1e-9)


def test_smooth_grad_equals_the_mean_of_captum_gradients_at_the_same_noise() -> None:
    from robustlab.core.randomness import normal

    net, images, ids = seeded(VGGLike), pictures(), ("a", "b", "c")
    mine = build("smooth_grad", samples=5, sigma=0.2, seed=3).explain(net, images, TARGETS, ids=ids)
    saliency = captum.attr.Saliency(net)
    noisy = [images + 0.2 * normal(images, ids, 3, f"smooth_grad/{j}") for j in range(5)]
    oracle = torch.stack([saliency.attribute(n, target=TARGETS, abs=False) for n in noisy]).mean(0)
    torch.testing.assert_close(mine, oracle, **EXACT)


@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_equals_captum(relu: bool) -> None:
    net = seeded(ResNetLike)
    mine = ours("grad_cam", net, pictures(), layer="block1", relu=relu)
    oracle = LayerGradCam(net, net.block1).attribute(
        pictures(), target=TARGETS, relu_attributions=relu
    )
    torch.testing.assert_close(mine, oracle, **EXACT)


def test_grad_cam_equals_torchcam() -> None:
    from torchcam.methods import GradCAM

    net, images = seeded(ResNetLike), pictures()
    with GradCAM(net, target_layer="block2") as extractor:
        scores = net(images)
        oracle = extractor(TARGETS.tolist(), scores, normalized=False)[0]
    mine = ours("grad_cam", net, images, layer="block2")
    torch.testing.assert_close(mine.squeeze(1), oracle, **EXACT)


def test_grad_cam_of_a_layer_that_a_later_module_changes_in_place() -> None:
    changed = seeded(lambda: nn.Sequential(*_conv_relu_head(inplace=True)))
    apart = seeded(lambda: nn.Sequential(*_conv_relu_head(inplace=False)))
    mine = ours("grad_cam", changed, pictures(), layer="0", relu=False)
    oracle = LayerGradCam(apart, apart[0]).attribute(pictures(), target=TARGETS)
    torch.testing.assert_close(mine, oracle, **EXACT)


def _conv_relu_head(inplace: bool) -> list[nn.Module]:
    return [
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ]  # fmt: skip


# --- LRP against zennit ----------------------------------------------------------------------

DENSE = (Convolution, nn.Linear)
RULES = {
    "epsilon": ({"rule": "epsilon", "epsilon": 1e-3}, lambda b: Epsilon(1e-3, zero_params=b)),
    "z_plus": ({"rule": "z_plus"}, lambda b: ZPlus(zero_params=b)),
    "alpha_beta": (
        {"rule": "alpha_beta", "alpha": 3.0, "beta": 2.0},
        lambda b: AlphaBeta(3.0, 2.0, zero_params=b),
    ),
    "gamma": ({"rule": "gamma", "gamma": 0.4}, lambda b: Gamma(0.4, zero_params=b)),
    "w_square": ({"rule": "w_square"}, lambda b: WSquare(zero_params=b)),
    "flat": ({"rule": "flat"}, lambda b: Flat()),
}


def zennit_relevance(net: nn.Module, images: Tensor, composite: Composite) -> Tensor:
    start = torch.zeros(3, 5, dtype=images.dtype)
    logits = logits_of(net, images)
    start.scatter_(1, TARGETS[:, None], logits.gather(1, TARGETS[:, None]))
    with ZennitGradient(net, composite=composite) as attributor:
        return attributor(images, start)[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [True, False])
def test_lrp_rules_equal_zennit(nets: tuple[nn.Module, nn.Module], rule: str, bias: bool) -> None:
    net, twin = nets
    options, hook = RULES[rule]
    images = pictures() - 0.3  # rules must also be right for negative inputs
    layers = [*layer_map_base(), (DENSE, hook(None if bias else "bias"))]
    oracle = zennit_relevance(twin, images, LayerMapComposite(layer_map=layers))
    torch.testing.assert_close(ours("lrp", net, images, bias=bias, **options), oracle, **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("name", "composite"),
    [
        ("epsilon_plus", EpsilonPlus),
        ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1),
        ("epsilon_gamma_box", lambda **kw: EpsilonGammaBox(low=0.0, high=1.0, **kw)),
    ],
)
def test_lrp_composites_equal_zennit(
    nets: tuple[nn.Module, nn.Module], name: str, composite: type[Composite], bias: bool
) -> None:
    net, twin = nets
    oracle = zennit_relevance(twin, pictures(), composite(zero_params=None if bias else "bias"))
    torch.testing.assert_close(
        ours("lrp", net, pictures(), composite=name, bias=bias), oracle, **EXACT
    )


def test_z_box_knows_the_models_own_normalisation() -> None:
    net = seeded(lambda: Normalised(VGGLike()))
    normalised = (pictures() - net.mean) / net.std
    low, high = (0 - net.mean) / net.std, (1 - net.mean) / net.std
    oracle = zennit_relevance(net.net, normalised, EpsilonGammaBox(low=low, high=high))
    mine = ours("lrp", net, pictures(), composite="epsilon_gamma_box")
    torch.testing.assert_close(mine, oracle, **EXACT)


class _ZennitBlock(Block):
    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu6(self.add(self.bn2(self.conv2(out)), self.short(x)))


class ZennitSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from zennit.layer import Sum

        self.sum = Sum()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(torch.stack([a, b], dim=-1))


class _Relu6(nn.ReLU):
    """zennit passes relevance through nn.ReLU; the values are those of ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu6(x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("name", "composite"),
    [("epsilon_plus", EpsilonPlus), ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1)],
)
def test_lrp_on_a_residual_net_equals_zennit_with_its_canoniser(
    name: str, composite: type[Composite], bias: bool
) -> None:
    net, twin = seeded(ResNetLike), seeded(ResNetLike)
    for module in (*net.modules(), *twin.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # zennit 0.5.1 leaves its eps behind when it merges
    mine = ours("lrp", net, pictures(), composite=name, bias=bias)
    twin.stem[2] = _Relu6()
    for block in (twin.block1, twin.block2):
        block.__class__ = _ZennitBlock
        block.relu, block.relu6, block.add = nn.ReLU(), _Relu6(), ZennitSum()
    twin.avgpool = nn.AdaptiveAvgPool2d(1)
    forward = lambda x: twin.fc(  # noqa: E731
        twin.avgpool(twin.block2(twin.block1(twin.stem(x)))).flatten(1)
    )
    twin.forward = forward
    canoniser = SequentialMergeBatchNorm()
    oracle = zennit_relevance(
        twin, pictures(), composite(canonizers=[canoniser], zero_params=None if bias else "bias")
    )
    torch.testing.assert_close(mine, oracle, **EXACT)
