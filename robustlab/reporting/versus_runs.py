"""What differs between two runs themselves, before any number is compared."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from robustlab.records import RunRecord
from robustlab.reporting.loading import Run
from robustlab.reporting.wording import attack_name, budget, count


@dataclass(frozen=True, kw_only=True)
class Change:
    """A fact that the two runs tell differently; None where a run does not have it."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell or a file without numbers, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunDifferences:
    """What a reader must know of the two runs beside their numbers.

    Attributes:
        spec: keys of the experiment files, as ``--set`` names them.
        provenance: versions, commit, machine; several values where cells differ.
        images_a, images_b: ids that only one run has.
        failed_a, failed_b: cells that crashed, and files that had to be left aside.
        unfinished_a, unfinished_b: how many planned cells have no readable record.
    """

    spec: tuple[Change, ...]
    provenance: tuple[Change, ...]
    images_a: tuple[str, ...]
    images_b: tuple[str, ...]
    failed_a: tuple[Failure, ...]
    failed_b: tuple[Failure, ...]
    unfinished_a: int
    unfinished_b: int


def run_differences(a: Run, b: Run) -> RunDifferences:
    """Everything about the runs that is not the same."""
    images_a, images_b = _images(a), _images(b)
    return RunDifferences(
        spec=_changes(_flat(a.manifest.spec), _flat(b.manifest.spec)),
        provenance=_changes(_provenance(a), _provenance(b)),
        images_a=tuple(sorted(images_a - images_b)),
        images_b=tuple(sorted(images_b - images_a)),
        failed_a=_failed(a),
        failed_b=_failed(b),
        unfinished_a=len(a.missing),
        unfinished_b=len(b.missing),
    )


def _changes(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Change, ...]:
    keys = dict.fromkeys((*a, *b))
    return tuple(
        Change(key=key, a=a.get(key), b=b.get(key)) for key in keys if a.get(key) != b.get(key)
    )


def _provenance(run: Run) -> dict[str, str]:
    """Every fact with all the values that cells give it, in an order that no cell decides."""
    said: dict[str, set[str]] = {}
    for record in run.records:
        for key, text in _leaves(record.provenance, ""):
            said.setdefault(key, set()).add(text)
    return {key: ", ".join(sorted(texts)) for key, texts in said.items()}


def _flat(spec: Mapping[str, Any]) -> dict[str, str]:
    return dict(_leaves(spec, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Values under dotted keys: objects and lists of objects are opened, all else is a leaf."""
    if isinstance(value, Mapping) and (value or not key):
        inner = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        inner = [(str(i), item) for i, item in enumerate(value)]
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, default=str)
        return
    for name, item in inner:
        yield from _leaves(item, f"{key}.{name}" if key else name)


def _images(run: Run) -> set[str]:
    return {image.id for record in run.records for image in record.images}


def _failed(run: Run) -> tuple[Failure, ...]:
    crashed = [Failure(what=_name(record), reason=record.error) for record in run.crashed]
    aside = [Failure(what=one.path.name, reason=one.reason) for one in run.problems]
    return (*crashed, *aside)


@dataclass(frozen=True)
class _Attack:
    """A cell's attack under the names that words ask for; it is measured on several explainers."""

    attack: str
    against: str
    explainer: str
    made_on: str


def _name(record: RunRecord) -> str:
    cell = record.cell
    attack = attack_name(_Attack(cell.attack, cell.against or "", "", cell.made_on or ""))
    size = budget(cell.budget.ball, cell.budget.epsilon)
    return f"{cell.model}: {attack}, ε = {size}, seed {cell.seed}, {count(len(cell.ids), 'image')}"
