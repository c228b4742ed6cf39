"""Standard data sets through torchvision, from a folder that the user names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.mnist_5k import DIGITS
from robustlab.data.picture import to_tensor

_IDX = "{train,t10k}-{images-idx3,labels-idx1}-ubyte"


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set of torchvision.

    Attributes:
        root: the folder that holds torchvision's layout (see ``layout``).
        split: "train" or "test".
        limit: only the first so many images.
        download: fetch missing files from the network into ``root``.
    """

    root: str | Path
    split: Literal["train", "test"] = "test"
    limit: int | None = None
    download: bool = False

    name: ClassVar[str]
    torchvision_class: ClassVar[str]
    layout: ClassVar[str]

    def __post_init__(self) -> None:
        at_least_one("limit", self.limit)

    def load(self) -> Dataset:
        """Open the files; images are decoded when a batch is taken.

        Raises:
            InvalidInput: files are missing or broken; says where they are expected.
        """
        source = self._open()
        labels = [int(label) for label in self._labels(source)][: self.limit]
        class_names = self._class_names(source)
        return Dataset(
            name=self.name,
            ids=tuple(f"{self.name}/{self.split}/{i:05d}" for i in range(len(labels))),
            labels=tuple(labels),
            names=tuple(class_names[label] for label in labels),
            read=lambda i: _pixels(source, i),
            class_names=class_names,
        )

    def _open(self) -> Any:
        cls = getattr(import_torchvision().datasets, self.torchvision_class)
        root = Path(self.root).expanduser()
        try:
            return cls(root, download=self.download, **self._which())
        except Exception as error:  # whatever broken files make torchvision's readers raise
            raise InvalidInput(
                "root",
                f"{self.torchvision_class} ({self.split}) cannot be read from {root}: {error}",
                f"offline, put {self.layout} there; online, download=True fetches the files",
            ) from error

    def _which(self) -> dict[str, Any]:
        return {"train": self.split == "train"}

    def _labels(self, source: Any) -> Any:
        return source.targets

    def _class_names(self, source: Any) -> tuple[str, ...]:
        return tuple(source.classes)


def _pixels(source: Any, position: int) -> Tensor:
    picture, _ = source[position]
    return to_tensor(picture)


class Mnist(TorchvisionSet):
    """Handwritten digits ``[N, 1, 28, 28]``: 60,000 for training, 10,000 for testing."""

    name = "mnist"
    torchvision_class = "MNIST"
    layout = f"MNIST/raw/{_IDX}"

    def _class_names(self, source: Any) -> tuple[str, ...]:
        return DIGITS  # torchvision calls them "7 - seven"


class FashionMnist(TorchvisionSet):
    """Ten kinds of clothes ``[N, 1, 28, 28]``: 60,000 for training, 10,000 for testing."""

    name = "fashion_mnist"
    torchvision_class = "FashionMNIST"
    layout = f"FashionMNIST/raw/{_IDX}"


class Cifar10(TorchvisionSet):
    """Ten classes of small photographs ``[N, 3, 32, 32]``: 50,000 and 10,000."""

    name = "cifar10"
    torchvision_class = "CIFAR10"
    layout = "cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}"


class Cifar100(TorchvisionSet):
    """A hundred classes of small photographs ``[N, 3, 32, 32]``: 50,000 and 10,000."""

    name = "cifar100"
    torchvision_class = "CIFAR100"
    layout = "cifar-100-python/{train,test,meta}"


class Svhn(TorchvisionSet):
    """House numbers ``[N, 3, 32, 32]``, the digit in the middle: 73,257 and 26,032."""

    name = "svhn"
    torchvision_class = "SVHN"
    layout = "{train,test}_32x32.mat"

    def _which(self) -> dict[str, Any]:
        return {"split": self.split}

    def _labels(self, source: Any) -> Any:
        return source.labels

    def _class_names(self, source: Any) -> tuple[str, ...]:
        return DIGITS
