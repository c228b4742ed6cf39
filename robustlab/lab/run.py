"""Running an experiment: claim the folder, run what is missing, write the results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab import reporting
from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.tables import options_of
from robustlab.lab.cell import frozen, load_data
from robustlab.lab.executors import Executor, default_workers, execute
from robustlab.lab.plan import Cell, Plan, make_plan
from robustlab.lab.preflight import located, preflight
from robustlab.lab.provenance import provenance
from robustlab.lab.spec import ExperimentSpec
from robustlab.records import OtherExperiment, RunRecord, Store, atomic_write


@dataclass(frozen=True)
class Outcome:
    """What a run did: where, how many cells in all, how many were there already, what failed."""

    folder: Path
    cells: int
    resumed: int
    crashed: tuple[tuple[str, str], ...]  # (attack and images, reason)
    problems: tuple[str, ...]  # record files that were unreadable and computed again
    skipped: tuple[tuple[str, str], ...]  # pictures that could not be read


class Watcher:
    """Told how a run goes; the command line shows a progress bar. This one is silent."""

    def start(self, plan: Plan, todo: Sequence[Cell], problems: Sequence[str]) -> None:
        """The plan is made and ``todo`` is what remains of it."""

    def done(self, cell: Cell, record: RunRecord) -> None:
        """One more cell is stored."""

    def finish(self) -> None:
        """All is over, well or not."""


def prepare(spec: ExperimentSpec, *, device: str = "cpu") -> tuple[Plan, Any]:
    """Plan and preflight; returns the plan and the data set.

    Raises:
        InvalidInput: anything in the spec that cannot work, before any work is done.
    """
    check_device(device)
    with located("data", spec.data.shown):
        dataset = load_data(spec.data.name, frozen(spec.data.options))
    plan = make_plan(spec, dataset, device=device)
    preflight(plan, dataset)
    return plan, dataset


def run_experiment(
    spec: ExperimentSpec,
    folder: Path | str,
    *,
    device: str = "cpu",
    workers: int | None = None,
    executor: Executor = "local",
    watcher: Watcher | None = None,
    order: Callable[[Sequence[Cell]], Sequence[Cell]] | None = None,
) -> Outcome:
    """Run every cell that has no readable record yet, then write tables and pages.

    A killed run goes on where it stopped. Neither the order of cells nor the number of
    workers changes a byte of ``results.csv``.

    Raises:
        InvalidInput: a mistake in the spec, or a folder that holds another experiment.
        RobustlabError: a worker process died; finished cells are stored.
    """
    plan, dataset = prepare(spec, device=device)
    watcher = watcher or Watcher()
    store = Store(folder)
    try:
        store.claim(manifest(plan, dataset.skipped))
    except OtherExperiment as error:
        raise InvalidInput("--out", str(error)) from None
    except OSError as error:
        raise InvalidInput("--out", f"{folder} cannot be written: {error}") from None
    records, problems = store.load_all()
    finished = {record.key for record in records if record.outcome == "ok"}
    todo = [cell for cell in plan.cells if cell.key not in finished]
    todo = list(order(todo)) if order else todo
    watcher.start(plan, todo, [str(p) for p in problems])
    crashed: list[tuple[str, str]] = []
    try:
        count = workers or default_workers(len(todo), device)
        for cell, record in execute(todo, str(folder), workers=count, executor=executor):
            if record.outcome != "ok":
                crashed.append((f"{cell.waged.label} on {', '.join(cell.ids)}", record.error))
            watcher.done(cell, record)
    finally:
        watcher.finish()
    write_outputs(Path(folder), device)
    return Outcome(
        folder=Path(folder),
        cells=len(plan.cells),
        resumed=len(plan.cells) - len(todo),
        crashed=tuple(crashed),
        problems=tuple(str(p) for p in problems),
        skipped=dataset.skipped,
    )


def write_outputs(folder: Path, device: str) -> None:
    """results.csv, summary.csv, provenance.json, report.html and gallery.html."""
    facts = json.dumps(provenance(device), indent=2, sort_keys=True)
    atomic_write(folder / "provenance.json", facts + "\n")
    reporting.write_all(folder)


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or does not have."""
    import torch

    try:
        torch.zeros(1, device=device).item()  # "meta" exists but holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput("--device", f"{device!r} cannot be used: {reason}", "try cpu") from None


def manifest(plan: Plan, skipped: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """What `experiment.json` says: the plan, and a card for every label in it."""
    spec = plan.spec
    return {
        "schema": 1,
        "name": spec.name,
        "question": spec.question,
        "fingerprint": plan.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "skipped": [list(item) for item in skipped],
        "plan": [
            {
                "key": cell.key,
                "attack": cell.waged.label,
                "role": cell.waged.role,
                "against": cell.against.label if cell.against else None,
                "epsilon": cell.budget.epsilon,
                "norm": cell.budget.norm,
                "model": cell.model_label,
                "images": len(cell.ids),
                "seed": cell.seed,
            }
            for cell in plan.cells
        ],
        "models": [{"name": m.shown, "options": m.options} for m in spec.models],
        "metrics": {
            label: {
                "name": metric.name,
                "higher_is_more_stable": metric.higher_is_more_stable,
                "bounds": [_finite(b) for b in metric.bounds],
                "summary": summary_of(type(metric)),
                "options": options_of(metric),
            }
            for label, metric in plan.metrics.items()
        },
        "explainers": {
            m.label: {
                "name": m.name,
                "options": {**_without(options_of(m.explainer), "post"), "target": m.target},
                "post": m.explainer.post,
                "summary": summary_of(type(m.explainer)),
            }
            for m in plan.measured
        },
        "attacks": {
            w.label: {
                "name": w.name,
                "options": _without(options_of(w.attack), "like"),
                "role": w.role,
                "control_of": w.control_of,
                "against": w.against or None,
                "summary": summary_of(type(w.attack)),
            }
            for w in plan.waged
        },
        "primary_metric": next(iter(plan.metrics)),
    }


def summary_of(cls: type) -> str:
    """The first paragraph of a component's docstring, as one line."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def _finite(bound: float) -> float | None:
    return bound if abs(bound) != float("inf") else None


def _without(options: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != key}


__all__ = ["Outcome", "RobustlabError", "Watcher", "manifest", "prepare", "run_experiment"]
