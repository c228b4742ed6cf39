"""The tidy table: one row per image, explainer and metric of every cell."""

import csv
from collections.abc import Container, Iterable, Iterator
from io import StringIO
from typing import Final, NamedTuple

import pandas as pd

from robustlab.records import ImageOutcome, ImageRow, Role, RunRecord
from robustlab.records.record import IMAGE_OUTCOMES


class Measurement(NamedTuple):
    """One value, with everything that says what it is a value of: a row of the table.

    The columns up to ``outcome`` are the ones that users rely on, first and in this order.
    ``made_on`` is empty where the attack looked at the judged model itself.
    """

    model: str
    data: str
    image_id: str
    label: int
    prediction: int | None
    explainer: str
    attack: str
    norm: str
    epsilon: float
    seed: int
    metric: str
    value: float | None
    prediction_kept: bool | None
    radius: float | None
    outcome: ImageOutcome
    against: str
    role: Role
    control_of: str
    label_name: str
    prediction_after: int | None
    confidence: float | None
    confidence_after: float | None
    target: int | None
    chance: float | None
    made_on: str
    cautions: str


COLUMNS: Final = Measurement._fields

_WHOLE: Final = ("label", "prediction", "seed", "prediction_after", "target")
_REAL: Final = ("epsilon", "value", "radius", "confidence", "confidence_after", "chance")
TYPES: Final = {
    **dict.fromkeys(COLUMNS, "str"),
    **dict.fromkeys(_WHOLE, "Int64"),  # unlike int64, it can say "unknown"
    **dict.fromkeys(_REAL, "float64"),
    "prediction_kept": "boolean",
}


def measurements(
    records: Iterable[RunRecord], outcomes: Container[ImageOutcome] = IMAGE_OUTCOMES
) -> Iterator[Measurement]:
    """All values of images with one of ``outcomes``, in the order of ``records``, then image,
    explainer and metric.

    A value that does not exist, because the cell crashed or the map diverged, is None in
    a row that is there.
    """
    for record in records:
        for image in record.images:
            for explainer in record.cell.explainers if image.outcome in outcomes else ():
                for metric in record.cell.metrics:
                    yield _measurement(record, image, explainer, metric)


def rows(records: Iterable[RunRecord]) -> pd.DataFrame:
    """The measurements as a data frame with the columns of ``results.csv``."""
    return pd.DataFrame(list(measurements(records)), columns=list(COLUMNS)).astype(TYPES)


def results_csv(found: Iterable[Measurement]) -> str:
    """``results.csv``: the text of ``to_csv(rows(…))``, several times as fast."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(found)
    return text.getvalue()


def to_csv(frame: pd.DataFrame) -> str:
    """CSV text with Unix line ends; floats as the shortest text that reads back exactly."""
    text = StringIO()
    frame.to_csv(text, index=False, lineterminator="\n")
    return text.getvalue()


def _measurement(record: RunRecord, image: ImageRow, explainer: str, metric: str) -> Measurement:
    cell = record.cell
    return Measurement(
        model=cell.model,
        data=cell.data,
        image_id=image.id,
        label=image.label,
        prediction=image.prediction,
        explainer=explainer,
        attack=cell.attack,
        norm=cell.budget.ball,
        epsilon=cell.budget.epsilon,
        seed=cell.seed,
        metric=metric,
        value=image.values.get(explainer, {}).get(metric),
        prediction_kept=image.kept,
        radius=image.radius,
        outcome=image.outcome,
        against=cell.against or "",
        role=cell.role,
        control_of=cell.control_of or "",
        label_name=image.label_name,
        prediction_after=image.prediction_after,
        confidence=image.confidence,
        confidence_after=image.confidence_after,
        target=image.target,
        chance=image.chance.get(explainer, {}).get(metric),
        made_on=cell.made_on or "",
        cautions="; ".join(image.cautions),
    )
