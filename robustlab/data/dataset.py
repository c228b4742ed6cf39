"""What ``load`` returns: ids at once, pixels when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from robustlab.core.batch import Batch, make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.regions import Box


class Source(Protocol):
    """The options of one data set, a frozen dataclass; ``load`` reads what they describe."""

    def load(self) -> "Dataset": ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A list of images of one size that are decoded only when a batch is taken.

    Attributes:
        name: the name it was loaded by.
        ids, labels, names: one of each per image, known without decoding; label -1 and
            name "" where unknown.
        read: the image ``[C, H, W]`` at a position, float in [0, 1].
        class_names: name of each label; empty where the labels' meaning is unknown.
        skipped: files left out, each with the reason.
        boxes: where the object is, per id: ``(x0, y0, x1, y1)`` as shares of width and
            height, origin at the top left; empty for most data sets.
        fingerprint: of the file and label behind the image at a position; None where the
            name of the data set says what is in it.
    """

    name: str
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    read: Callable[[int], Tensor] = field(repr=False)
    class_names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    boxes: Mapping[str, Box] = field(default_factory=dict)
    fingerprint: Callable[[int], str] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, limit: int | None = None) -> Batch:
        """All images, or the first ``limit``, as one :class:`Batch` ``[B, C, H, W]``.

        Raises:
            InvalidInput: ``limit`` is below 1, or an image cannot be read.
        """
        return self._batch(range(len(self))[: at_least_one("limit", limit)])

    def chunks(self, size: int) -> Iterator[Batch]:
        """Batches of ``size`` images in order, decoded one batch at a time; the last may be
        smaller.

        Raises:
            InvalidInput: ``size`` is below 1, or an image cannot be read.
        """
        at_least_one("size", size)
        positions = range(len(self))
        return (self._batch(positions[i : i + size]) for i in range(0, len(self), size))

    def pick(self, ids: Sequence[str]) -> Batch:
        """The images with these ids, in this order.

        Raises:
            InvalidInput: an id that the data set does not have, or no id at all.
        """
        return self._batch(self._positions(ids))

    def revision(self, ids: Sequence[str]) -> str:
        """Changes when the files or labels behind these images do, whatever they are called.

        Empty for data that come with a package or from a standard set.

        Raises:
            InvalidInput: an id that the data set does not have, or a file that cannot be read.
        """
        if self.fingerprint is None:
            return ""
        parts = [self.fingerprint(position) for position in self._positions(ids)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def box(self, image_id: str) -> Box:
        """The hand-made box around the object of one image.

        Raises:
            InvalidInput: no box is known for this id.
        """
        if image_id not in self.boxes:
            known = ", ".join(self.boxes) or "none"
            raise InvalidInput("id", f"{self.name} has no box for {image_id!r}", f"known: {known}")
        return self.boxes[image_id]

    def _positions(self, ids: Sequence[str]) -> list[int]:
        position = {name: i for i, name in enumerate(self.ids)}
        for name in ids:
            if name not in position:
                raise InvalidInput("ids", f"{self.name} has no image {name!r}")
        return [position[name] for name in ids]

    def _batch(self, positions: Sequence[int]) -> Batch:
        if not positions:
            raise InvalidInput("ids", "no image asked for", "give at least one id")
        return make_batch(
            torch.stack([self.read(i) for i in positions]),
            [self.labels[i] for i in positions],
            [self.ids[i] for i in positions],
            [self.names[i] for i in positions],
        )


def at_least_one(name: str, value: int | None) -> int | None:
    """``value`` itself, or ``InvalidInput`` where it is below 1; None means "all"."""
    if value is not None and value < 1:
        raise InvalidInput(name, f"must be at least 1, got {value}")
    return value
