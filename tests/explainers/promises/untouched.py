"""Net, inputs and global state before and after a call, by names that a reader understands."""

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@contextmanager
def untouched(
    net: nn.Module, images: Tensor, targets: Tensor, after: str = "a call"
) -> Iterator[None]:
    """Net, inputs and torch's global state are the same afterwards."""
    before = snapshot(net, images, targets)
    yield
    now = snapshot(net, images, targets)
    changed = [key for key in {**before, **now} if not _same(before.get(key), now.get(key))]
    assert not changed, f"left behind after {after}: {', '.join(changed)}"


def snapshot(net: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Any]:
    """Everything that an explainer could forget to put back, by a name a reader understands."""
    state: dict[str, Any] = {
        "the global random numbers of torch": torch.get_rng_state(),
        "the global random numbers of numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "the global random numbers of python": random.getstate(),
        "a torch function mode": torch._C._len_torch_function_stack(),
        "a torch dispatch mode": torch._C._len_torch_dispatch_stack(),
        "the grad mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "a global hook": sum(
            len(hooks)
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ),
    }
    tensors = {"the images": images, "the targets": targets}
    tensors |= {f"parameter {name}": p for name, p in net.named_parameters()}
    tensors |= {f"buffer {name}": b for name, b in net.named_buffers()}
    for name, tensor in tensors.items():
        state[f"value of {name}"] = tensor.detach().clone()
        state[f".grad of {name}"] = None if tensor.grad is None else tensor.grad.clone()
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"a hook on {name}"] = len(tensor._backward_hooks or ())
    for name, module in {"(itself)": net, **dict(net.named_modules())}.items():
        state[f"training flag of module {name}"] = module.training
        state[f"type of module {name}"] = type(module)
        state[f"an attribute of module {name}"] = sorted(vars(module))
        for hooks in _HOOKS:
            state[f"{hooks} of module {name}"] = list(getattr(module, hooks))
    return state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b
