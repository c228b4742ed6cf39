"""The fit loop: whatever is trained here, to fool or to defend, is trained by it.

Adam over shuffled batches. The order of an epoch is a function of the seed and its number, and
the state after every epoch can be kept in a file, so a killed training goes on to the same
weights that an undisturbed one reaches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, cos, pi
from pathlib import Path
from typing import Final, Literal, Protocol

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.progress import Progress, Watch
from robustlab.core.randomness import generator
from robustlab.core.tables import check_finite
from robustlab.training.state import restore, store

Means = Mapping[str, float]


class Objective(Protocol):
    """What is minimised. It knows the training images; the loop only says which are next."""

    def __len__(self) -> int:
        """How many training images there are."""
        ...

    def parts(self, net: nn.Module, rows: Tensor, step: int) -> Mapping[str, Tensor]:
        """Named scalars over the images in these rows; their sum is descended.

        ``step`` counts from 0 over all epochs: what is random in a step depends on it alone,
        so that a training that goes on draws what an undisturbed one would have drawn.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast and in which order.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step of Adam.
        learning_rate: of the first step.
        decay: *none* keeps it; *cosine* brings it to 0 with the last step.
        mode: *eval* keeps running statistics and drops nothing out, as fine-tuning to fool
            does; *train* is for training from scratch.
        seed: of the order of images.
    """

    epochs: int = 5
    batch_size: int = 50
    learning_rate: float = 1e-4
    decay: Literal["none", "cosine"] = "none"
    mode: Literal["eval", "train"] = "eval"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, f"must be at least 1, got {getattr(self, name)}")
        check_finite("learning_rate", self.learning_rate)
        if self.learning_rate < 0:
            raise InvalidInput("learning_rate", f"must not be negative, got {self.learning_rate}")

    def rate(self, share: float) -> float:
        """The learning rate when this share of all steps is done."""
        factor = (1 + cos(pi * share)) / 2 if self.decay == "cosine" else 1.0
        return self.learning_rate * factor


CLEAR: Final = "a smaller learning_rate may help"


class Diverged(RobustlabError):
    """The loss is no number any more."""


def fit(
    net: nn.Module,
    objective: Objective,
    schedule: Schedule,
    *,
    state: Path | None = None,
    watch: Watch | None = None,
) -> list[Means]:
    """Train ``net`` in place and leave it in evaluation mode; each epoch's mean parts.

    Args:
        net: its parameters that require a gradient are trained.
        objective: what to minimise, with the images.
        schedule: how.
        state: a file that keeps the state after every epoch, written in one step; where it
            exists, the training goes on from it.
        watch: called after every step.

    Raises:
        Diverged: a part became NaN or infinite; the state of the last whole epoch is kept.
        InvalidInput: ``state`` belongs to a network or training of another shape.
    """
    weights = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=schedule.learning_rate)
    history = restore(state, net, optimiser) if state is not None else []
    net.train(schedule.mode == "train")
    try:
        for epoch in range(len(history), schedule.epochs):
            history.append(_epoch(net, objective, optimiser, schedule, epoch, watch))
            if state is not None:
                store(state, net, optimiser, history)
    finally:
        net.eval()
    return history


def _epoch(
    net: nn.Module,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    epoch: int,
    watch: Watch | None,
) -> Means:
    count = len(objective)
    each = ceil(count / schedule.batch_size)
    order = torch.randperm(count, generator=generator(schedule.seed, f"epoch {epoch}", "order"))
    sums: dict[str, float] = {}
    for i, rows in enumerate(order.split(schedule.batch_size)):
        done = epoch * each + i
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(done / (each * schedule.epochs))
        means = _step(net, objective, optimiser, rows, done)
        if not all(-torch.inf < value < torch.inf for value in means.values()):
            name = next(k for k, v in means.items() if not -torch.inf < v < torch.inf)
            raise Diverged(f"{name} is {means[name]} at step {done + 1}; {CLEAR}")
        for name, value in means.items():
            sums[name] = sums.get(name, 0.0) + value * len(rows)
        if watch is not None:
            watch(Progress(done + 1, each * schedule.epochs, means))
    return {name: value / count for name, value in sums.items()}


def _step(
    net: nn.Module,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    rows: Tensor,
    number: int,
) -> dict[str, float]:
    """One step of Adam; what the parts were before it. No step is taken on a broken loss."""
    optimiser.zero_grad()
    with torch.enable_grad():
        parts = objective.parts(net, rows, number)
        loss = torch.stack([*parts.values()]).sum()
        if bool(torch.isfinite(loss)):
            loss.backward()
            optimiser.step()
    return {name: float(value.detach()) for name, value in parts.items()}
