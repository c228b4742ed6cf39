"""A trained network on labelled images that its training has never seen."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.core.batch import UNLABELLED, Batch
from robustlab.core.streaming import logits_of


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images.

    Attributes:
        before, after: accuracy of the one and of the other; None without a label.
        agreement: share of images to which both give the same class.
        lost: accuracy that the second has less; without labels, where they disagree.
    """

    before: float | None
    after: float | None
    agreement: float
    lost: float


def accuracy(model: nn.Module, batch: Batch, device: str) -> float | None:
    """Share of labelled images whose label has the largest logit; None without any."""
    return right(logits_of(model, batch.images.to(device)).argmax(1).cpu(), batch.labels)


def compared(model: nn.Module, tuned: nn.Module, batch: Batch) -> Comparison:
    """Both on one batch, which is where they are."""
    one, other = (logits_of(m, batch.images).argmax(1) for m in (model, tuned))
    agreement = share(one == other)
    before, after = right(one, batch.labels), right(other, batch.labels)
    if before is None or after is None:
        return Comparison(None, None, agreement, 1 - agreement)
    # counted in images: 0.966 − 0.946 is a little more than 0.02
    known = int((batch.labels != UNLABELLED).sum())
    return Comparison(before, after, agreement, round((before - after) * known) / known)


def right(found: Tensor, labels: Tensor) -> float | None:
    """Share of the labelled images whose class was found; None without a label."""
    known = labels != UNLABELLED
    return share((found == labels)[known]) if bool(known.any()) else None


def share(hits: Tensor) -> float:
    """The mean of booleans."""
    return float(hits.to(torch.float64).mean())
