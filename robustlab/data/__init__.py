"""Images with ids and labels, by name; pixels in [0, 1].

``load(name, **options)`` gives a :class:`Dataset`; ``from_tensors`` wraps a user's own.
"""

from collections.abc import Mapping
from os.path import isdir
from pathlib import Path
from typing import Any, Final

from robustlab.core.batch import make_batch as from_tensors
from robustlab.core.errors import InvalidInput
from robustlab.core.regions import Box
from robustlab.core.tables import build
from robustlab.data.dataset import Dataset, Source
from robustlab.data.decoy_mnist import DecoyMnist
from robustlab.data.image_folder import ImageFolder
from robustlab.data.mnist_5k import Mnist5k
from robustlab.data.photos import Photos
from robustlab.data.sampled import Fashion3k, Mnist1k
from robustlab.data.torchvision_sets import Cifar10, Cifar100, FashionMnist, Mnist, Svhn

__all__ = ["DATASETS", "Box", "Dataset", "from_tensors", "load", "what_is"]

DATASETS: Final[Mapping[str, type[Source]]] = {
    "photos": Photos,
    "mnist_5k": Mnist5k,
    "mnist_1k": Mnist1k,
    "fashion_3k": Fashion3k,
    "decoy_mnist": DecoyMnist,
    "image_folder": ImageFolder,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "svhn": Svhn,
}


def load(name: str | Path, **options: Any) -> Dataset:
    """Load the data set ``name``, or the pictures in a folder of that name.

    Its options are the fields of ``DATASETS[name]``, of a folder those of ``image_folder``.
    Nothing is downloaded unless an option asks for it, and images are decoded only when a
    batch is taken.

    Raises:
        InvalidInput: unknown name or option (with the nearest spelling), a value of the
            wrong type or range, or files that are missing or broken.
        MissingDependency: the package that ships the data is not installed.
    """
    kind, options = what_is(name, options)
    source = build(DATASETS, "data", kind, options)
    try:
        return source.load()
    except InvalidInput as error:
        raise error.within(kind) from error.__cause__


def what_is(name: str | Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A data set's name and options; those of ``image_folder`` where ``name`` is a folder's.

    That it is if it is a path, has a slash in it, or there is such a folder and no such data set.

    Raises:
        InvalidInput: the folder is given twice.
    """
    text = str(name)
    a_path = isinstance(name, Path) or "/" in text
    # pathlib's raises at a name that is too long
    if not a_path and (text in DATASETS or not isdir(text)):  # noqa: PTH112
        return text, dict(options)
    if "path" in options:
        raise InvalidInput("image_folder.path", "the folder is already in the name")
    return "image_folder", {"path": text, **options}
