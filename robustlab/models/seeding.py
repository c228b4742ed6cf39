"""Random initial weights that depend on a seed and disturb nobody."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Inside, torch's CPU generator starts at ``seed``; afterwards it is as it was before.

    Building any ``nn.Module`` draws from that generator, also when the weights are replaced
    right away, so every construction in this room happens inside.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
