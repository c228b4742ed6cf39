"""What is left of a disturbed picture, and of its moved maps, in a file."""

from collections.abc import Mapping, Sequence

from robustlab.core.judge import Trial, saved
from robustlab.core.types import Metric, OneMapMetric, Problem
from robustlab.lab.measuring import afterwards, explained, values_of
from robustlab.lab.origins import data_of, load_data
from robustlab.lab.units import Cell
from robustlab.records import ImageRow, SavedRow

# the metric that says how far a map has moved, under its label
Drift = tuple[str, Metric]


def saved_rows(
    cell: Cell, judged: Problem, clean: Sequence[Problem], trial: Trial, rows: Sequence[ImageRow]
) -> list[dict[str, SavedRow]]:
    """Per image: what is left of it, and of the moved maps, in each of the cell's file formats."""
    found: list[dict[str, SavedRow]] = [{} for _ in rows]
    if not cell.saving or judged.images.shape[1] not in (1, 3):
        return found
    dataset, drift = load_data(data_of(cell)), _first_drift(cell)
    labels = [m.label for m in cell.measured]
    unmoved = [_unmoved(p, drift) for p in clean]
    for file_format in cell.saving:
        files = saved(judged, trial, file_format)
        after = explained(cell, judged, clean, files)
        numbers = [
            values_of(cell, p.maps, afterwards(m, p, judged.model, files, maps), dataset)
            for m, p, maps in zip(cell.measured, clean, after, strict=True)
        ]
        for i, row in enumerate(rows):
            values = {
                label: {metric: v[i] for metric, v in own.items()}
                for label, own in zip(labels, numbers, strict=True)
            }
            kept = bool(files.prediction_kept[i])
            found[i][file_format] = SavedRow(
                kept=kept,
                values=values,
                survives={
                    label: _survives(drift, row.values[label], values[label], still[i])
                    if kept == row.kept
                    else False
                    for label, still in zip(labels, unmoved, strict=True)
                },
            )
    return found


def _first_drift(cell: Cell) -> Drift | None:
    """The first metric of two maps; None if all are about one."""
    for label, metric in cell.metrics.items():
        if not isinstance(metric, OneMapMetric):
            return label, metric
    return None


def _unmoved(problem: Problem, drift: Drift | None) -> list[float]:
    """What the drift is of a map that has not moved, per image."""
    maps = problem.maps
    return [0.0] * len(maps) if drift is None else drift[1](maps, maps).tolist()


def _survives(
    drift: Drift | None,
    attacked: Mapping[str, float | None],
    again: Mapping[str, float],
    still: float,
) -> bool | None:
    """Is at least half of a map's movement left? None where there was none, or no measure."""
    if drift is None:
        return None
    label, _ = drift
    moved = abs((attacked[label] or 0.0) - still)
    return abs(again[label] - still) >= moved / 2 if moved > 0 else None
