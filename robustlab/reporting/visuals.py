"""Images that explainers of the whole model have made, for the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from robustlab.records import Problem, Store, VisualRecord
from robustlab.reporting import pictures
from robustlab.reporting.loading import Run
from robustlab.reporting.wording import number, percent


@dataclass(frozen=True)
class Shown:
    """One made image: its picture as a data URI and what the model says of it."""

    title: str
    said: str
    uri: str
    crisp: bool


@dataclass(frozen=True)
class Strip:
    """One explainer's images of one model."""

    explainer: str
    model: str
    images: tuple[Shown, ...]
    error: str


def strips(run: Run) -> tuple[list[Strip], list[Problem]]:
    """Every explainer's images in plan order, and pixels that could not be read."""
    found, problems = [], []
    for record in run.visuals:
        images: tuple[Shown, ...] = ()
        if record.outcome == "ok":
            try:
                images = tuple(_shown(Store(run.folder), record))
            except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
                path = Store(run.folder).visual_path(record.key, ".npz")
                problems.append(Problem(path, f"not the pixels of a record: {error}"))
        found.append(Strip(record.explainer, record.model, images, record.error))
    return found, problems


def _shown(store: Store, record: VisualRecord) -> Iterator[Shown]:
    with np.load(store.visual_path(record.key, ".npz"), allow_pickle=False) as file:
        pixels = file["images"]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(f"images: {pixels.dtype} {pixels.shape}")
    for row, picture in zip(record.images, pixels, strict=True):
        sure = "–" if row.confidence is None else percent(row.confidence)
        seen = "" if row.prediction == row.target else f", seen as {row.prediction_name}"
        yield Shown(
            title=row.target_name,
            said=f"logit {number(row.score)}, {sure}{seen}",
            uri=pictures.photograph(picture),
            crisp=max(picture.shape[:2]) <= pictures.SMALL,
        )
