"""The tidy table: its contract columns, its order, its bytes."""

import csv
import gc
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustlab import reporting
from robustlab.records import CellSpec, Store, UnreadableResults
from robustlab.reporting import Run
from robustlab.reporting.results import COLUMNS, TYPES, measurements, results_csv
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


def test_the_fast_writer_gives_the_bytes_of_pandas(rich: Run) -> None:
    first = rich.measurements[0]
    odd = (
        first._replace(image_id='comma, "quote"\nand line', attack="", value=-0.0, radius=None),
        first._replace(value=1e-7, epsilon=1e22, confidence=0.1 + 0.2, prediction_kept=None),
        first._replace(label=-1, prediction=None, target=None, chance=5e-324, cautions="a; é\t'"),
    )
    for found in (rich.measurements, odd):
        frame = pd.DataFrame(list(found), columns=list(COLUMNS)).astype(TYPES)
        assert results_csv(found) == reporting.to_csv(frame)
    naive = "".join(",".join(map(str, item)) + "\n" for item in odd)  # canary
    assert not results_csv(odd).endswith(naive)


def test_only_values_of_the_outcomes_that_are_asked_for(run: Run) -> None:
    every = list(measurements(run.records))
    for outcomes in (("ok",), ("infeasible", "crashed"), ()):
        asked = list(measurements(run.records, outcomes))
        assert asked == [item for item in every if item.outcome in outcomes]
    assert {item.outcome for item in every} > {"ok"}  # there is something to leave out


def test_a_folder_is_read_once_for_all_files(
    rich_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(rich_folder, copy)
    read = []
    load_all = Store.load_all
    monkeypatch.setattr(Store, "load_all", lambda self: read.append(self.folder) or load_all(self))
    written = reporting.write_all(copy)
    assert read == [copy]
    for path in written:
        assert path.read_bytes() == (rich_folder / path.name).read_bytes()
    run = reporting.load(copy)
    assert reporting.load(run) is run
    assert reporting.short_table(run) == reporting.short_table(rich_folder)
    assert read == [copy, copy, rich_folder]  # canary: a folder is read again


def test_reading_leaves_the_collector_as_it_was(folder: Path, tmp_path: Path) -> None:
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            assert reporting.load(folder).measurements
            with pytest.raises(UnreadableResults):
                reporting.load(tmp_path)
            assert gc.isenabled() == on
        finally:
            gc.enable()


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
