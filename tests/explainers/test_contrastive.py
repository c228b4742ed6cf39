"""Deep Taylor and contrastive relevance: zennit, run once for the class and once against it."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zennit.attribution import Gradient as ZennitGradient
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonPlus,
    SpecialFirstLayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import ZBox, ZPlus
from zennit.types import Convolution

from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import explained_logit, logits_of
from robustlab.core.wrapping import Counted
from robustlab.explainers import build
from robustlab.explainers.relevance.contrastive import softmax_gradient
from tests.nets import Functional, Normalised, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 4, 2])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(params=["modules", "functional"])
def nets(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """(the network we explain, the twin of ReLU modules that the oracle can handle)."""
    twin = seeded(VGGLike)
    return (twin if request.param == "modules" else Functional(twin).eval()), twin


def z_plus_box(low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Composite:
    hidden = ((Convolution, nn.Linear), ZPlus(zero_params=["bias"]))
    return SpecialFirstLayerMapComposite(
        layer_map=[*layer_map_base(), hidden], first_map=[(Convolution, ZBox(low, high))]
    )


def zennit(net: nn.Module, images: Tensor, start: Tensor, composite: Composite) -> Tensor:
    with ZennitGradient(net, composite=composite) as attributor:
        return attributor(images, start)[1]


def sums(relevance: Tensor) -> Tensor:
    return relevance.sum((1, 2, 3), keepdim=True)


# --- deep Taylor ----------------------------------------------------------------------------


def test_deep_taylor_equals_zennit(nets):
    net, twin = nets
    logit = explained_logit(logits_of(twin, pictures()), TARGETS)
    assert logit.amin() < 0 < logit.amax(), "of both signs"
    found = build("deep_taylor").explain(net, pictures(), TARGETS)
    oracle = zennit(twin, pictures(), logit.clamp(min=0), z_plus_box())
    torch.testing.assert_close(found, oracle, **EXACT)
    torch.testing.assert_close(sums(found).flatten(), logit.clamp(min=0).sum(1), rtol=0, atol=1e-4)
    assert found.amin() >= 0
    assert not found[logit.sum(1) < 0].any(), "no evidence, nothing to decompose"


def test_deep_taylor_knows_the_models_own_normalisation():
    net = seeded(lambda: Normalised(VGGLike()))
    normalised, low, high = ((v - net.mean) / net.std for v in (pictures(), 0, 1))
    logit = explained_logit(logits_of(net, pictures()), TARGETS).clamp(min=0)
    found = build("deep_taylor").explain(net, pictures(), TARGETS)
    oracle = zennit(net.net, normalised, logit, z_plus_box(low, high))
    torch.testing.assert_close(found, oracle, **EXACT)


class Pooled(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 2, 1, bias=False), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.conv(x))).flatten(1)


@pytest.mark.parametrize(
    ("pool", "size", "stride"),
    [
        (nn.MaxPool2d(2), 2, 2),
        (nn.MaxPool2d(3, stride=1), 3, 1),
        (lambda x: nn.functional.adaptive_max_pool2d(x, 2), 2, 2),
    ],
)
def test_sum_pooling_shares_in_proportion_to_the_window(pool, size, stride):
    """The logits are the pooled values; window by window, pixel by pixel."""
    net = seeded(lambda: Pooled(pool))
    with torch.no_grad():
        net.conv.weight.copy_(torch.tensor([100.0, 200.0]).view(2, 1, 1, 1))
    image = pictures(1, size=4, channels=1)
    x, target = image.numpy()[0, 0], 2
    logit = float(logits_of(net, image)[0, target])
    side = (4 - size) // stride + 1
    row, column = divmod(target, side)
    window = np.s_[row * stride :, column * stride :]
    part = x[window][:size, :size]
    shared, won = np.zeros_like(x), np.zeros_like(x)
    shared[window][:size, :size] = part / part.sum() * logit
    won[window][:size, :size] = (part == part.max()) * logit
    for options, expected in (({"pool": "sum"}, shared), ({}, won)):
        found = build("deep_taylor", **options).explain(net, image, torch.tensor([target]))
        np.testing.assert_allclose(found.numpy()[0, 0], expected, rtol=1e-5)


def test_dilated_windows_have_a_winner_only():
    net = seeded(lambda: Pooled(nn.MaxPool2d(2, dilation=2)))
    images, targets = pictures(2, size=4, channels=1), torch.tensor([0, 1])
    by_sum, by_winner = (
        build("deep_taylor", pool=pool).explain(net, images, targets) for pool in ("sum", "winner")
    )
    assert torch.equal(by_sum, by_winner)


# --- CLRP -----------------------------------------------------------------------------------


def contrast(target: Tensor, dual: Tensor) -> Tensor:
    total = sums(dual)
    return (target - dual * sums(target) / total.where(total != 0, 1)).clamp(min=0)


def others(logit: Tensor) -> Tensor:
    """|f_t|/(N − 1) at all classes but the target."""
    share = logit.abs().sum(1, keepdim=True) / (logit.shape[1] - 1)
    return share.expand_as(logit).scatter(1, TARGETS[:, None], 0)


COMPOSITES = {
    "z_plus_box": z_plus_box,
    "epsilon_plus": lambda: EpsilonPlus(zero_params="bias"),
    "epsilon_alpha2_beta1": lambda: EpsilonAlpha2Beta1(zero_params="bias"),
}


@pytest.mark.parametrize("composite", COMPOSITES)
def test_clrp_equals_two_runs_of_zennit(nets, composite):
    net, twin = nets
    logit = explained_logit(logits_of(twin, pictures()), TARGETS)
    target, dual = (
        zennit(twin, pictures(), start, COMPOSITES[composite]())
        for start in (logit.abs(), others(logit))
    )
    found = build("clrp", composite=composite).explain(net, pictures(), TARGETS)
    scale = {"rtol": 1e-4, "atol": 1e-4 * float(found.amax())}  # λ has a stabiliser of its own
    torch.testing.assert_close(found, contrast(target, dual), **scale)
    assert found.amax() > 0
    lacking = (target - dual).clamp(min=0) if composite == "epsilon_plus" else target.clamp(min=0)
    assert not torch.allclose(found, lacking, **scale), "the contrast must be seen"


def test_clrp_of_the_negated_class_equals_zennit_on_negated_weights(nets):
    net, twin = nets
    logit = explained_logit(logits_of(twin, pictures()), TARGETS).abs()
    opposite = copy.deepcopy(twin)
    for parameter in opposite.head[2].parameters():
        parameter.data.neg_()
    target, dual = (zennit(n, pictures(), logit, z_plus_box()) for n in (twin, opposite))
    found = build("clrp", dual="negated").explain(net, pictures(), TARGETS)
    scale = {"rtol": 1e-4, "atol": 1e-4 * float(found.amax())}
    torch.testing.assert_close(found, contrast(target, dual), **scale)
    by_others = build("clrp").explain(net, pictures(), TARGETS)
    assert not torch.allclose(found, by_others, **scale)


def test_classes_that_are_all_alike_leave_no_contrast():
    net = seeded(VGGLike)
    with torch.no_grad():
        last = net.head[2]
        last.weight.copy_(last.weight[:1].expand_as(last.weight))
    alike = build("clrp").explain(net, pictures(), TARGETS)
    lrp = build("lrp", composite="z_plus_box", bias=False).explain(net, pictures(), TARGETS)
    assert alike.amax() < 1e-4 * lrp.abs().amax()


def test_clrp_needs_another_class():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(27, 1)))
    with pytest.raises(InvalidInput, match="one class") as caught:
        build("clrp").explain(net, pictures(size=3), torch.zeros(3, dtype=torch.long))
    assert caught.value.field == "model"


# --- SGLRP ----------------------------------------------------------------------------------


@pytest.mark.parametrize("composite", COMPOSITES)
def test_sglrp_equals_zennit_started_with_the_softmax_gradient(nets, composite):
    net, twin = nets
    p = torch.softmax(logits_of(twin, pictures()), 1)
    start = torch.zeros_like(p)
    for i, t in enumerate(TARGETS.tolist()):
        for n in range(p.shape[1]):
            start[i, n] = p[i, t] * (1 - p[i, t]) if n == t else -p[i, t] * p[i, n]
    found = build("sglrp", composite=composite).explain(net, pictures(), TARGETS)
    oracle = zennit(twin, pictures(), start, COMPOSITES[composite]())
    torch.testing.assert_close(found, oracle, **EXACT)
    assert sums(found).abs().amax() < 0.1 * found.abs().sum((1, 2, 3)).amin(), "for and against"


def test_the_start_is_the_derivative_of_the_probability():
    logits = (3 * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    targets = torch.tensor([0, 5, 2, 2])
    p = torch.softmax(logits, 1).gather(1, targets[:, None])
    (expected,) = torch.autograd.grad(p.sum(), logits)
    torch.testing.assert_close(softmax_gradient(logits, targets), expected, **EXACT)


def test_the_start_of_a_certain_net_does_not_cancel():
    """In float32, 1 − p is 0 where p rounds to 1."""
    logits = torch.tensor([[20.0, 0.0, 1.0]])
    start = softmax_gradient(logits, torch.tensor([0]))
    expected = softmax_gradient(logits.double(), torch.tensor([0]))
    torch.testing.assert_close(start.double(), expected, rtol=1e-5, atol=0)
    assert torch.softmax(logits, 1)[0, 0] == 1


# --- cost -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "runs"),
    [("deep_taylor", {}, 1), ("clrp", {}, 2), ("clrp", {"dual": "negated"}, 2), ("sglrp", {}, 1)],
)
def test_runs_through_the_model(name, options, runs):
    counted, explainer = Counted(seeded(VGGLike)), build(name, **options)
    explainer.explain(counted, pictures(), TARGETS)
    assert (counted.forwards, counted.backwards) == (3 * runs, 3 * runs)
    z_plus = build("lrp", rule="z_plus").cost()
    assert explainer.cost().forward == runs * z_plus.forward
    assert explainer.cost().backward == runs * z_plus.backward
