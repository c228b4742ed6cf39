"""Weights on disk: read without running code, and refused with a reason before use."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256

_PICKLES = (".pth", ".pt", ".bin")
_KINDS = (".safetensors", *_PICKLES)
_KNOWN = ", ".join(_KINDS)


def save_weights(net: nn.Module, path: Path) -> None:
    """Write the state dict of ``net`` as safetensors."""
    state = {name: t.detach().cpu().contiguous().clone() for name, t in net.state_dict().items()}
    path.write_bytes(save(state))  # save_file would make it readable by its owner only


def weights_revision(weights: object) -> str:
    """The sha256 of the user's file that a model's option ``weights`` names.

    Empty for anything else: weights that ship, official ones and random ones are told by
    their names. So it is for a file that cannot be read: loading it says why.
    """
    if not isinstance(weights, str | Path) or Path(weights).suffix not in _KINDS:
        return ""
    try:
        path = Path(weights).expanduser()
        return sha256(path) if path.is_file() else ""
    except (OSError, RuntimeError):  # RuntimeError: the home folder of nobody
        return ""


def own_file(weights: str | Path, instead: str, remedy: str = "") -> Path:
    """The user's file that the option ``weights`` names, where it is no known word.

    Raises:
        InvalidInput: no such file; ``instead`` says which words there are.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        problem = f"{str(weights)!r} is neither {instead} nor a file"
        raise InvalidInput("weights", problem, remedy)
    return path


def load_weights(net: nn.Module, path: Path) -> None:
    """Read ``path`` and copy it into ``net``; on any error ``net`` is unchanged.

    Raises:
        InvalidInput: see ``read_weights`` and ``fit_weights``.
    """
    fit_weights(net, read_weights(path), str(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickled state dict (.pth, .pt, .bin).

    A checkpoint that keeps the state dict under "state_dict" is unwrapped.

    Raises:
        InvalidInput: the file is missing, of another kind, damaged, wants to run code, holds
            something other than named tensors, or has NaN or infinite values.
    """
    if not path.is_file():
        raise InvalidInput("weights", f"no file {path}")
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif path.suffix in _PICKLES:
        content = _read_pickle(path)
    else:
        raise InvalidInput("weights", f"{path}: unknown kind of file", f"known: {_KNOWN}")
    return _checked(content, str(path))


def fit_weights(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``net`` if it fits exactly.

    Raises:
        InvalidInput: missing or foreign names, another shape or another kind of number; all
            are found before anything is copied.
    """
    own = net.state_dict()
    # files older than torch 0.4.1 lack the counters, which evaluation does not use
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    foreign = sorted(n for n in state if n not in own)
    if missing or foreign:
        problem = f"{source} was made for another network: "
        problem += "; ".join(
            _count(k, n) for k, n in (("missing", missing), ("foreign", foreign)) if n
        )
        raise InvalidInput("weights", problem)
    for name in (n for n in own if n in state):
        found, wanted = state[name], own[name]
        if found.shape != wanted.shape:
            shapes = f"{tuple(found.shape)}, the network has {tuple(wanted.shape)}"
            raise InvalidInput("weights", f"{source}: {name} has shape {shapes}")
        if found.is_floating_point() != wanted.is_floating_point():
            kinds = f"{found.dtype}, the network has {wanted.dtype}"
            raise InvalidInput("weights", f"{source}: {name} is {kinds}")
    net.load_state_dict({**own, **state})


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput("weights", f"{path} is damaged: {error}") from None


def _read_pickle(path: Path) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].split("\n")[0]
        if "Unsupported" not in reason:
            raise InvalidInput("weights", f"{path} is damaged: {reason or error}") from None
        problem = f"{path} would run code when read: {reason}"
        raise InvalidInput("weights", problem, "save its state_dict() as safetensors") from None
    except Exception as error:  # torch's readers raise almost anything on damaged files
        raise InvalidInput("weights", f"{path} is damaged: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        return content["state_dict"]
    return content


def _checked(content: Any, source: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        problem = f"{source} holds {type(content).__name__}, expected named tensors"
        raise InvalidInput("weights", problem)
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise InvalidInput("weights", f"{source}: entry {name!r} is a {kind}, not a tensor")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InvalidInput("weights", f"{source}: {name} has NaN or infinite values")
    return dict(content)


def _count(kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {kind} ({shown})"
