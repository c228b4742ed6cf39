"""Layers by name, their outputs and the score's gradient there: what every CAM is made of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.layers import find_module
from robustlab.core.linear import cheap_second_order
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import each_micro_batch, run_model

# (A, ∂s/∂A) -> the weight of every channel or place, [B,K,1,1] or [B,K,h,w]
Weigh = Callable[[Tensor, Tensor], Tensor]

ANY_MODEL: Final = "gradient, integrated_gradients, lrp and occlusion work without one"
TOKENS: Final = "attention_rollout explains tokens, gradient and occlusion any model"


def gradient_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    weigh: Weigh,
    *,
    layer: str | None,
    score: Score,
    relu: bool,
    create_graph: bool,
) -> Tensor:
    """Σ_k w_k A_k ``[B,1,h,w]`` with weights made of the layer's output and gradient."""
    name = layer or spatial_layer(model, images)

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        activation, gradient = layer_gradient(model, name, part, labels, score, create_graph)
        return weighted_sum(activation, weigh(activation, gradient), relu)

    return each_micro_batch(images, targets, run)


def weighted_sum(activation: Tensor, weights: Tensor, relu: bool) -> Tensor:
    """Σ_k w_k A_k over the channels, ``[B,1,h,w]``; its positive part with ``relu``."""
    cam = (weights * activation).sum(1, keepdim=True)
    return cam.clamp(min=0) if relu else cam


def layer_gradient(
    model: nn.Module,
    name: str,
    images: Tensor,
    targets: Tensor,
    score: Score,
    create_graph: bool,
) -> tuple[Tensor, Tensor]:
    """(A, ∂s/∂A) for the output A of module ``name``, both ``[B,K,h,w]``, one micro-batch.

    Several copies of an image are several rows of the batch.
    """
    with torch.enable_grad():
        activation, logits = layer_output(model, name, images, create_graph)
        scores = score_of(logits, targets, score).sum()
        gradient = None
        if scores.requires_grad:  # not if the layer is idle and the parameters are frozen
            (gradient,) = torch.autograd.grad(
                scores, activation, create_graph=create_graph, allow_unused=True
            )
    if gradient is None:
        raise InvalidInput("layer", f"the score does not depend on the output of {name!r}")
    return (activation if create_graph else activation.detach()), gradient


def layer_output(
    model: nn.Module, name: str, images: Tensor, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """(A, logits) for the output A ``[B,K,h,w]`` of module ``name``, where it runs last.

    In grad mode the logits depend on A differentiably, and A on the images and weights
    below it if ``create_graph``.

    Raises:
        InvalidInput: no such module, or its output is no feature map.
    """
    module = find_module(model, name)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Tensor:
        _check_feature_map(name, output)
        output = output.clone()  # under a surrogate: what in-place operations made of it
        if not create_graph:
            output = output.detach()  # nobody will go back below the layer
        if torch.is_grad_enabled() and not output.requires_grad:
            output.requires_grad_()
        kept[:] = [output]
        return output.clone()  # what follows may change it in place

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
    return kept[0], logits


def _check_feature_map(name: str, output: Any) -> None:
    if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
        return
    got = str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
    remedy = "name a layer whose output is [B,K,h,w]"
    if isinstance(output, Tensor) and output.ndim == 3:
        got, remedy = f"tokens {got}", TOKENS
    raise InvalidInput("layer", f"{name!r} has no spatial extent: its output is {got}", remedy)


def spatial_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the last module with a 4-D output of more than one position.

    Pooling, dropout and identity do not count; of several modules that return the same
    tensor (a block and its last activation) the outermost is named, as people do: "layer4".
    A model that goes on with tokens ``[B,N,D]`` has no such layer: where a transformer cuts
    its patches is not where its score comes from.
    """
    if not any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for _, m in model.named_modules()):
        raise InvalidInput(
            "model", "a class activation map needs a convolutional layer and it has none", ANY_MODEL
        )
    outputs: list[tuple[str, Tensor]] = []
    with torch.no_grad(), recording(model, outputs):
        run_model(model, images[:1].detach())
    spatial = [(name, output) for name, output in outputs if output.ndim == 4]
    if not spatial:
        raise InvalidInput("model", "no module's output has a spatial extent", ANY_MODEL)
    last = spatial[-1][1]
    same = [name for name, output in spatial if output is last]
    chosen = min(reversed(same), key=lambda name: name.count("."))
    if outputs[-1][1].ndim == 3:
        raise InvalidInput(
            "model", f"it works on tokens [B,N,D] after {chosen!r}", f"{TOKENS}; or name a layer"
        )
    return chosen


_TRANSPARENT = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout,
    nn.Dropout2d, nn.Identity, nn.ZeroPad2d, nn.Flatten, nn.AdaptiveAvgPool1d,
)  # fmt: skip


@contextmanager
def recording(model: nn.Module, outputs: list[tuple[str, Tensor]]) -> Iterator[None]:
    """Collects feature maps ``[B,K,h,w]`` and tokens ``[B,N,D]`` as modules return them."""
    handles = []

    def hook(name: str, module: nn.Module) -> None:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            places = {4: output.shape[2:].numel(), 3: output.shape[1:2].numel()}
            if places.get(output.ndim, 1) > 1:
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
