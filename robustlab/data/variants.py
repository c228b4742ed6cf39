"""More images to train on: copies of those there are, moved a little."""

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.batch import Batch
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import generator


def with_moved_copies(batch: Batch, copies: int, shift: int, *, seed: int = 0) -> Batch:
    """The batch, and ``copies`` of every image moved by up to ``shift`` pixels along each axis.

    What moves in repeats the border. Each move is drawn by (seed, id, number of the copy); the
    copies are called ``id~1``, ``id~2``, ... and keep label and name.

    Raises:
        InvalidInput: a negative number, or a shift that leaves nothing of the image.
    """
    for name, value in (("copies", copies), ("shift", shift)):
        if value < 0:
            raise InvalidInput(name, f"must not be negative, got {value}")
    if copies == 0:
        return batch
    if shift >= min(batch.images.shape[-2:]):
        least = min(batch.images.shape[-2:])
        raise InvalidInput("shift", f"{shift} pixels leave nothing of {least}", "2 is usual")
    images, ids = [batch.images], list(batch.ids)
    padded = F.pad(batch.images, (shift,) * 4, mode="replicate")
    for copy in range(1, copies + 1):
        images.append(torch.stack([
            _moved(padded[i], batch.images[i], image_id, copy, shift, seed)
            for i, image_id in enumerate(batch.ids)
        ]))  # fmt: skip
        ids += [f"{image_id}~{copy}" for image_id in batch.ids]
    times = copies + 1
    return Batch(torch.cat(images), batch.labels.repeat(times), tuple(ids), batch.names * times)


def _moved(
    padded: Tensor, image: Tensor, image_id: str, copy: int, shift: int, seed: int
) -> Tensor:
    random = generator(seed, image_id, f"moved copy {copy}")
    top, left = torch.randint(2 * shift + 1, (2,), generator=random).tolist()
    height, width = image.shape[-2:]
    return padded[..., top : top + height, left : left + width]
