"""Images with names: the one shape that travels through the whole lab."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Batch:
    """A few images of one size.

    Attributes:
        images: ``[B, C, H, W]`` float, pixel units in [0, 1].
        labels: ``[B]`` int64, class indices of the model's task; -1 where unknown.
        ids: ``B`` distinct names; all randomness is drawn per id, so they must be stable.
        names: ``B`` human-readable labels ("tabby cat"); empty strings where unknown.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice) -> "Batch":
        return Batch(self.images[index], self.labels[index], self.ids[index], self.names[index])

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.images.to(device), self.labels.to(device), self.ids, self.names)


def make_batch(
    images: Tensor,
    labels: Tensor | Sequence[int] | None = None,
    ids: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Batch:
    """Check and wrap a user's own tensors.

    Raises:
        InvalidInput: not ``[B,C,H,W]`` floats, values outside [0, 1] or NaN, or a label,
            id or name list of another length, negative labels, or repeated ids.
    """
    check_images(images)
    count = len(images)
    if labels is None:
        labels = torch.full((count,), UNLABELLED, dtype=torch.int64)
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):  # names, or lists of several lengths
        raise InvalidInput("labels", f"expected whole numbers, got {labels!r}") from None
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidInput("labels", f"expected whole numbers, got {labels.dtype}")
    if labels.shape != (count,):
        raise InvalidInput("labels", f"expected shape ({count},), got {tuple(labels.shape)}")
    labels = labels.to(device=images.device, dtype=torch.int64)
    if bool((labels < UNLABELLED).any()):
        raise InvalidInput("labels", f"found {int(labels.min())}", "use -1 where unknown")
    ids = [f"image_{i}" for i in range(count)] if ids is None else [str(i) for i in ids]
    names = [""] * count if names is None else [str(n) for n in names]
    for field, value in (("ids", ids), ("names", names)):
        if len(value) != count:
            raise InvalidInput(field, f"{len(value)} given for {count} images")
    if len(set(ids)) != count:
        repeated = next(i for i in ids if ids.count(i) > 1)
        raise InvalidInput("ids", f"{repeated!r} appears more than once", "ids must be distinct")
    return Batch(images, labels, tuple(ids), tuple(names))


def check_images(images: Tensor, field: str = "images") -> None:
    """Refuse anything that is not a finite float ``[B,C,H,W]`` tensor in [0, 1]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        got = (
            f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images)
        )
        raise InvalidInput(field, f"expected a float tensor [B,C,H,W], got {got}")
    if images.numel() == 0:
        raise InvalidInput(field, f"empty: shape {tuple(images.shape)}", "give at least one image")
    if not bool(torch.isfinite(images).all()):
        raise InvalidInput(field, "contains NaN or infinite values")
    low, high = float(images.detach().min()), float(images.detach().max())
    if low < 0 or high > 1:
        raise InvalidInput(
            field,
            f"values span [{low:.4g}, {high:.4g}]",
            "pixels must lie in [0, 1]; normalisation belongs inside the model",
        )
