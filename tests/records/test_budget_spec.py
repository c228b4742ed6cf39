"""The budget of a record: grids survive the disk, and files from before them still load."""

import json
from dataclasses import replace

import pytest

from robustlab.records import BudgetSpec, RunRecord
from robustlab.records.plain import dumps
from tests.records import examples


def stored(bits):
    """A record on that grid, as its file reads."""
    cell = replace(examples.cell(), budget=BudgetSpec(norm="linf", epsilon=2 / 255, bits=bits))
    record = RunRecord.crashed("k1", cell, "boom")
    return record, json.loads(dumps(record.to_dict()))


@pytest.mark.parametrize("bits", [None, 8])
def test_round_trip(bits):
    record, data = stored(bits)
    assert RunRecord.from_dict(data) == record
    assert RunRecord.from_dict(data).cell.budget.bits == bits


def test_files_from_before_have_no_bits_and_load_as_none():
    record, data = stored(None)
    del data["cell"]["budget"]["bits"]
    assert RunRecord.from_dict(data) == record


@pytest.mark.parametrize("bits", ["8", 8.5, True])
def test_other_bits_are_refused_by_name(bits):
    _, data = stored(8)
    data["cell"]["budget"]["bits"] = bits
    with pytest.raises(ValueError, match=r"cell\.budget\.bits: expected a whole number"):
        RunRecord.from_dict(data)


def test_a_misspelt_field_is_still_refused():
    _, data = stored(8)
    data["cell"]["budget"]["bitz"] = data["cell"]["budget"].pop("bits")
    with pytest.raises(ValueError, match=r"cell\.budget\.bitz: unknown field"):
        RunRecord.from_dict(data)


def test_budgets_that_differ_have_other_names_in_tables():
    assert BudgetSpec(norm="linf", epsilon=0.1).ball == "linf"
    assert BudgetSpec(norm="linf", epsilon=0.1, bits=8).ball == "linf/8bit"
