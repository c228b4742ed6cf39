"""The weights that an experiment has trained itself, put where the units of work look for them."""

from dataclasses import replace
from typing import Any, TypeVar

from robustlab.core.errors import RobustlabError
from robustlab.lab.units import Cell, FineTuned, ModelSource, Visual
from robustlab.records import Store

U = TypeVar("U", Cell, Visual, FineTuned)


def with_weights(unit: U, store: Store) -> U:
    """The same unit, its models told where their weights lie.

    Raises:
        RobustlabError: a training has failed, or its files are gone.
    """
    changes: dict[str, Any] = {"model": _placed(unit.model, store)}
    if isinstance(unit, Cell) and unit.made_on is not None:
        changes["made_on"] = _placed(unit.made_on, store)
    return replace(unit, **changes)


def _placed(source: ModelSource, store: Store) -> ModelSource:
    if not source.learnt:
        return source
    record, path = store.read_training(source.learnt), store.weights_path(source.learnt)
    if record is not None and record.outcome == "crashed":
        raise RobustlabError(f"the training of {source.label} failed: {record.error}")
    if record is None or not path.is_file():
        raise RobustlabError(f"the training of {source.label} has left no weights; run it again")
    options = {**source.options, "weights": str(path)}
    return replace(source, options=options, revision=record.sha256)
