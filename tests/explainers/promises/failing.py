"""What an explainer does when the model fails; a control never asks the model."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.core.types import Explainer, HessianVector
from robustlab.core.wrapping import Wrapper
from tests.explainers.promises.comparing import IDS, micro_batches_of
from tests.explainers.promises.untouched import untouched


class Boom(Exception):
    """Raised by the sabotaged nets below, and by nothing else."""


class _Bomb(torch.autograd.Function):
    """The identity, until its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise Boom


class FailsAtCall(Wrapper):
    """Works until its ``number``-th forward pass."""

    def __init__(self, inner: nn.Module, number: int) -> None:
        super().__init__(inner)
        self.number, self.calls = number, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.number:
            raise Boom
        return self.inner(images)


def check_failures(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """An exception in the middle must come out, and nothing else must be left of it."""
    leaves = [name for name, module in net.named_modules() if not list(module.children())]
    for name in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        broken = copy.deepcopy(net)
        broken.get_submodule(name).forward = _raise
        _fails_cleanly(explainer, broken, images, targets)
    if explainer.cost().backward:
        broken = copy.deepcopy(net)
        _explode_backwards(broken.get_submodule(leaves[-1]))
        _fails_cleanly(explainer, broken, images, targets)
    with micro_batches_of(1, images):
        for number in (1, 2, 3):
            _fails_cleanly(explainer, FailsAtCall(net, number), images, targets)


def check_blindness(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """A control's map is the same for another picture, class, name and model: no attack on any
    of them has a slope to follow, which is what ``differentiable = "none"`` says of it.
    """
    assert explainer.differentiable == "none", "a control with a gradient"
    expected = explainer.explain(net, images, targets, ids=IDS)
    for other in (
        explainer.explain(FailsAtCall(net, 1), images, targets, ids=IDS),
        explainer.explain(net, 1 - images, targets, ids=IDS),
        explainer.explain(net, images, targets.roll(1), ids=IDS),
        explainer.explain(net, images, targets, ids=IDS[::-1]),
        explainer.explain(net, images, targets),
    ):
        assert torch.equal(other, expected), "a control looks at something"
    assert torch.equal(expected[:1].expand_as(expected), expected), "images get different pictures"


def _raise(*_: object) -> Tensor:
    raise Boom


def _explode_backwards(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda *inputs: _Bomb.apply(forward(*inputs))


def _fails_cleanly(
    explainer: Explainer, broken: nn.Module, images: Tensor, targets: Tensor
) -> None:
    if isinstance(broken, FailsAtCall):
        inner, number = broken.inner, broken.number
        fresh: Callable[[], nn.Module] = lambda: FailsAtCall(inner, number)  # noqa: E731
    else:
        fresh = lambda: broken  # noqa: E731
    calls: list[Callable[[nn.Module], object]] = [
        lambda net: explainer.explain(net, images, targets, ids=IDS)
    ]
    if explainer.differentiable != "none":
        calls.append(
            lambda net: explainer.explain(net, images, targets, ids=IDS, create_graph=True)
        )
    if isinstance(explainer, HessianVector):
        product = explainer.transpose_product
        calls.append(lambda net: product(net, images, targets, images, step=0.01, ids=IDS))
    for call in calls:
        net = fresh()
        with untouched(net, images, targets, after="an exception"), pytest.raises(Boom):
            call(net)
