"""LRP on torchvision's architectures, none of which it knows by name.

Weights are random, and batch-norms fit them: their statistics are those of a few pictures,
times random factors, so that activations neither vanish nor explode from layer to layer.
With ``shifts`` every bias, every β and every running mean is random too.
"""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchvision.models import densenet, swin_transformer, vision_transformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from zennit.attribution import Gradient as ZennitGradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus
from zennit.torchvision import ResNetCanonizer

from robustlab.core.streaming import explained_logit, logits_of
from robustlab.explainers.relevance.lrp import LRP, where_it_went
from tests.explainers.relevance_nets import Dense, Gated, Tokens
from tests.nets import pictures, seeded

CLASSES = 5


def named(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=CLASSES)


def vgg11_bn() -> nn.Module:
    """With small matrices: a hundred million weights would make it no more of a test."""
    with torch.device("meta"):
        net = named("vgg11_bn")
    net.features.to_empty(device="cpu")
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    net.classifier = nn.Sequential(nn.Linear(2048, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    for module in net.features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


SMALL = {
    "resnet18": lambda: named("resnet18"),
    "vgg11_bn": vgg11_bn,
    "densenet": lambda: densenet.DenseNet(8, (2, 3, 2), 12, num_classes=CLASSES),
    "mobilenet_v2": lambda: named("mobilenet_v2"),
    "mobilenet_v3_small": lambda: named("mobilenet_v3_small"),
    "efficientnet_b0": lambda: named("efficientnet_b0"),
    "regnet_y_400mf": lambda: named("regnet_y_400mf"),
    "convnext": lambda: ConvNeXt(
        [CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 1)], num_classes=CLASSES
    ),
    "swin": lambda: swin_transformer.SwinTransformer(
        [4, 4], 12, [2, 1], [2, 3], [4, 4], num_classes=CLASSES
    ),
    "vit": lambda: vision_transformer.VisionTransformer(32, 8, 2, 3, 12, 24, num_classes=CLASSES),
}
LARGE = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_v2_s", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v3_large", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
    "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip


def network(make: Callable[[], nn.Module], shifts: bool, size: int = 32) -> nn.Module:
    net = seeded(make)
    random = torch.Generator().manual_seed(0)

    def between(low: float, high: float, like: Tensor) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=random, dtype=torch.float64)

    for module in net.modules():
        normalises = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for name, value in module.named_parameters(recurse=False):
            if normalises and name == "weight":
                value.data = between(0.6, 1.4, value)
            elif value.ndim == 1:
                value.data = shifts * between(-0.2, 0.2, value)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(value, 0, value.shape[1] ** -0.5, random)  # torchvision: nearly 0
    _fit_batch_norms(net, shifts, between, pictures(4, size, seed=2))
    return net


def _fit_batch_norms(net: nn.Module, shifts: bool, between, images: Tensor) -> None:
    def fit(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        norm.running_mean.copy_(shifts * mean * between(0.5, 1, mean))
        around_zero = variance if shifts else variance + mean.square()
        norm.running_var.copy_((around_zero + 1e-3) * between(0.7, 1.4, mean))

    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(fit) for norm in norms]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()


