"""A results folder: one manifest, one file per finished cell.

The store only ever adds or replaces whole files, so several processes may write to it,
and a run that was killed goes on from whatever cells are there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from robustlab.records.atomic import atomic_write, remove_leftovers
from robustlab.records.errors import OtherExperiment, UnreadableResults
from robustlab.records.manifest import Manifest
from robustlab.records.plain import dumps
from robustlab.records.record import RunRecord
from robustlab.records.training import TrainingRecord
from robustlab.records.visual import VisualRecord

R = TypeVar("R", RunRecord, VisualRecord, TrainingRecord)
MANIFEST: Final = "experiment.json"
KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Problem:
    """A file that was left aside, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Store:
    """The files of one experiment under one folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.cells = self.folder / "cells"
        self.visuals = self.folder / "visuals"
        self.trainings = self.folder / "models"

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r})"

    def claim(self, manifest: Mapping[str, Any]) -> bool:
        """Make this the folder of ``manifest``; True where it goes on from an earlier run.

        Raises:
            OtherExperiment: the folder holds a manifest with another fingerprint.
            UnreadableResults: the folder is a file, or its manifest cannot be read.
            ValueError: ``manifest`` itself is not one; the message names the field.
        """
        wanted = Manifest.from_dict(manifest)
        for cell in wanted.plan:
            self.record_path(cell.key)
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UnreadableResults(self.folder, "is not a folder; choose another --out") from None
        remove_leftovers(self.folder)
        remove_leftovers(self.cells)
        remove_leftovers(self.visuals)
        remove_leftovers(self.trainings)
        text = dumps(manifest)
        try:
            atomic_write(self._manifest_path, text, replace=False)
        except FileExistsError:
            return self._resume(wanted, text)
        return False

    def manifest(self) -> Manifest:
        """What was planned here.

        Raises:
            UnreadableResults: there is no manifest, or it cannot be read.
        """
        path = self._manifest_path
        if not path.is_file():
            remedy = "give the folder that `robustlab run … --out` wrote"
            raise UnreadableResults(self.folder, f"holds no {MANIFEST}; {remedy}")
        try:
            return Manifest.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UnreadableResults(path, f"not a manifest: {error}") from None

    def write(self, record: RunRecord) -> Path:
        """Store ``record`` under its key, replacing an earlier one; returns the file."""
        path = self.record_path(record.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, dumps(record.to_dict()))
        return path

    def read(self, key: str) -> RunRecord | None:
        """The record of ``key``; None where there is none or it cannot be read."""
        record, _ = self._load(self.record_path(key), RunRecord)
        return record

    def load_all(self) -> tuple[list[RunRecord], list[Problem]]:
        """Every readable record in plan order, and every file that had to be left aside.

        A cell without a file is simply not there yet; a cell whose file is broken is a
        problem and counts as missing, so that a run computes it again.

        Raises:
            UnreadableResults: there is no readable manifest.
        """
        records, problems = [], []
        planned = [cell.key for cell in self.manifest().plan]
        for key in planned:
            record, problem = self._load(self.record_path(key), RunRecord)
            if record is not None:
                records.append(record)
            if problem is not None:
                problems.append(problem)
        strays = (path for path in sorted(self.cells.glob("*.json")) if path.stem not in planned)
        reason = "not in the plan of this experiment, perhaps from before a file changed"
        problems += [Problem(path, reason) for path in strays]
        return records, problems

    def write_visual(self, record: VisualRecord, images: bytes | None) -> Path:
        """Store what an explainer made of a model, pixels first; returns the record's file."""
        self.visuals.mkdir(parents=True, exist_ok=True)
        if images is not None:
            atomic_write(self.visual_path(record.key, ".npz"), images)
        path = self.visual_path(record.key)
        atomic_write(path, dumps(record.to_dict()))
        return path

    def load_visuals(self) -> tuple[list[VisualRecord], list[Problem]]:
        """As `load_all`, for the images that were made of whole models."""
        found = [
            self._load(self.visual_path(visual.key), VisualRecord)
            for visual in self.manifest().visuals
        ]
        return [r for r, _ in found if r is not None], [p for _, p in found if p is not None]

    def write_training(self, record: TrainingRecord) -> Path:
        """Store what came of a training; its weights are there already."""
        self.trainings.mkdir(parents=True, exist_ok=True)
        path = self._path(record.key, ".json", self.trainings)
        atomic_write(path, dumps(record.to_dict()))
        return path

    def read_training(self, key: str) -> TrainingRecord | None:
        """What came of a training; None where there is no record or it cannot be read."""
        return self._load(self._path(key, ".json", self.trainings), TrainingRecord)[0]

    def load_trainings(self) -> tuple[list[TrainingRecord], list[Problem]]:
        """As `load_all`, for the networks that were trained."""
        found = [
            self._load(self._path(planned.key, ".json", self.trainings), TrainingRecord)
            for planned in self.manifest().trainings
        ]
        return [r for r, _ in found if r is not None], [p for _, p in found if p is not None]

    def weights_path(self, key: str) -> Path:
        """Where the weights of a trained network are or will be."""
        return self._path(key, ".safetensors", self.trainings)

    def record_path(self, key: str) -> Path:
        """Where the record of ``key`` is or will be."""
        return self._path(key, ".json")

    def artefact_path(self, key: str) -> Path:
        """Where the pictures and maps of ``key`` are or will be, for the gallery."""
        return self._path(key, ".npz")

    def visual_path(self, key: str, suffix: str = ".json") -> Path:
        """Where a visual's record or, as .npz, its pixels are or will be."""
        return self._path(key, suffix, self.visuals)

    @property
    def _manifest_path(self) -> Path:
        return self.folder / MANIFEST

    def _path(self, key: str, suffix: str, folder: Path | None = None) -> Path:
        if not KEY.fullmatch(key):  # a key becomes a file name and must stay in the folder
            raise ValueError(f"key: {key!r} is not made of letters, digits, '_', '-' and '.'")
        return (folder or self.cells) / f"{key}{suffix}"

    def _load(self, path: Path, kind: type[R]) -> tuple[R | None, Problem | None]:
        try:
            record = kind.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None, None
        except (OSError, ValueError, RecursionError) as error:
            return None, Problem(path, f"not a run record: {error}")
        if record.key != path.stem:
            return None, Problem(path, f"holds the record of another cell, {record.key!r}")
        return record, None

    def _resume(self, wanted: Manifest, text: str) -> bool:
        found = self.manifest()
        if found.fingerprint != wanted.fingerprint:
            raise OtherExperiment(self.folder, found.name)
        if self._manifest_path.read_text(encoding="utf-8") != text:
            # newer words about the same numbers, or other keys since a picture has changed
            atomic_write(self._manifest_path, text)
        return True
