"""Random weights in the place of learnt ones, layer by layer from the output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import run_model

# fresh: new initial weights. shuffled: each tensor's own values in random places.
How = Literal["fresh", "shuffled"]


def layers_from_the_output(model: nn.Module, images: Tensor) -> list[nn.Module]:
    """Modules with parameters of their own, the last to run first; one forward pass."""
    order: dict[nn.Module, None] = {}
    with _watched(model, order), torch.no_grad():
        run_model(model, images)
    if not order:
        raise InvalidInput("model", "no module with parameters ran, so nothing can be randomised")
    return list(reversed(order))


def redraw(layers: Sequence[nn.Module], how: How) -> None:
    """Give each layer other weights, in place, drawn from torch's own generator.

    The layers belong on the CPU, where one seed means the same weights on every machine.
    """
    for layer in layers:
        _redraw(layer, how)


@contextmanager
def _watched(model: nn.Module, order: dict[nn.Module, None]) -> Iterator[None]:
    def note(module: nn.Module, *_: Any) -> None:
        order.pop(module, None)  # a shared layer counts where it runs last
        order[module] = None

    owners = [m for m in model.modules() if list(m.parameters(recurse=False))]
    handles = [m.register_forward_hook(note) for m in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _redraw(layer: nn.Module, how: How) -> None:
    reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
    if how == "fresh" and reset is not None:
        reset()
        return
    with torch.no_grad():  # parameters without an initialisation of their own are shuffled too
        for parameter in layer.parameters(recurse=False):
            order = torch.randperm(parameter.numel())
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
