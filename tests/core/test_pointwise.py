"""1x1 convolutions take oneDNN's way, and no number but the last digits shows it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from robustlab.core.pointwise import PointwiseByOneDNN, quick_pointwise
from robustlab.core.streaming import fast_layout, input_gradient, logits_of
from robustlab.core.threads import one_thread
from tests.nets import seeded

WEIGHT, BIAS = torch.linspace(-1, 1, 24).view(6, 4, 1, 1), torch.linspace(0, 1, 6)
IMAGES = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(3))


class Dilations(TorchFunctionMode):
    """Sees with what dilation convolutions are run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.conv1d, F.conv2d, F.conv3d):
            self.seen.append(args[5] if len(args) > 5 else (kwargs or {}).get("dilation", 1))
        return func(*args, **(kwargs or {}))


def dilation_of(run):
    with Dilations() as outer, PointwiseByOneDNN():
        run()
    (seen,) = outer.seen
    return seen


SPELLINGS = {
    "layer": lambda x: F.conv2d(x, WEIGHT, BIAS, (1, 1), (0, 0), (1, 1), 1),
    "short": lambda x: F.conv2d(x, WEIGHT),
    "by name": lambda x: F.conv2d(input=x, weight=WEIGHT, bias=BIAS, stride=[1, 1]),
    "padded": lambda x: F.conv2d(x, WEIGHT, BIAS, padding=(2, 1)),
    "same": lambda x: torch.conv2d(x, WEIGHT, BIAS, padding="same"),
    "valid": lambda x: torch.conv2d(x, WEIGHT, padding="valid", stride=1),
    "one large image": lambda x: F.conv2d(x[:1].repeat(1, 1, 80, 9), WEIGHT),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_dilation_changes_no_value_and_no_derivative(spelling):
    run = SPELLINGS[spelling]
    assert dilation_of(lambda: run(IMAGES)) == 2
    found = []
    for mode in (PointwiseByOneDNN(), Dilations()):
        leaf = IMAGES.clone().requires_grad_()
        with mode:
            value = run(leaf)
        found.append((value.detach(), *torch.autograd.grad(value.square().sum(), leaf)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


UNTOUCHED = {
    "3x3": lambda x: F.conv2d(x, torch.ones(6, 4, 3, 3)),
    "strided": lambda x: F.conv2d(x, WEIGHT, stride=2),
    "grouped": lambda x: F.conv2d(x, WEIGHT[:, :2], groups=2),
    "float64": lambda x: F.conv2d(x.double(), WEIGHT.double()),
    "16 images": lambda x: F.conv2d(x[:1].expand(16, -1, -1, -1), WEIGHT),
    "one small image": lambda x: F.conv2d(x[:1], WEIGHT),
    "no batch": lambda x: F.conv2d(x[0], WEIGHT),
    "one dimension": lambda x: F.conv1d(x[..., 0], WEIGHT[..., 0]),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_others_are_left_alone(case):
    assert dilation_of(lambda: UNTOUCHED[case](IMAGES)) in (1, (1, 1))


def test_the_mode_is_there_for_few_images_only():
    few = torch.rand(15, 3, 4, 4)
    assert isinstance(quick_pointwise(few), PointwiseByOneDNN)
    for others in (few.double(), few.repeat(2, 1, 1, 1)):
        assert not isinstance(quick_pointwise(others), PointwiseByOneDNN)


def narrow():
    """One convolution that PyTorch gives to oneDNN, and two that it does not."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1),
        nn.Flatten(), nn.Linear(8 * 16 * 16, 5),
    )  # fmt: skip


class Viewing(nn.Module):
    """The same, but it flattens by ``view``, which channels-last memory does not allow."""

    def __init__(self):
        super().__init__()
        self.features, self.head = narrow()[:6], nn.Linear(8 * 16 * 16, 5)

    def forward(self, x):
        return self.head(self.features(x).view(len(x), -1))


def kernels(run):
    with one_thread(), profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    return {event.key for event in seen.key_averages()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("make", [narrow, Viewing])
def test_pytorch_still_keeps_them_from_onednn_and_we_do_not(make):
    # Where the first half fails, PyTorch has changed its mind and core/pointwise.py can go.
    net, images, targets = seeded(make).float(), torch.rand(4, 3, 33, 33), torch.arange(4)
    by_hand = {"aten::_slow_conv2d_forward", "aten::_slow_conv2d_backward"}

    def plain():
        leaf = (fast_layout(images) if make is narrow else images.clone()).requires_grad_()
        return torch.autograd.grad(net(leaf).gather(1, targets[:, None]).sum(), leaf)[0]

    ours = lambda: input_gradient(net, images, targets)  # noqa: E731
    ours()  # by which it is known that Viewing wants plain memory
    assert by_hand <= kernels(plain)
    assert not by_hand & kernels(ours) and not by_hand & kernels(lambda: logits_of(net, images))
    torch.testing.assert_close(ours(), plain(), rtol=1e-4, atol=1e-6)
