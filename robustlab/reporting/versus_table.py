"""Two runs beside each other in words: a table, what to know beside it, and one last line."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import pandas as pd

from robustlab.core.errors import InvalidInput
from robustlab.records import atomic_write
from robustlab.records.plain import plain
from robustlab.reporting.results import to_csv
from robustlab.reporting.significance import least
from robustlab.reporting.versus import CHANGED, LEVEL, Place, Verdict, Versus, VersusRow
from robustlab.reporting.versus_runs import Change
from robustlab.reporting.wording import (
    MISSING,
    attack_name,
    budget,
    count,
    number,
    signed,
)

FIRST: Final = 3  # names of a list that is too long to be told whole
MOST: Final = 12  # keys that differ
_UNCHANGED: Final[tuple[tuple[Verdict, str], ...]] = (
    ("no clear difference", "with no clear difference"),
    ("same numbers", "with the very same numbers"),
    ("nothing to compare", "with nothing to compare"),
)


def versus_table(found: Versus) -> list[tuple[str, ...]]:
    """A header and one line per row, as plain text cells; columns of one value are left out."""
    columns: list[tuple[str, Callable[[VersusRow], str]]] = [
        ("explainer", lambda row: row.explainer),
        ("attack", attack_name),
        ("ε", lambda row: budget(row.norm, row.epsilon)),
        ("n", lambda row: str(row.n)),
        ("A", lambda row: number(row.mean_a)),
        ("B", lambda row: number(row.mean_b)),
        ("B − A", _difference),
        ("p", lambda row: number(row.p)),
        ("Holm", lambda row: number(row.p_holm)),
        ("verdict", lambda row: row.verdict),
    ]
    if len({row.metric for row in found.rows}) > 1:
        columns.insert(0, ("metric", lambda row: row.metric))
    if len({row.model for row in found.rows}) > 1:
        columns.insert(0, ("model", lambda row: row.model))
    header = tuple(name for name, _ in columns)
    return [header, *(tuple(tell(row) for _, tell in columns) for row in found.rows)]


def versus_notes(found: Versus) -> list[str]:
    """What is not in the numbers, a line each."""
    return [*_about_runs(found), *_about_rows(found)]


def versus_summary(found: Versus) -> str:
    """``12 of 40 rows changed: 3 more stable, 9 less stable; 28 with the very same numbers``."""
    counts = Counter(row.verdict for row in found.rows)
    changed = [f"{counts[word]} {word}" for word in CHANGED if counts[word]]
    total = sum(counts[word] for word in CHANGED)
    text = f"{total} of {count(len(found.rows), 'row')} changed"
    text += f": {', '.join(changed)}" if changed else ""
    for word, words in _UNCHANGED:
        text += f"; {counts[word]} {words}" if counts[word] else ""
    return text


def write_rows(path: Path, found: Versus) -> None:
    """The rows with every digit, as a CSV file.

    Raises:
        InvalidInput: the file cannot be written.
    """
    columns = [field.name for field in fields(VersusRow)]
    frame = pd.DataFrame([asdict(row) for row in found.rows], columns=columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, to_csv(frame))
    except OSError as error:
        raise InvalidInput("csv", f"{path} cannot be written: {error.strerror}") from None


def versus_json(found: Versus) -> dict[str, Any]:
    """Everything as plain values."""
    shape: dict[str, Any] = plain(
        {
            "a": str(found.a),
            "b": str(found.b),
            "renamed": found.renamed,
            "rows": [asdict(row) for row in found.rows],
            "only_a": [place._asdict() for place in found.only_a],
            "only_b": [place._asdict() for place in found.only_b],
            "runs": asdict(found.runs),
            "summary": versus_summary(found),
        }
    )
    return shape


def _difference(row: VersusRow) -> str:
    if row.low is None or row.high is None:
        return signed(row.difference)
    return f"{signed(row.difference)} [{signed(row.low)}, {signed(row.high)}]"


def _about_runs(found: Versus) -> Iterator[str]:
    runs = found.runs
    metrics = ", ".join(dict.fromkeys(row.metric for row in found.rows))
    yield f"A is {found.a}, B is {found.b}, by {metrics}"
    if found.renamed:
        yield "one model in each: {} of A is compared with {} of B".format(*found.renamed)
    for name, changes in (("experiment", runs.spec), ("made with", runs.provenance)):
        if changes:
            yield f"{name}: {_changes(changes)}"
    for side, images in (("A", runs.images_a), ("B", runs.images_b)):
        if images:
            yield f"only {side} has {count(len(images), 'image')}: {_some(images)}"
    for side, cells in (("A", runs.unfinished_a), ("B", runs.unfinished_b)):
        if cells:
            yield f"{side} is not finished: {count(cells, 'cell')} without a record"


def _about_rows(found: Versus) -> Iterator[str]:
    for side, places in (("A", found.only_a), ("B", found.only_b)):
        if places:
            names = _some([_name(place) for place in places])
            yield f"only {side} has {count(len(places), 'row')}: {names}"
    for side, left in (
        ("A", sum(row.only_a for row in found.rows)),
        ("B", sum(row.only_b for row in found.rows)),
    ):
        if left:
            yield f"left out: {count(left, 'value')} of an image that has one only in {side}"
    asked = [row.n for row in found.rows if row.n]
    if asked and least(max(asked)) * len(asked) >= LEVEL:
        images, rows = count(max(asked), "image"), count(len(asked), "row")
        yield f"too few: {images} cannot show any clear difference among {rows}"


def _changes(changes: Sequence[Change]) -> str:
    told = [f"{one.key} {_told(one.a)} → {_told(one.b)}" for one in changes[:MOST]]
    return "; ".join(told) + _rest(len(changes) - MOST)


def _told(value: str | None) -> str:
    return MISSING if value is None else value


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:FIRST]) + _rest(len(names) - FIRST)


def _rest(more: int) -> str:
    return f" and {more} more" if more > 0 else ""


def _name(place: Place) -> str:
    where = f"{place.model}, {place.explainer}, {attack_name(place)}"
    return f"{where}, ε = {budget(place.norm, place.epsilon)}, {place.metric}"
