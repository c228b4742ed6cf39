"""What the metrics that ask the model share: the order of a map's pixels, and the questions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.score import Score, check_targets, score_of
from robustlab.core.streaming import copies, run_model
from robustlab.metrics.pairs import home

# (images of one slice, number of the copy, the slice) -> that copy of them
Alter = Callable[[Tensor, int, slice], Tensor]
# (logits [n, classes], targets [n]) -> one number per row
Read = Callable[[Tensor, Tensor], Tensor]


def answers(
    model: nn.Module, images: Tensor, targets: Tensor, count: int, alter: Alter, read: Read
) -> Tensor:
    """What ``read`` finds in the model's logits for ``count`` altered copies of each image.

    ``[count,B]`` float64, in micro-batches: memory does not grow with ``count``.
    """
    said = torch.empty(count, len(images), dtype=torch.float64, device=home(images.device))
    # not inference_mode: what a model caches in there could never again be differentiated
    with torch.no_grad():
        for js, where, stack in copies(images.detach(), count, alter) if len(images) else ():
            logits = run_model(model, stack).to(said)
            labels = targets[where].to(said.device).repeat(len(js))
            said[js.start : js.stop, where] = read(logits, labels).view(len(js), -1)
    return said


def scored(score: Score) -> Read:
    """Reads the target's score."""
    return lambda logits, targets: score_of(logits, targets, score)


def hit(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the target is what the model predicts, else 0."""
    check_targets(targets, logits)
    return (logits.argmax(1) == targets).to(logits)


def places(maps: Tensor, images: Tensor) -> Tensor:
    """When each pixel's turn comes, ``[B,H,W]``: 0 is the most important one.

    Of equal ones the first in reading order.

    Raises:
        InvalidInput: as `fitting`.
    """
    flat = fitting(maps, images).to(images.device).flatten(1) + 0.0  # −0 and 0 are a tie
    order = flat.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1).view(maps.shape)


def fitting(maps: Tensor, images: Tensor) -> Tensor:
    """The maps, detached.

    Raises:
        InvalidInput: not real ``[B,H,W]``, of another size than the images, NaN or infinite.
    """
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.is_complex():
        raise InvalidInput("maps", "expected real maps [B,H,W]")
    if images.ndim != 4 or maps.shape != (len(images), *images.shape[2:]):
        raise InvalidInput(
            "maps", f"shape {tuple(maps.shape)} does not fit images {tuple(images.shape)}"
        )
    if not bool(torch.isfinite(maps).all()):
        raise InvalidInput("maps", "contains NaN or infinite values")
    return maps.detach()


def check_ids(ids: Sequence[str], images: Tensor) -> None:
    """Refuse names that are not one per image: random numbers are drawn by them."""
    if len(ids) != len(images):
        raise InvalidInput("ids", f"{len(ids)} names for {len(images)} images")
