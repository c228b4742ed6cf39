"""A record survives the disk bit for bit, and anything else is refused by name."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from robustlab.records import ImageRow, RunRecord
from robustlab.records.plain import dumps, plain
from tests.records import examples


@settings(max_examples=60, deadline=None)
@given(examples.records())
def test_round_trip_is_exact(record: RunRecord) -> None:
    assert RunRecord.from_dict(json.loads(dumps(record.to_dict()))) == record


def test_floats_keep_every_bit() -> None:
    value = math.nextafter(0.3, 1)
    row = examples.record().images[0]
    made = ImageRow(**{**vars(row), "id": "a", "values": {"gradient": {"spearman": value}}})
    record = examples.record(images=(made, examples.record().images[1]))
    back = RunRecord.from_dict(json.loads(dumps(record.to_dict())))
    assert back.images[0].values["gradient"]["spearman"] == value


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_what_is_not_a_number_becomes_null(odd: Any) -> None:
    assert plain({"a": [odd]}) == {"a": [None]}


def test_scalars_of_array_libraries_are_unwrapped() -> None:
    values = plain([np.float64(0.1), np.int64(3), np.bool_(True), np.float32(0.5)])
    assert values == [0.1, 3, True, 0.5]
    assert [type(value) for value in values] == [float, int, bool, float]


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="has no plain JSON form"):
        plain({"a": object()})


def test_a_crash_is_rows_without_values() -> None:
    record = RunRecord.crashed("k1", examples.cell(), "boom")
    assert [image.id for image in record.images] == ["a", "b"]
    assert {image.outcome for image in record.images} == {"crashed"}
    assert RunRecord.from_dict(json.loads(dumps(record.to_dict()))) == record


def test_a_crashed_image_may_leave_out_the_rest() -> None:
    data = RunRecord.crashed("k1", examples.cell(), "boom").to_dict()
    data["images"] = [{"id": name, "outcome": "crashed"} for name in ("a", "b")]
    assert RunRecord.from_dict(data) == RunRecord.crashed("k1", examples.cell(), "boom")


def _broken(change: Any) -> dict[str, Any]:
    data = examples.record().to_dict()
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "schema: this version reads 1, the file has 2"),
        (lambda d: d.pop("path"), "path: missing"),
        (lambda d: d.update(pathh=""), "pathh: unknown field"),
        (lambda d: d["cell"].update(role="foe"), "cell.role: expected attack or control or none"),
        (lambda d: d["cell"].update(seed=True), "cell.seed: expected a whole number, got True"),
        (lambda d: d["cell"].update(ids=["b", "a"]), "images: ids"),
        (lambda d: d["images"][1].update(kept=None), r"images\[1\].kept: expected true or false"),
        (lambda d: d["images"][1].pop("radius"), r"images\[1\].radius: missing"),
        (lambda d: d["images"][0].update(radius="x"), r"images\[0\].radius: expected a number"),
        (
            lambda d: d["images"][0].update(values={"lime": {"spearman": 1}}),
            r"images\[0\].values.lime: not in this cell",
        ),
        (
            lambda d: d["images"][0].update(values={"gradient": {"spaerman": 1}}),
            r"images\[0\].values.gradient.spaerman: not in this cell",
        ),
        (lambda d: d["passes"].update(forward=1.5), "passes.forward: expected a whole number"),
        (lambda d: d.update(cell=[]), "cell: expected an object"),
    ],
)
def test_refuses_by_name(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunRecord.from_dict(_broken(change))
