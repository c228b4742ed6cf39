"""The tidy table: its contract columns, its order, its bytes."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustlab import reporting
from robustlab.records import CellSpec, Store, UnreadableResults
from robustlab.reporting import Run
from tests.reporting import fixture

CONTRACT = (
    "model,data,image_id,label,prediction,explainer,attack,norm,epsilon,seed,metric,value,"
    "prediction_kept,radius,outcome"
)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(path.read_text())))


def test_the_contract_columns_come_first(folder: Path) -> None:
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert header.startswith(CONTRACT + ",against,role,control_of,")


def test_one_row_per_image_explainer_and_metric_of_every_planned_cell(
    folder: Path, run: Run
) -> None:
    expected = [
        (record.key, image, explainer, metric)
        for record in run.records
        for image in record.cell.ids
        for explainer in record.cell.explainers
        for metric in record.cell.metrics
    ]
    rows = read(folder / "results.csv")
    assert len(rows) == len(expected)
    assert [(row["image_id"], row["explainer"], row["metric"]) for row in rows] == [
        item[1:] for item in expected
    ]


def test_a_crashed_cell_is_rows_without_values(folder: Path) -> None:
    crashed = [row for row in read(folder / "results.csv") if row["outcome"] == "crashed"]
    assert len(crashed) == 4 * len(fixture.METRICS)
    assert {(row["value"], row["prediction"], row["prediction_kept"]) for row in crashed} == {
        ("", "", "")
    }


def test_values_read_back_exactly(folder: Path, run: Run) -> None:
    stored = [
        image.values.get(explainer, {}).get(metric)
        for record in run.records
        for image in record.images
        for explainer in record.cell.explainers
        for metric in record.cell.metrics
    ]
    shown = [row["value"] for row in read(folder / "results.csv")]
    assert [float(text) if text else None for text in shown] == stored


def test_whole_numbers_and_flags_stay_so_beside_missing_ones(folder: Path) -> None:
    row = read(folder / "results.csv")[0]
    assert (row["label"], row["prediction"], row["prediction_kept"]) == ("0", "0", "True")


def _written(folder: Path, order: Sequence[CellSpec], plan: Sequence[CellSpec]) -> bytes:
    store = Store(folder)
    store.claim(fixture.manifest(plan))
    for i, cell in enumerate(order):
        store.write(fixture.record(cell, seconds=float(i)))
    return reporting.write_results(folder).read_bytes()


def test_bytes_do_not_depend_on_the_order_or_time_of_cells(tmp_path: Path) -> None:
    plan = fixture.cells(seeds=(0, 1))
    first = _written(tmp_path / "a", plan, plan)
    assert _written(tmp_path / "b", plan[::-1], plan) == first
    assert b"\r" not in first


def test_pandas_reads_it(folder: Path) -> None:
    frame = pd.read_csv(folder / "results.csv")
    attacked = frame.query("attack == 'top_k' and outcome == 'ok'")
    assert attacked["value"].notna().all()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResults, match=r"experiment\.json"):
        reporting.write_results(tmp_path)


def test_a_label_that_nobody_explained_is_refused(tmp_path: Path) -> None:
    plan = fixture.cells()
    metrics: dict[str, Any] = fixture.manifest(plan)["metrics"]
    del metrics["spearman"]
    fixture.build(tmp_path, plan, metrics=metrics)
    with pytest.raises(UnreadableResults, match="metrics does not describe 'spearman'"):
        reporting.load(tmp_path)
