"""A results folder as reporting sees it: the plan, what was measured and what was not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from robustlab.records import (
    MANIFEST,
    Manifest,
    PlannedCell,
    Problem,
    RunRecord,
    Store,
    TrainingRecord,
    UnreadableResults,
    VisualRecord,
)


@dataclass(frozen=True)
class Run:
    """Everything a table, figure or page is made from.

    Attributes:
        records: in plan order, whatever order the cells ran in.
        problems: files that had to be left aside.
        missing: planned cells without a record.
        visuals: what explainers of whole models have made, in plan order.
        trainings: networks that were trained, in plan order.
    """

    folder: Path
    manifest: Manifest
    records: tuple[RunRecord, ...]
    problems: tuple[Problem, ...]
    missing: tuple[PlannedCell, ...]
    visuals: tuple[VisualRecord, ...] = ()
    trainings: tuple[TrainingRecord, ...] = ()

    @property
    def crashed(self) -> tuple[RunRecord, ...]:
        return tuple(record for record in self.records if record.outcome == "crashed")

    @property
    def passes(self) -> Mapping[str, int]:
        """Whole-model passes of one image, over all cells."""
        counts = [*(r.passes for r in self.records), *(v.passes for v in self.visuals)]
        return {
            "forward": sum(count.forward for count in counts),
            "backward": sum(count.backward for count in counts),
        }


def load(folder: Path | str) -> Run:
    """Read a results folder.

    Raises:
        UnreadableResults: it holds no readable manifest.
    """
    store = Store(folder)
    manifest = store.manifest()
    records, problems = store.load_all()
    done = {record.key for record in records}
    missing = tuple(cell for cell in manifest.plan if cell.key not in done)
    _check_labels(store.folder / MANIFEST, manifest, records)
    visuals, broken = store.load_visuals()
    trainings, unread = store.load_trainings()
    return Run(
        store.folder,
        manifest,
        tuple(records),
        (*problems, *broken, *unread),
        missing,
        tuple(visuals),
        tuple(trainings),
    )


def _check_labels(path: Path, manifest: Manifest, records: Iterable[RunRecord]) -> None:
    """Every label in a record must be explained by the manifest, or no table can be read."""
    if manifest.primary_metric not in manifest.metrics:
        raise UnreadableResults(path, f"primary_metric {manifest.primary_metric!r} is not a metric")
    for record in records:
        cell = record.cell
        for kind, labels, known in (
            ("metrics", cell.metrics, manifest.metrics),
            ("explainers", cell.explainers, manifest.explainers),
            ("attacks", (cell.attack,), manifest.attacks),
        ):
            for label in labels:
                if label not in known:
                    raise UnreadableResults(path, f"{kind} does not describe {label!r}")
