"""Random and real images as starts of a path, and what is refused as one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from robustlab import data
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.randomness import generator, uniform
from robustlab.data.dataset import Dataset

GENERATED: Final = ("uniform", "blur")


def random_pixels(images: Tensor, ids: Sequence[str] | None, seed: int, purpose: str) -> Tensor:
    """Independent pixels, uniform on [0, 1], for every image by its id."""
    return (uniform(images, ids, seed, purpose) + 1) / 2


def check_blur(blur_sigma: float) -> None:
    """Refuse a blur of no width, whether or not it is used."""
    if not blur_sigma > 0:
        raise InvalidInput("blur_sigma", f"must be above 0, got {blur_sigma}")


def check_background(name: str) -> None:
    """Refuse a background that is neither generated nor the name of a data set."""
    if name not in GENERATED and name not in data.DATASETS:
        known = (*GENERATED, *data.DATASETS)
        raise InvalidInput("background", f"unknown name {name!r}", nearest(name, known))


def drawn_from(
    name: str, images: Tensor, ids: Sequence[str] | None, seed: int, purpose: str
) -> Tensor:
    """For every image one image of data set ``name``, drawn by its id, each equally likely.

    Raises:
        InvalidInput: the data set cannot be loaded by its name alone, or its images have
            another shape.
    """
    count = len(_loaded(name))
    names = [""] * len(images) if ids is None else ids
    rows = [torch.randint(count, (), generator=generator(seed, i, purpose)) for i in names]
    found = [_picture(name, int(row)) for row in rows]
    if found[0].shape != images.shape[1:]:
        has, needed = ("×".join(map(str, i.shape)) for i in (found[0], images[0]))
        raise InvalidInput(
            "background",
            f"the images of {name!r} are {has}, those to explain {needed}",
            "uniform and blur fit any image, a data set those of its own size",
        )
    return torch.stack(found).to(images)


@lru_cache(maxsize=4)
def _loaded(name: str) -> Dataset:
    try:
        return data.load(name)
    except InvalidInput as error:  # torchvision's sets need to be told where they are
        raise InvalidInput(
            "background", f"cannot be loaded by name: {error}", "try uniform, blur or mnist_5k"
        ) from error


@lru_cache(maxsize=64)
def _picture(name: str, row: int) -> Tensor:
    """Decoded once: photographs take as long to decode as a small net takes to run."""
    return _loaded(name).read(row)
