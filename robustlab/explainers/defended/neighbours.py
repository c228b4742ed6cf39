"""Tangent spaces of a data set: what its images near a given one have in common."""

import dataclasses
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from robustlab import data
from robustlab.core.batch import UNLABELLED
from robustlab.core.errors import InvalidInput

NOTHING: Final = 1e-12  # share of the largest variance below which a direction is rounding


def tangent_bases(name: str, images: Tensor, classes: Tensor, neighbours: int, dims: int) -> Tensor:
    """Orthonormal rows V ``[B,dims,C·H·W]`` for each image, from images of its class.

    The leading principal directions of its nearest ``neighbours`` in data set ``name``,
    about their mean; in float64 on the CPU, whatever the images. A direction that the
    neighbours do not span is a row of zeros. A constant pixel's entries are zero exactly.

    Raises:
        InvalidInput: see `_training_images`; or another shape, or too few images of a class.
    """
    points, labels = _training_images(name)
    if points.shape[1:] != images.shape[1:]:
        has, needed = ("×".join(map(str, i.shape[1:])) for i in (points, images))
        raise InvalidInput(
            "data",
            f"the images of {name!r} are {has}, those to explain {needed}",
            "the data must be what the model was trained on; gradient and smooth_grad need none",
        )
    return torch.stack(
        [
            _basis(_nearest(points[labels == c], image, neighbours, name, int(c)), dims)
            for image, c in zip(images.detach().cpu().double(), classes.cpu(), strict=True)
        ]
    ).to(images)


def projected(bases: Tensor, vectors: Tensor) -> Tensor:
    """V Vᵀ v of each image, in the shape of ``vectors`` ``[B,C,H,W]``."""
    flat = vectors.flatten(1).unsqueeze(2)
    return (bases.transpose(1, 2) @ (bases @ flat)).view(vectors.shape)


def _nearest(points: Tensor, image: Tensor, count: int, name: str, label: int) -> Tensor:
    """The ``count`` points nearest to the image ``[count,D]``; of equal ones the first."""
    if len(points) < count:
        raise InvalidInput(
            "data",
            f"{name!r} has {len(points)} images of class {label}, {count} neighbours are asked for",
            "take fewer neighbours, or the data that the model was trained on",
        )
    flat = points.flatten(1).double()
    distances = (flat - image.flatten()).square().sum(1)
    return flat[distances.argsort(stable=True)[:count]]


def _basis(points: Tensor, dims: int) -> Tensor:
    """Leading principal directions of a few points, from their small Gram matrix."""
    centred = points - points.mean(0)
    variances, vectors = torch.linalg.eigh(centred @ centred.T)  # ascending
    variances, vectors = variances[-dims:].flip(0), vectors[:, -dims:].flip(1)
    spanned = variances > NOTHING * variances[0]
    scale = torch.where(spanned, variances, 1).rsqrt() * spanned
    return (vectors * scale).T @ centred


@lru_cache(maxsize=2)
def _training_images(name: str) -> tuple[Tensor, Tensor]:
    """All images and labels of a data set's training split, read once per process.

    Raises:
        InvalidInput: it cannot be loaded by its name alone, or has images without a label.
    """
    options = {f.name for f in dataclasses.fields(data.DATASETS[name])}  # type: ignore[arg-type]
    try:
        batch = data.load(name, **({"split": "train"} if "split" in options else {})).batch()
    except InvalidInput as error:  # torchvision's sets need to be told where they are
        raise InvalidInput(
            "data", f"cannot be loaded by its name: {error}", "mnist_5k can"
        ) from error
    known = batch.labels != UNLABELLED
    if not bool(known.any()):
        raise InvalidInput("data", f"{name!r} has no labels", "mnist_5k has")
    return batch.images[known], batch.labels[known]
