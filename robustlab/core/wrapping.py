"""Models that behave differently without being changed: transparent wrappers.

A wrapper shows the wrapped model's own module names, so a layer that is named in an
experiment is found through any number of wrappers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Interposition, smooth_activation


class Wrapper(nn.Module):
    """A module that answers for another one. Subclasses change ``forward`` only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        return self.inner.named_modules(memo, prefix, remove_duplicate)

    def get_submodule(self, target: str) -> nn.Module:
        return self.inner.get_submodule(target)


class Smoothed(Wrapper):
    """The same weights with softplus_β in place of ReLU and ReLU6: an attack's surrogate.

    A ReLU net's gradient map is piecewise constant, so its derivative is zero almost
    everywhere; this stand-in gives attacks a slope. Max-pooling keeps its kinks. Results
    must be judged on the true model.
    """

    def __init__(self, inner: nn.Module, beta: float) -> None:
        if not beta > 0:
            raise InvalidInput("beta", f"must be above 0, got {beta}")
        super().__init__(inner)
        self.beta = beta

    def forward(self, images: Tensor) -> Tensor:
        with Interposition({"relu": self._relu, "relu6": self._relu6}) as mode:
            return mode.current(self.inner(images))

    def _relu(self, call: Call) -> Tensor:
        return smooth_activation(call.input, self.beta)

    def _relu6(self, call: Call) -> Tensor:
        return smooth_activation(call.input, self.beta, 6.0)


class Counted(Wrapper):
    """Counts passes, in images: those that go in, and gradients that come back out of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.forwards = 0
        self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(_Tally.apply(images, self))


class _Tally(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, counter: Counted) -> Tensor:
        ctx.counter = counter
        ctx.set_materialize_grads(False)
        counter.forwards += len(images)
        return images.clone()  # a view could not be edited in place by the model

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        if gradient is not None:
            ctx.counter.backwards += len(gradient)
        return gradient, None
