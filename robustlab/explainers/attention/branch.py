"""Attention branch networks: maps of every class that the net makes on the side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Call, Interposition
from robustlab.core.maps import Post
from robustlab.core.score import check_targets
from robustlab.core.streaming import each_micro_batch, run_model
from robustlab.core.types import About, Differentiable, Passes
from robustlab.core.wrapping import Wrapper
from robustlab.explainers.cam.layers import layer_output


@dataclass(frozen=True, kw_only=True)
class ClassAttention:
    """The attention map of one class in an attention branch network: a = C_t.

    The attention branch makes one map per class, C ``[B,classes,h,w]``. Their averages over
    the places are a prediction of its own, trained beside the net's, and their mixture is
    the mask that gates the features. C_t is therefore the branch's evidence for class t at
    each place; the mask, which mixes all classes, is read by ``cbam_attention``. The paper's
    figures show the mask; to show the map of a class is our choice.
    ``layer`` is the module that puts out C. Without a name it is found once by running one
    image: the last average over the places of as many maps as there are classes *that the
    logits do not depend on*, which tells a prediction on the side from pooling.
    Raw shape ``[B,1,h,w]``, signed; the map is upsampled bilinearly to the image. Cost: 1
    forward pass. Source: Fukui et al. 2019.

    Raises:
        InvalidInput: the model makes no such maps, or the layer does not put out one per class.
    """

    about: ClassVar[About] = About(
        family="attention",
        year=2019,
        source="Fukui et al. 2019, Attention branch network",
        layer_specific=True,
        detail="region",
        needs="an attention branch that makes a map of every class",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    layer: str | None = None
    post: Post = "signed"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        name = self.layer or class_map_layer(model, images)

        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            with torch.set_grad_enabled(create_graph):
                maps, logits = layer_output(model, name, part, create_graph)
                check_targets(labels, logits)
                if maps.shape[1] != logits.shape[1]:
                    count, classes = maps.shape[1], logits.shape[1]
                    problem = f"{name!r} puts out {count} maps for {classes} classes"
                    raise InvalidInput("layer", problem, "without a name it is found")
                return maps[torch.arange(len(maps), device=maps.device), labels].unsqueeze(1)

        return each_micro_batch(images, targets, run)

    def resolved(self, model: nn.Module, images: Tensor) -> "ClassAttention":
        """The same explainer with its layer named."""
        return self if self.layer else replace(self, layer=class_map_layer(model, images))

    def cost(self) -> Passes:
        return Passes(1, 0)


def class_map_layer(model: nn.Module, images: Tensor) -> str:
    """Name of the module whose output, averaged over places, is a prediction on the side."""
    watched = _Watched(model)
    with torch.enable_grad():
        logits = run_model(watched, images[:1].detach())
        total = logits.sum()
    for maps, mean in reversed(watched.averages):
        if maps.shape[1] != logits.shape[1] or _depends(total, mean):
            continue
        for name, output in reversed(watched.outputs):
            if output is maps:
                return name
    raise InvalidInput(
        "model",
        "it makes no map of every class on the side, as an attention branch does",
        "cbam_attention reads spatial gates, grad_cam works with any convolutional network",
    )


def _depends(total: Tensor, value: Tensor) -> bool:
    if not total.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(total, value, allow_unused=True, retain_graph=True)
    return gradient is not None


class _Watched(Wrapper):
    """The model; remembers what its modules put out, and every average over all places."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.outputs: list[tuple[str, Tensor]] = []
        self.averages: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.outputs.clear()
        self.averages.clear()

        def average(call: Call) -> Tensor:
            mean = call.native()
            if call.input.ndim == 4 and mean.numel() == call.input.shape[:2].numel():
                mean = mean if mean.requires_grad else mean.detach().requires_grad_()
                self.averages.append((call.input, mean))
            return mean

        with self._recorded(), Interposition({"avg_pool": average}) as mode:
            return mode.current(self.inner(images))

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        handles = []

        def watch(name: str, module: nn.Module) -> None:
            def record(_: nn.Module, __: object, output: object) -> None:
                if isinstance(output, Tensor):
                    self.outputs.append((name, output))

            handles.append(module.register_forward_hook(record))

        try:
            for name, module in self.inner.named_modules():
                watch(name, module)
            yield
        finally:
            for handle in handles:
                handle.remove()
