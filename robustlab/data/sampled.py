"""Samples of two standard test sets, shipped: evaluation needs no download.

The shipped networks of the zoo are trained on the whole training sets, so what they are
evaluated on has to come from the test sets. ``python -m robustlab.data.sampled ROOT`` makes the
files again from torchvision's.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
from torch import Tensor

from robustlab.core.torchvision_ops import import_torchvision
from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.mnist_5k import DIGITS

FOLDER: Final = Path(__file__).parent / "samples"
CLOTHES: Final = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Mnist1k:
    """MNIST digits ``[N, 1, 28, 28]``: the first 100 of every class in the test set.

    Classes take turns, so the first N images are balanced. Ids end in the row of the test
    set. Y. LeCun, C. Cortes, CC BY-SA 3.0.

    Attributes:
        limit: only the first so many.
    """

    limit: int | None = None

    name: ClassVar[str] = "mnist_1k"

    def __post_init__(self) -> None:
        at_least_one("limit", self.limit)

    def load(self) -> Dataset:
        return _dataset(self.name, "test", DIGITS, self.limit)


@dataclass(frozen=True)
class Fashion3k:
    """Fashion-MNIST ``[N, 1, 28, 28]``: the first 200 of every class for training, 100 for testing.

    The two parts are of the training set and of the test set. Classes take turns, so the first
    N images are balanced. Ids end in the row of their set. Zalando SE, MIT licence.

    Attributes:
        split: "train" or "test".
        limit: only the first so many.
    """

    split: Literal["train", "test"] = "test"
    limit: int | None = None

    name: ClassVar[str] = "fashion_3k"

    def __post_init__(self) -> None:
        at_least_one("limit", self.limit)

    def load(self) -> Dataset:
        return _dataset(self.name, self.split, CLOTHES, self.limit)


def _dataset(name: str, split: str, classes: tuple[str, ...], limit: int | None) -> Dataset:
    pixels, rows = _sample(name, split)
    labels = tuple(i % len(classes) for i in range(len(rows)))[:limit]
    return Dataset(
        name=name,
        ids=tuple(f"{name}/{split}/{row:05d}" for row in rows[:limit]),
        labels=labels,
        names=tuple(classes[label] for label in labels),
        read=lambda i: pixels[i].float().unsqueeze(0) / 255,
        class_names=classes,
    )


@cache
def _sample(name: str, split: str) -> tuple[Tensor, list[int]]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return torch.from_numpy(file[split]), file[f"{split}_rows"].tolist()


def make(root: Path) -> None:
    """Write both files from torchvision's data under ``root``."""
    datasets = import_torchvision().datasets
    parts: dict[str, tuple[Any, dict[str, int]]] = {
        "mnist_1k": (datasets.MNIST, {"test": 100}),
        "fashion_3k": (datasets.FashionMNIST, {"train": 200, "test": 100}),
    }
    for name, (source, counts) in parts.items():
        content: dict[str, Any] = {}
        for split, count in counts.items():
            whole = source(root, train=split == "train")
            rows = _first_of_each(whole.targets, count)
            content[split] = whole.data[rows].numpy()
            content[f"{split}_rows"] = rows.to(torch.int32).numpy()
        np.savez_compressed(FOLDER / f"{name}.npz", **content)


def _first_of_each(labels: Tensor, count: int) -> Tensor:
    """Rows of the first ``count`` images of every class, the classes taking turns."""
    each = [torch.nonzero(labels == c)[:count, 0] for c in range(int(labels.max()) + 1)]
    return torch.stack(each, 1).flatten()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
