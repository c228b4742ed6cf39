"""Trained networks as others want them: one weights file and one card each, under their labels."""

import json
from pathlib import Path
from typing import Any

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.lab.units import Trained
from robustlab.records import Store, TrainingRecord, atomic_write
from robustlab.records.store import KEY

PLACES = ("root", "path", "download")  # of data options: where the files are on one machine


def write_checkpoint(
    trained: Trained, record: TrainingRecord, experiment: str, store: Store, folder: Path
) -> Path:
    """Copy a trained model of the experiment to ``folder``, with its card; the file.

    Raises:
        InvalidInput: a label that is no file name.
    """
    label = trained.model.label
    if not KEY.fullmatch(label):
        raise InvalidInput("models", f"label {label!r} is no file name", "a-z, 0-9 and _")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}.safetensors"
    atomic_write(path, store.weights_path(trained.key).read_bytes())
    text = json.dumps(card(trained, record, experiment), indent=2, default=str) + "\n"
    atomic_write(path.with_suffix(".json"), text)
    return path


def card(trained: Trained, record: TrainingRecord, experiment: str) -> dict[str, Any]:
    """What was trained how on which data, how well it does, and what makes it again."""
    course = trained.course
    return {
        "model": trained.model.name,
        "model_options": _portable(trained.model.options),
        "data": course.data.name,
        "data_options": {k: v for k, v in course.data.options.items() if k not in PLACES},
        "train_images": record.train_images,
        "objective": {"name": course.objective.name, **options_of(trained.objective)},
        "start": course.start,
        "epochs": course.epochs,
        "batch_size": course.batch_size,
        "learning_rate": course.learning_rate,
        "decay": course.decay,
        "seed": course.seed,
        "passes_per_image": trained.objective.cost().gradient,
        "last_epoch": dict(record.history[-1]) if record.history else {},
        "held_out": record.held_out,
        "accuracy": record.accuracy_after,
        "weights": course.weights,
        "seconds": round(record.seconds, 1),
        "torch": record.provenance.get("versions", {}).get("torch"),
        "commit": record.provenance.get("commit"),
        "command": f"robustlab train {experiment} --checkpoints FOLDER",
        "sha256": record.sha256,
    }


def _portable(options: Any) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != "weights"}
