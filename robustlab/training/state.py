"""The state of a training in one file: weights, Adam's moments, and what was seen so far."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.models.weight_files import fit_weights
from robustlab.records import atomic_write

_NET, _ADAM = "net.", "adam."


def store(
    path: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: Sequence[Mapping[str, float]],
) -> None:
    """Write the state in one step: a reader finds the last epoch or the one before it."""
    tensors = {_NET + name: t for name, t in net.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{_ADAM}{i}.{name}": t for name, t in moments.items()}
    content = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, save(content, metadata={"history": json.dumps(list(history))}))


def restore(
    path: Path, net: nn.Module, optimiser: torch.optim.Optimizer
) -> list[Mapping[str, float]]:
    """Continue from ``path``: both are changed in place; the epochs seen. [] without a file.

    Raises:
        InvalidInput: the file is damaged, or belongs to another network.
    """
    if not path.is_file():
        return []
    tensors, history = _read(path)
    weights = {k.removeprefix(_NET): t for k, t in tensors.items() if k.startswith(_NET)}
    fit_weights(net, weights, str(path))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_ADAM):
            number, name = key.removeprefix(_ADAM).split(".")
            moments.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return history


def _read(path: Path) -> tuple[dict[str, Tensor], list[Mapping[str, float]]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(metadata["history"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            "state", f"{path} is no training state: {error}", "remove it to start afresh"
        ) from None
