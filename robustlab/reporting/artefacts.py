"""The arrays that a cell left for the gallery, checked before anything is drawn."""

from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from robustlab.records import Problem, RunRecord, Store

TARGET = "maps_target"
NAMES = ("clean", "attacked", "difference", "maps_before", "maps_after")


@dataclass(frozen=True)
class Artefact:
    """Pictures ``[N,H,W,C]`` and maps ``[N,E,H,W]`` of a cell's first N images, in its order."""

    clean: NDArray[np.uint8]
    attacked: NDArray[np.uint8]
    difference: NDArray[np.floating[Any]]
    maps_before: NDArray[np.floating[Any]]
    maps_after: NDArray[np.floating[Any]]
    maps_target: NDArray[np.floating[Any]] | None = None  # what an imitation was after


def read_artefact(store: Store, record: RunRecord) -> Artefact | Problem:
    """The artefact of ``record``, or what is wrong with it."""
    path = store.artefact_path(record.key)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*NAMES, *({TARGET} & set(file.files)))}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        return Problem(path, f"not a gallery artefact: {error}")
    wrong = _wrong_shape(arrays, record)
    if wrong:
        return Problem(path, wrong)
    return Artefact(**arrays)


def _wrong_shape(arrays: dict[str, NDArray[Any]], record: RunRecord) -> str:
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.uint8 if name in NAMES[:2] else np.floating):
            return f"{name}: holds {array.dtype}"
    shape = arrays["clean"].shape
    most = len(record.cell.ids)  # an artefact may hold the first images of its cell only
    if len(shape) != 4 or shape[3] not in (1, 3) or not 1 <= shape[0] <= most:
        return f"clean: shape {shape}, expected [1 to {most},H,W,1 or 3]"
    for name in ("attacked", "difference"):
        if arrays[name].shape != shape:
            return f"{name}: shape {arrays[name].shape}, expected {shape}"
    maps = (shape[0], len(record.cell.explainers), *shape[1:3])
    for name in ("maps_before", "maps_after", *({TARGET} & set(arrays))):
        if arrays[name].shape != maps:
            return f"{name}: shape {arrays[name].shape}, expected {maps}"
    return ""
