"""Leaving a model as it was found, also after an exception."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter collects a gradient inside; flags are restored on the way out.

    For code that calls ``backward`` on a whole graph (foolbox does): without this, every
    parameter's ``.grad`` would grow during an attack.
    """
    wanted = [p for p in model.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
