"""An experiment that takes a second: digits, two explainers, three attacks, two metrics."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from robustlab.core.batch import Batch
from robustlab.core.judge import pose
from robustlab.core.types import Explainer, Problem
from robustlab.lab.spec import ExperimentSpec, parse_spec

TINY: dict[str, Any] = {
    "question": "Does the lab work?",
    "models": ["small_cnn"],
    "data": {"name": "mnist_5k"},
    "images": 5,
    "chunk": 2,
    "explainers": ["gradient", "grad_cam"],
    "attacks": [
        "none",
        {"name": "pgd", "steps": 2},
        {"name": "top_k", "k": 20, "steps": 2},
    ],
    "budgets": [{"norm": "linf", "epsilon": [0.1]}],
    "metrics": [{"name": "top_k_intersection", "k": 50}, "spearman"],
    "gallery": {"images": 2},
    "saving": [],
}
CHUNKS = 3
TIMES = ("seconds", "attack_seconds", "provenance")
CELLS = CHUNKS * (1 + 1 + 1 + 2 + 2)  # none, pgd and its control, top_k and its control twice


def raw(**changes: Any) -> dict[str, Any]:
    """The plain values of the file, with top-level keys replaced."""
    return copy.deepcopy({"name": "tiny", **TINY, **changes})


def spec(**changes: Any) -> ExperimentSpec:
    return parse_spec(raw(**changes))


def write(path: Path, **changes: Any) -> Path:
    """The experiment as a file."""
    values = {key: value for key, value in raw(**changes).items() if key != "name"}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def numbers(folder: Path) -> dict[str, dict[str, Any]]:
    """Every stored record by its key, without what may differ from run to run."""
    records = {}
    for path in sorted((folder / "cells").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        records[path.stem] = {k: v for k, v in record.items() if k not in TIMES}
    return records


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and its time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def problem(model: nn.Module, explainer: Explainer, batch: Batch, *, seed: int = 0) -> Problem:
    """What the lab poses of a batch, with a seed."""
    return pose(model, explainer, batch, seed=seed)
