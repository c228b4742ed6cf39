"""What a run leaves on disk: one manifest and one small, reviewable file per cell.

Standard library only, so that records can be read anywhere.
"""

from robustlab.records.atomic import atomic_write
from robustlab.records.errors import OtherExperiment, UnreadableResults
from robustlab.records.manifest import (
    AttackInfo,
    ExplainerInfo,
    Manifest,
    MetricInfo,
    PlannedCell,
    PlannedTraining,
    PlannedVisual,
)
from robustlab.records.record import (
    REACHED,
    RERUN,
    SCHEMA,
    BudgetSpec,
    CellOutcome,
    CellSpec,
    ImageOutcome,
    ImageRow,
    PassCount,
    Role,
    RunRecord,
    SavedRow,
)
from robustlab.records.store import MANIFEST, Problem, Store
from robustlab.records.training import TrainingRecord
from robustlab.records.visual import VisualRecord, VisualRow

__all__ = [
    "MANIFEST",
    "REACHED",
    "RERUN",
    "SCHEMA",
    "AttackInfo",
    "BudgetSpec",
    "CellOutcome",
    "CellSpec",
    "ExplainerInfo",
    "ImageOutcome",
    "ImageRow",
    "Manifest",
    "MetricInfo",
    "OtherExperiment",
    "PassCount",
    "PlannedCell",
    "PlannedTraining",
    "PlannedVisual",
    "Problem",
    "Role",
    "RunRecord",
    "SavedRow",
    "Store",
    "TrainingRecord",
    "UnreadableResults",
    "VisualRecord",
    "VisualRow",
    "atomic_write",
]
