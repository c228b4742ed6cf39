"""Layers by name, their outputs and the score's gradient there: what every CAM is made of."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.linear import cheap_second_order
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import run_model


def layer_gradient(
    model: nn.Module,
    name: str,
    images: Tensor,
    targets: Tensor,
    score: Score,
    create_graph: bool,
) -> tuple[Tensor, Tensor]:
    """(A, ∂s/∂A) for the output A of module ``name``, both ``[B,K,h,w]``."""
    module = find_module(model, name)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        if (
            not isinstance(output, Tensor)
            or output.ndim != 4
            or output.shape[-1] * output.shape[-2] == 1
        ):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InvalidInput("layer", f"{name!r} has no spatial extent: its output is {got}")
        output = output.clone()  # under a surrogate: what in-place operations made of it
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        kept.append(output)
        return output.clone()  # what follows may change it in place

    with torch.enable_grad():
        if not create_graph:
            images = images.detach()
        handle = module.register_forward_hook(keep)
        try:
            with cheap_second_order() if create_graph else nullcontext() as mode:
                logits = run_model(model, images)
                logits = logits if mode is None else mode.current(logits)
        finally:
            handle.remove()
        if not kept:
            raise InvalidInput("layer", f"{name!r} did not run in this model's forward pass")
        scores = score_of(logits, targets, score)
        (gradient,) = torch.autograd.grad(
            scores.sum(), kept[-1], create_graph=create_graph, allow_unused=True
        )
    if gradient is None:
        raise InvalidInput("layer", f"the score does not depend on the output of {name!r}")
    activation = kept[-1]
    return (activation, gradient) if create_graph else (activation.detach(), gradient)


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name, or a refusal that lists the nearest."""
    modules = dict(model.named_modules())
    if name not in modules or name == "":
        raise InvalidInput(
            "layer", f"the model has no module {name!r}", nearest(name, _short(modules))
        )
    return modules[name]


def spatial_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the last module with a 4-D output of more than one position.

    Pooling, dropout and identity do not count; of several modules that return the same
    tensor (a block and its last activation) the outermost is named, as people do: "layer4".
    """
    outputs: list[tuple[str, Tensor]] = []
    if not any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for _, m in model.named_modules()):
        raise InvalidInput("model", "Grad-CAM needs a convolutional layer and it has none")
    with torch.no_grad(), _recording(model, outputs):
        run_model(model, images[:1].detach())
    if not outputs:
        raise InvalidInput("model", "no module's output has a spatial extent", "name a layer")
    last = outputs[-1][1]
    same = [name for name, tensor in outputs if tensor is last]
    return min(reversed(same), key=lambda name: name.count("."))


_TRANSPARENT = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout,
    nn.Dropout2d, nn.Identity, nn.ZeroPad2d,
)  # fmt: skip


@contextmanager
def _recording(model: nn.Module, outputs: list[tuple[str, Tensor]]) -> Iterator[None]:
    handles = []

    def hook(name: str, module: nn.Module) -> None:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                outputs.append((name, output))

        handles.append(module.register_forward_hook(record))

    try:
        for name, module in model.named_modules():
            if name and not isinstance(module, _TRANSPARENT):
                hook(name, module)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _short(modules: dict[str, nn.Module]) -> list[str]:
    """The names worth listing: everything down to two levels, or all of a small model."""
    names = [n for n in modules if n]
    return names if len(names) <= 20 else [n for n in names if n.count(".") <= 1][:40]
