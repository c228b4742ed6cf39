"""Where models and images come from, and keeping them for the next unit of work."""

from functools import lru_cache
from typing import Any, NamedTuple

from robustlab import data, models
from robustlab.core.batch import Batch
from robustlab.data import Dataset
from robustlab.lab.units import Cell, FineTuned, ModelSource, Trained, Visual
from robustlab.models import Classifier


class Origin(NamedTuple):
    """What a model or data set is made from: the key that it is kept under in this process.

    The revision belongs to it: a notebook or a Ray worker outlives the change of a file.
    """

    name: str
    options: Any  # frozen
    revision: str = ""


def model_of(unit: Cell | Visual | Trained | FineTuned) -> Origin:
    """Where the model of a unit of work comes from."""
    return origin_of(unit.model)


def origin_of(source: ModelSource) -> Origin:
    """What a model is made from. One that is trained first needs `learnt.with_weights` before."""
    return Origin(source.name, frozen(source.options), source.revision)


def data_of(cell: Cell | Visual) -> Origin:
    """Where the images of a unit of work come from."""
    return Origin(cell.data, frozen(cell.data_options), cell.data_revision)


@lru_cache(maxsize=8)
def load_batch(source: Origin, ids: tuple[str, ...], device: str) -> Batch:
    """Images by id, on their device."""
    return load_data(source).pick(ids).to(device)


@lru_cache(maxsize=4)
def load_model(origin: Origin, device: str) -> Classifier:
    """A model, kept for the next cell of this process."""
    return models.load(origin.name, **_thawed(origin.options)).to(device)


@lru_cache(maxsize=4)
def load_data(origin: Origin) -> Dataset:
    """A data set, kept for the next cell of this process."""
    return data.load(origin.name, **_thawed(origin.options))


def frozen(value: Any) -> Any:
    """Options as a hashable value, for the caches."""
    if isinstance(value, dict):
        return ("dict", tuple(sorted((k, frozen(v)) for k, v in value.items())))
    if isinstance(value, list | tuple):
        return ("list", tuple(frozen(v) for v in value))
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple) and value and value[0] == "dict":
        return {k: _thawed(v) for k, v in value[1]}
    if isinstance(value, tuple) and value and value[0] == "list":
        return [_thawed(v) for v in value[1]]
    return value