def explained(net: nn.Module, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """(images, their classes, the logits of those)"""
    images = pictures(2, size)
    logits, targets = logits_of(net, images).max(1)
    return images, targets, logits


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest value of its image."""
    scale = expected.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return float(((found - expected).abs() / scale).max())


# --- a second opinion without any rule ------------------------------------------------------


class Straightened(TorchFunctionMode):
    """The same values, of a network that is linear along its gradient: x ↦ x · (φ(x)/x).

    Ratios, gates, attention and deviations are constants. Relevance by LRP-0, with the bias
    absorbing its share, is then nothing but input times gradient.
    """

    RATIOS = (F.relu6, F.hardtanh, F.silu, F.gelu, F.hardswish)
    GATES = (torch.sigmoid, F.hardsigmoid, F.softmax)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.RATIOS:
            kwargs.pop("inplace", None)
            return args[0] * (func(*args, **kwargs) / args[0]).detach()
        if func in self.GATES:
            return func(*args, **kwargs).detach()
        if func is F.layer_norm:
            return _standardised(args[0], -1, kwargs["eps"]) * kwargs["weight"] + kwargs["bias"]
        if func is F.group_norm:
            parts = _standardised(args[0].unflatten(1, (args[1], -1)), (2, 3, 4), kwargs["eps"])
            weight, bias = (kwargs[name][:, None, None] for name in ("weight", "bias"))
            return parts.flatten(1, 2) * weight + bias
        if func is F.multi_head_attention_forward:
            return _attention(*args[:3], *args[4:7], *args[11:13]), None
        return func(*args, **kwargs)


def _standardised(x, dims, eps):
    deviation = (x.var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    return (x - x.mean(dims, keepdim=True)) / deviation.detach()


def _attention(query, key, value, heads, weight, bias, out_weight, out_bias):
    """Multi-head attention of tokens [T,B,width], index by index."""
    q, k, v = (
        torch.einsum("tbi,oi->tbo", t, w) + b
        for t, w, b in zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
    )
    width = q.shape[2] // heads
    outputs = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        alike = torch.einsum("tbi,sbi->bts", q[:, :, part], k[:, :, part]) / width**0.5
        weights = alike.exp() / alike.exp().sum(2, keepdim=True)
        outputs.append(torch.einsum("bts,sbi->tbi", weights.detach(), v[:, :, part]))
    return torch.einsum("tbi,oi->tbo", torch.cat(outputs, 2), out_weight) + out_bias


def straight_score(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The summed logits, in their graph, of the straightened network."""
    with Straightened():
        return net(images).gather(1, targets[:, None]).sum()


BLOCKS = {"dense": (Dense, 12), "gated": (Gated, 12), "tokens": (Tokens, 12)}
EVERY = [*((name, make, 32) for name, make in SMALL.items()),
         *((name, *block) for name, block in BLOCKS.items())]  # fmt: skip
every_network = pytest.mark.parametrize(
    ("make", "size"), [(make, size) for _, make, size in EVERY], ids=[name for name, *_ in EVERY]
)


@every_network
def test_lrp_0_is_input_times_gradient_of_the_straightened_network(make, size):
    net = network(make, shifts=True, size=size)
    images, targets, logits = explained(net, size)
    found = LRP(rule="epsilon", epsilon=1e-12).explain(net, images, targets)
    leaf = images.clone().requires_grad_()
    score = straight_score(net, leaf, targets)
    torch.testing.assert_close(score, logits.sum(), rtol=1e-9, atol=1e-12)
    expected = images * torch.autograd.grad(score, leaf)[0]
    assert apart(found, expected) < 1e-6


@pytest.mark.parametrize("block", BLOCKS)
def test_that_opinion_tells_rules_apart(block):
    """Canaries: other rules, and the plain network, where it is not linear along its gradient."""
    make, size = BLOCKS[block]
    net = network(make, shifts=True, size=size)
    images, targets, _ = explained(net, size)
    leaf = images.clone().requires_grad_()
    expected = images * torch.autograd.grad(straight_score(net, leaf, targets), leaf)[0]
    for options in ({"rule": "epsilon", "epsilon": 1e-12, "bias": False}, {"rule": "z_plus"}):
        assert apart(LRP(**options).explain(net, images, targets), expected) > 0.01, options
    plain = net(leaf).gather(1, targets[:, None]).sum()
    different = apart(images * torch.autograd.grad(plain, leaf)[0], expected)
    assert different < 1e-9 if block == "dense" else different > 0.01


# --- conservation ---------------------------------------------------------------------------

# Behind SiLU and the like units can be negative, and one without any positive part keeps what
# z⁺ hands to it: a third of all, where depthwise convolutions have few inputs to choose from.
SIGNED = ("mobilenet_v3_small", "efficientnet_b0", "gated", "tokens")


@every_network
def test_without_shifts_relevance_is_conserved(make, size, request):
    net = network(make, shifts=False, size=size)
    for name, value in net.named_parameters():
        if "token" in name or "pos_embedding" in name or name == "place":
            value.data.zero_()  # constants beside the features would take their share
    images, targets, logits = explained(net, size)
    rules = [({"rule": "epsilon", "epsilon": 1e-12}, 1e-8)]
    if request.node.callspec.id not in SIGNED:
        rules.append(({"composite": "epsilon_plus"}, 2e-3))
    for options, tolerance in rules:
        raw = LRP(**options).explain(net, images, targets)
        assert (raw.sum((1, 2, 3)) / logits - 1).abs().max() < tolerance, options


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet", "regnet_y_400mf"])
def test_shifts_can_be_left_out_of_the_shares(name):
    """By z⁺, whose denominators only grow. ε would divide by z − b, which may be nearly 0."""
    net = network(SMALL[name], shifts=True)
    images, targets, logits = explained(net)
    raw = LRP(composite="z_plus_box", bias=False).explain(net, images, targets)
    assert (raw.sum((1, 2, 3)) / logits - 1).abs().max() < 2e-3
    within = LRP(composite="z_plus_box").explain(net, images, targets)
    assert (within.sum((1, 2, 3)) / logits - 1).abs().max() > 0.05


def accounts_for_all(net: nn.Module, size: int, composite: str) -> None:
    """Σ R + what biases and stabilisers absorbed = logit: no operation went without a rule."""
    images, targets, logits = explained(net, size)
    went = where_it_went(LRP(composite=composite), net, images, targets)
    assert sum(went.values()) == pytest.approx(float(logits.sum()))
    largest = max(abs(value) for value in went.values())
    assert abs(went["elsewhere"]) < 1e-9 * largest
    assert abs(went["image"] - float(logits.sum())) > 1e-3 * largest, "biases absorb"


@every_network
def test_every_operation_accounts_for_its_relevance(make, size):
    net = network(make, shifts=True, size=size)
    if isinstance(net, Tokens):
        net.token.data.zero_()  # it would keep what reaches it
    accounts_for_all(net, size, "epsilon_alpha2_beta1")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_operation_of_larger_networks_accounts_for_its_relevance(name):
    size = {"inception_v3": 96, "maxvit_t": 224}.get(name, 64)
    accounts_for_all(network(lambda: named(name), shifts=True, size=size), size, "epsilon_plus")


def test_a_class_token_keeps_its_relevance():
    net = network(Tokens, shifts=True, size=12)
    images, targets, _ = explained(net, 12)
    went = where_it_went(LRP(rule="epsilon", epsilon=1e-12), net, images, targets)
    (gradient,) = torch.autograd.grad(straight_score(net, images, targets), net.token)
    assert went["elsewhere"] == pytest.approx(float((net.token.detach() * gradient).sum()))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", {"conv": (nn.Conv2d, nn.BatchNorm2d), "linear": nn.Linear}),
        ("densenet", {"linear": nn.Linear}),
        ("swin", {"layer_norm": nn.LayerNorm, "conv": nn.Conv2d, "linear": nn.Linear}),
    ],
)
def test_biases_absorb_bias_times_gradient(name, kinds):
    net = network(SMALL[name], shifts=True)
    images, targets, _ = explained(net)
    went = where_it_went(LRP(rule="epsilon", epsilon=1e-12), net, images, targets)
    shifted = [m for m in net.modules() if getattr(m, "bias", None) is not None]
    score = straight_score(net, images, targets)
    slopes = torch.autograd.grad(score, [m.bias for m in shifted])
    for kind, types in kinds.items():
        expected = sum(
            float((shift_of(module) * slope).sum())
            for module, slope in zip(shifted, slopes, strict=True)
            if isinstance(module, types)
        )
        assert went[kind] == pytest.approx(expected, rel=1e-5), kind


@torch.no_grad()
def shift_of(module: nn.Module) -> Tensor:
    if not isinstance(module, nn.BatchNorm2d):
        return module.bias
    scale = module.weight / (module.running_var + module.eps).sqrt()
    return module.bias - module.running_mean * scale


# --- zennit, which has code for these two ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "canoniser", "bias"),
    [
        ("resnet18", ResNetCanonizer, True),
        ("resnet18", ResNetCanonizer, False),
        ("vgg11_bn", SequentialMergeBatchNorm, False),
    ],
)
def test_equals_zennit_with_its_canonisers(name, canoniser, bias):
    net = network(SMALL[name], shifts=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # zennit 0.5.1 leaves its eps behind when it merges
    images, targets, _ = explained(net)
    found = LRP(composite="epsilon_plus", bias=bias).explain(net, images, targets)
    composite = EpsilonPlus(canonizers=[canoniser()], zero_params=None if bias else "bias")
    start = explained_logit(logits_of(net, images), targets)
    with ZennitGradient(net, composite=composite) as attributor:
        expected = attributor(images, start)[1]
    assert apart(found, expected) < 1e-9
