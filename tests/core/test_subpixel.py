"""The transpose of a strided convolution, against the library's own."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from robustlab.core.linear import Layer
from robustlab.core.streaming import input_gradient
from robustlab.core.subpixel import suits, transpose_2d

CASES = [
    (kernel, stride, padding, size)
    for kernel, stride, padding in itertools.product((1, 2, 3, 4, 7), (2, 3, 4), (0, 1, 3))
    for size in ((12, 9), (28, 28))
    if padding < kernel + 2
]


def of(kernel, stride, padding, size, channels=3):
    generator = torch.Generator().manual_seed(kernel * 1000 + stride * 100 + padding)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weight, x = draw(5, channels, kernel, kernel), draw(2, channels, *size)
    s = draw(*F.conv2d(x, weight, stride=stride, padding=padding).shape)
    return x, weight, s


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_it_is_the_librarys_own(kernel, stride, padding, size):
    x, weight, s = of(kernel, stride, padding, size)
    expected = torch.nn.grad.conv2d_input(x.shape, weight, s, stride, padding)
    found = transpose_2d(s, weight, stride, (padding, padding), size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_is_the_transpose():
    # ⟨A x, s⟩ = ⟨x, Aᵀ s⟩, whatever the library thinks
    x, weight, s = of(4, 2, 1, (28, 28), channels=1)
    forward = (F.conv2d(x, weight, stride=2, padding=1) * s).sum()
    back = (x * transpose_2d(s, weight, 2, (1, 1), (28, 28))).sum()
    torch.testing.assert_close(forward, back)
    shifted = (x * transpose_2d(s, weight, 2, (0, 0), (28, 28))).sum()
    assert not torch.allclose(forward, shifted)


def test_paddings_may_differ():
    x, weight, _ = of(3, 2, 1, (12, 10))
    s = F.conv2d(x, weight, stride=2, padding=(0, 2))
    expected = torch.nn.grad.conv2d_input(x.shape, weight, s, 2, (0, 2))
    torch.testing.assert_close(transpose_2d(s, weight, 2, (0, 2), (12, 10)), expected)


def test_a_layer_takes_it_for_few_channels_only(monkeypatch):
    x, weight, s = of(4, 2, 1, (28, 28))
    layer = Layer("conv", weight, None, (2, 2), (1, 1), (1, 1), 1)
    calls = []
    monkeypatch.setattr(
        "robustlab.core.linear.transpose_2d", lambda *a: calls.append(1) or transpose_2d(*a)
    )
    expected = torch.nn.grad.conv2d_input(x.shape, weight, s, 2, 1)
    torch.testing.assert_close(layer.transpose(s, weight, x), expected)
    assert calls == [1]
    wide = weight.repeat(1, 2, 1, 1)
    assert not suits(wide, (2, 2), (1, 1), 1)
    assert not suits(weight[..., :3, :3], (2, 2), (1, 1), 1)
    assert not suits(weight, (1, 1), (1, 1), 1)
    assert not suits(weight, (2, 2), (2, 2), 1)
    assert not suits(weight, (2,), (1,), 1)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_gradient_of_the_first_order_takes_it(monkeypatch, trainable):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 4, 2, 1), torch.nn.ReLU(), torch.nn.Flatten())
    net.double().requires_grad_(trainable)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 17, 40])
    calls = []
    monkeypatch.setattr(
        "robustlab.core.linear.transpose_2d", lambda *a: calls.append(1) or transpose_2d(*a)
    )
    found = input_gradient(net, images, targets)
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf).gather(1, targets[:, None]).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert calls == [1]
    assert all(p.grad is None for p in net.parameters())
