"""What to train on, and what to hold out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.batch import Batch
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import build
from robustlab.data import DATASETS, load
from robustlab.data.dataset import Dataset, at_least_one

EVERY: Final = 5


def train_and_held_out(
    name: str,
    options: Mapping[str, Any],
    *,
    images: int | None = None,
    held_out: int | None = None,
    every: int = EVERY,
) -> tuple[Batch, Batch]:
    """A data set's images to train on, and others that training never sees.

    Where the data set has splits they are its own, "train" and "test". Where it has none, one
    image of every five is held out, or of as many as ``every`` says.

    Args:
        name: of the data set.
        options: its options, without ``split``.
        images: how many to train on at most; None takes all.
        held_out: how many to hold out at most; None takes all.
        every: the last of every so many images is held out, where there are no splits.

    Raises:
        InvalidInput: an option of the data set is wrong, names a split or a limit, or there
            are too few images to hold one out.
    """
    _check_options(options)
    at_least_one("images", images)
    at_least_one("held_out", held_out)
    if has_splits(name):
        parts = [load(name, **options, split=split) for split in ("train", "test")]
        return parts[0].batch(images), parts[1].batch(held_out)
    dataset = load(name, **options)
    seen, unseen = _divided(dataset, every)
    return dataset.pick(seen[:images]), dataset.pick(unseen[:held_out])


def revision_of(name: str, options: Mapping[str, Any]) -> str:
    """Changes when the user's own files behind the images do; empty for data that have a name.

    Those are not opened: a spec can be checked where its data are not.

    Raises:
        InvalidInput: an option is wrong, or the user's files cannot be read.
    """
    _check_options(options)
    source = build(DATASETS, "data", name, options)
    if not getattr(source, "own_files", False):
        return ""
    dataset = load(name, **options)
    return dataset.revision(dataset.ids)


def _check_options(options: Mapping[str, Any]) -> None:
    for key, instead in (("split", "both splits are used"), ("limit", "images says how many")):
        if key in options:
            raise InvalidInput(f"data_options.{key}", instead, f"leave {key} out")


def has_splits(name: str) -> bool:
    """Does the data set know its own "train" and "test"? False for a name that nobody has."""
    source: Any = DATASETS.get(name)
    return source is not None and any(f.name == "split" for f in dataclasses.fields(source))


def _divided(dataset: Dataset, every: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if every < 2:
        raise InvalidInput("hold_out_every", f"must be at least 2, got {every}")
    if len(dataset) < every:
        raise InvalidInput(
            "data", f"{dataset.name} has {len(dataset)} images and no splits", f"{every} or more"
        )
    unseen = dataset.ids[every - 1 :: every]
    return tuple(i for i in dataset.ids if i not in set(unseen)), unseen
