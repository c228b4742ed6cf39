"""The tidy table of saved images: one row per image, explainer, file format and metric."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Final

import pandas as pd

from robustlab.records import ImageOutcome, Role, RunRecord
from robustlab.records.record import IMAGE_OUTCOMES


@dataclass(frozen=True, kw_only=True)
class SavedMeasurement:
    """One value of an image that was saved in a file and opened again: a row of the table.

    ``survives`` repeats for each metric: it is about the image and the explainer.
    """

    model: str
    data: str
    image_id: str
    explainer: str
    attack: str
    norm: str
    epsilon: float
    seed: int
    file_format: str
    metric: str
    value: float | None
    prediction_kept: bool
    survives: bool | None
    role: Role
    against: str
    made_on: str


COLUMNS: Final = tuple(field.name for field in fields(SavedMeasurement))
TYPES: Final = {
    **dict.fromkeys(COLUMNS, "str"),
    "seed": "Int64",
    "epsilon": "float64",
    "value": "float64",
    "prediction_kept": "boolean",
    "survives": "boolean",
}


def saved_measurements(
    records: Iterable[RunRecord], outcomes: Container[ImageOutcome] = IMAGE_OUTCOMES
) -> Iterator[SavedMeasurement]:
    """All values of images with one of ``outcomes``, in the order of records, then image,
    explainer, file format and metric. An image that was not saved has no rows.
    """
    for record in records:
        cell = record.cell
        for image in record.images:
            for explainer in cell.explainers if image.outcome in outcomes else ():
                for file_format, saved in image.saved.items():
                    for metric in cell.metrics:
                        yield SavedMeasurement(
                            model=cell.model,
                            data=cell.data,
                            image_id=image.id,
                            explainer=explainer,
                            attack=cell.attack,
                            norm=cell.budget.ball,
                            epsilon=cell.budget.epsilon,
                            seed=cell.seed,
                            file_format=file_format,
                            metric=metric,
                            value=saved.values.get(explainer, {}).get(metric),
                            prediction_kept=saved.kept,
                            survives=saved.survives.get(explainer),
                            role=cell.role,
                            against=cell.against or "",
                            made_on=cell.made_on or "",
                        )


def saved_rows(records: Iterable[RunRecord]) -> pd.DataFrame:
    """The measurements as a data frame with the columns of ``saved.csv``."""
    table = [tuple(vars(item).values()) for item in saved_measurements(records)]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype(TYPES)
