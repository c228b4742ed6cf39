"""Gates, found by what they compute: features times one number per channel, or per place.

Squeeze-and-excitation, CBAM and their relatives come as modules of many libraries and as
lines in the middle of a block. What they share is the product. So the forward pass is
watched for products of features ``[B,K,h,w]`` with a gate ``[B,K,1,1]`` or ``[B,1,h,w]``,
and a gate is named after the innermost module that was running. Parameters and buffers are
no gates. A constant that the model computes anew is not taken for one either when a layer is
chosen, but it is when it follows the gate inside the chosen layer and an image comes alone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.interposition import Call, Interposition
from robustlab.core.layers import find_module
from robustlab.core.score import check_targets
from robustlab.core.streaming import each_micro_batch, run_model
from robustlab.core.wrapping import Wrapper


@dataclass(frozen=True)
class Kind:
    """A kind of gate: which products it makes, and what is read off them.

    Attributes:
        fits: whether the second tensor can be a gate of the first, both 4-D.
        read: ``[B,1,h,w]`` made of the gate and the product.
        name, meaning: for error messages.
    """

    fits: Callable[[Tensor, Tensor], bool]
    read: Callable[[Tensor, Tensor], Tensor]
    name: str
    meaning: str


def _fits_channels(features: Tensor, gate: Tensor) -> bool:
    everywhere = gate.shape[2:] == (1, 1) or gate.stride()[2:] == (0, 0)  # the latter: expanded
    return gate.shape[:2] == features.shape[:2] and everywhere


def _fits_places(features: Tensor, gate: Tensor) -> bool:
    same = gate.shape[1] == 1 or gate.stride()[1] == 0
    beside = (gate.shape[0], *gate.shape[2:]) == (features.shape[0], *features.shape[2:])
    return features.shape[1] > 1 and same and beside


CHANNELS: Final = Kind(
    fits=_fits_channels,
    read=lambda _, product: product.sum(1, keepdim=True),
    name="channel gate",
    meaning="multiplies features by one computed number per channel (squeeze-and-excitation)",
)
PLACES: Final = Kind(
    fits=_fits_places,
    read=lambda gate, _: gate[:, :1].clone(),  # the model may go on writing into its gate
    name="spatial gate",
    meaning="multiplies features by one computed number per place (spatial attention of CBAM)",
)


def read_gate(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    kind: Kind,
    layer: str | None,
    create_graph: bool,
) -> Tensor:
    """What ``kind`` reads, ``[B,1,h,w]``, off the last gate inside module ``layer``.

    ``layer=""`` is the model itself, None the module of the last gate of all.
    """
    name = last_gate(model, images, kind) if layer is None else layer
    module = find_module(model, name) if name else model.get_submodule("")

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        watched = _Watched(model, {name: module}, kind)
        with torch.set_grad_enabled(create_graph):
            logits = run_model(watched, part)
        check_targets(labels, logits)
        if not watched.found:
            known = set(_gates(model, images, kind))
            raise InvalidInput("layer", f"no {kind.name} in {name!r}", nearest(name, known))
        return watched.found[-1][1]

    return each_micro_batch(images, targets, run)


def last_gate(model: nn.Module, images: Tensor, kind: Kind) -> str:
    """The name of the innermost module that applies the last gate (runs one image)."""
    return _gates(model, images, kind)[-1]


def _gates(model: nn.Module, images: Tensor, kind: Kind) -> list[str]:
    watched = _Watched(model, dict(model.named_modules()), kind)
    with torch.no_grad():
        # twice the same image: a constant has a batch of one, a gate one of two
        run_model(watched, images[:1].detach().repeat(2, 1, 1, 1))
    if not watched.found:
        raise InvalidInput(
            "model",
            f"nothing in it {kind.meaning}",
            "grad_cam works with any convolutional network, gradient with any model",
        )
    return [name for name, _ in watched.found]


class _Watched(Wrapper):
    """The model; ``found`` has what its gates inside ``modules`` showed in the last run."""

    def __init__(self, inner: nn.Module, modules: Mapping[str, nn.Module], kind: Kind) -> None:
        super().__init__(inner)
        self.found: list[tuple[str, Tensor]] = []
        self._watched, self._kind = modules, kind
        self._constants = {id(t) for t in (*inner.parameters(), *inner.buffers())}

    def forward(self, images: Tensor) -> Tensor:
        self.found.clear()
        running: list[str] = []

        def multiply(call: Call) -> Tensor:
            product = call.native()
            gate = self._gate(call) if running else None
            if gate is not None:
                self.found.append((running[-1], self._kind.read(gate, product)))
            return product

        with _names_of(self._watched, running), Interposition({"mul": multiply}) as mode:
            return mode.current(self.inner(images))

    def _gate(self, call: Call) -> Tensor | None:
        """The factor that gates the other one, on whichever side it stands."""
        one, other = call.input, call.get("other")
        if not isinstance(other, Tensor) or not one.ndim == other.ndim == 4:
            return None
        for features, gate in ((one, other), (other, one)):
            constant = {id(gate), id(gate._base)} & self._constants
            if features.shape[2:].numel() > 1 and not constant and self._kind.fits(features, gate):
                return gate
        return None


@contextmanager
def _names_of(modules: Mapping[str, nn.Module], running: list[str]) -> Iterator[None]:
    """Inside, ``running`` holds the names of those modules that are running, innermost last."""
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def enter(*_: object) -> None:
            running.append(name)

        def leave(*_: object) -> None:
            running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))

    try:
        for name, module in modules.items():
            watch(name, module)
        yield
    finally:
        for handle in handles:
            handle.remove()
