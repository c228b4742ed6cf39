"""The modules of a model by name, and what one of them has made of images."""

from typing import Any

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.streaming import run_model


def representation(
    model: nn.Module, images: Tensor, layer: str | None = None
) -> tuple[Tensor, Tensor]:
    """What the model has made of the images inside, ``[B,D]``, and the logits.

    The output of module ``layer``, where it runs last; without a name the penultimate layer's:
    what goes into the last dense layer or convolution. Differentiable in the images.

    Raises:
        InvalidInput: no such module, one that does not run or returns no batch of numbers; a
            model without a dense layer or convolution.
    """
    kept: list[Tensor] = []

    def behind(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
            raise InvalidInput("layer", f"{layer!r} has no numbers of its own for every image")
        kept[:] = [output.clone()]  # what follows may change it in place

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept[:] = [inputs[0]]

    if layer is None:
        modules = [m for _, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        handles = [module.register_forward_pre_hook(before) for module in modules]
    else:
        handles = [find_module(model, layer).register_forward_hook(behind)]
    try:
        logits = run_model(model, images)
    finally:
        for handle in handles:
            handle.remove()
    if not kept:
        said = "no dense layer or convolution ran" if layer is None else f"{layer!r} did not run"
        raise InvalidInput("layer", f"{said} in this model's forward pass", "name a layer")
    return kept[0].flatten(1), logits


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name, or a refusal that lists the nearest."""
    modules = dict(model.named_modules())
    if name not in modules or name == "":
        raise InvalidInput(
            "layer", f"the model has no module {name!r}", nearest(name, _short(modules))
        )
    return modules[name]


def _short(modules: dict[str, nn.Module]) -> list[str]:
    """The names worth listing: everything down to two levels, or all of a small model."""
    names = [n for n in modules if n]
    return names if len(names) <= 20 else [n for n in names if n.count(".") <= 1][:40]
