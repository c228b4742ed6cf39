"""A results folder as reporting sees it: the plan, what was measured and what was not."""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from robustlab.reporting.results import Measurement, measurements
from robustlab.reporting.samples import Sample, samples
from robustlab.reporting.summary import SummaryRow, summarise


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

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """All values, in plan order; a large run has a million of them."""
        with _no_collector():
            return tuple(measurements(self.records))

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The same, sorted into groups."""
        return tuple(samples(self.measurements))

    @cached_property
    def summary(self) -> tuple[SummaryRow, ...]:
        """A row per group: means, intervals, floors and controls."""
        return tuple(summarise(self))

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


Source = Run | Path | str
"""A run, or the folder that it left: whoever writes several files reads the folder once."""


def load(source: Source) -> Run:
    """Read a results folder; a run that is read already is handed back.

    Raises:
        UnreadableResults: it holds no readable manifest.
    """
    if isinstance(source, Run):
        return source
    store = Store(source)
    manifest = store.manifest()
    with _no_collector():
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


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without looking for cycles among millions of values: there are none, and it takes time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
