"""Running an experiment: claim the folder, run what is missing, write the results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustlab import reporting
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.progress import Watch
from robustlab.data import Dataset
from robustlab.lab.checkpoints import write_checkpoint
from robustlab.lab.executors import Executor, Record, default_workers, execute
from robustlab.lab.fine_tuning import run_fine_tuning
from robustlab.lab.manifest import manifest
from robustlab.lab.origins import Origin, frozen, load_data
from robustlab.lab.plan import make_plan
from robustlab.lab.preflight import check_courses, located, preflight
from robustlab.lab.provenance import provenance
from robustlab.lab.spec import ExperimentSpec
from robustlab.lab.training import run_training
from robustlab.lab.units import Cell, FineTuned, Plan, Trained, Unit
from robustlab.records import OtherExperiment, Store, TrainingRecord, atomic_write


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

    def start(self, plan: Plan, todo: Sequence[Unit], problems: Sequence[str]) -> None:
        """The plan is made and ``todo`` is what remains of it."""

    def done(self, unit: Unit, record: Record) -> None:
        """One more record is stored."""

    def finish(self) -> None:
        """All is over, well or not."""


def prepare(spec: ExperimentSpec, *, device: str = "cpu") -> tuple[Plan, Dataset]:
    """Plan and preflight; returns the plan and the data set.

    Raises:
        InvalidInput: anything in the spec that cannot work, before any work is done.
    """
    check_device(device)
    load_data.cache_clear()  # its files may have changed since this process last looked
    with located("data", spec.data.shown):
        dataset = load_data(Origin(spec.data.name, frozen(spec.data.options)))
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
    order: Callable[[Sequence[Unit]], Sequence[Unit]] | None = None,
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
    store = _claimed(folder, plan, dataset)
    records, problems = store.load_all()
    made, broken = store.load_visuals()
    problems = [*problems, *broken]
    stored: tuple[Record, ...] = (*records, *made)
    finished = {record.key for record in stored if record.outcome == "ok"}
    units: tuple[Unit, ...] = (*plan.cells, *plan.visuals)
    todo = [unit for unit in units if unit.key not in finished]
    todo = list(order(todo)) if order else todo
    waves = [wave for wave in (*_untrained(plan, todo, store), todo) if wave]
    work = [unit for wave in waves for unit in wave]
    check_courses(work)
    # a record from before a file changed stays on disk, but is nothing to compute again
    planned = {unit.key for unit in units}
    unreadable = [str(p) for p in problems if p.path.stem in planned]
    watcher.start(plan, work, unreadable)
    crashed: list[tuple[str, str]] = []
    count = workers or default_workers(max(map(len, waves), default=1), device)
    try:
        for unit, record in execute(waves, str(folder), workers=count, executor=executor):
            if record.outcome == "crashed":
                crashed.append((unit.title, record.error))
            watcher.done(unit, record)
    finally:
        watcher.finish()
    write_outputs(Path(folder), device)
    return Outcome(
        folder=Path(folder),
        cells=len(units),
        resumed=len(units) - len(todo),
        crashed=tuple(crashed),
        problems=tuple(unreadable),
        skipped=dataset.skipped,
    )


def train_networks(
    spec: ExperimentSpec,
    folder: Path | str,
    *,
    device: str = "cpu",
    watch: Callable[[Trained | FineTuned], Watch] | None = None,
    checkpoints: Path | None = None,
    only: Sequence[str] = (),
) -> list[TrainingRecord]:
    """Only train what the experiment trains; `run_experiment` goes on from there.

    ``watch`` is asked for each network, and then told after every step of its training. In
    ``checkpoints``, a folder, each of the experiment's own models is left under its label, with
    a card. ``only`` names models by label: those are trained, and what they go on from.

    Raises:
        InvalidInput: as `run_experiment`, and of an experiment that trains nothing.
    """
    plan, dataset = prepare(spec, device=device)
    if not plan.trainings:
        raise InvalidInput("name", f"{spec.name!r} trains no network", "run it")
    store = _claimed(folder, plan, dataset)
    chosen = _chosen(plan, only)
    check_courses([unit for unit in chosen if not _is_trained(unit.key, store)])
    for unit in chosen:
        if not _is_trained(unit.key, store):
            told = watch(unit) if watch else None
            work = run_training if isinstance(unit, Trained) else run_fine_tuning
            work(unit, str(folder), told)  # type: ignore[arg-type]
        record = store.read_training(unit.key)
        done = record is not None and record.outcome != "crashed"
        if checkpoints is not None and isinstance(unit, Trained) and record is not None and done:
            write_checkpoint(unit, record, spec.name, store, checkpoints)
    return store.load_trainings()[0]


def _chosen(plan: Plan, only: Sequence[str]) -> list[Trained | FineTuned]:
    """The trainings of these models, and those that they go on from; all where none is named."""
    known = [unit.model.label for unit in plan.trainings]
    for label in only:
        if label not in known:
            raise InvalidInput(
                "--only", f"no trained model is labelled {label!r}", nearest(label, known)
            )
    wanted = {unit.key for unit in plan.trainings if not only or unit.model.label in only}
    for unit in reversed(plan.trainings):  # what a network goes on from comes before it
        if unit.key in wanted:
            wanted.update(needed(unit))
    return [unit for unit in plan.trainings if unit.key in wanted]


def _claimed(folder: Path | str, plan: Plan, dataset: Dataset) -> Store:
    store = Store(folder)
    try:
        store.claim(manifest(plan, dataset.skipped))
    except OtherExperiment as error:
        raise InvalidInput("--out", str(error)) from None
    except OSError as error:
        raise InvalidInput("--out", f"{folder} cannot be written: {error}") from None
    return store


def _untrained(plan: Plan, todo: Sequence[Unit], store: Store) -> list[list[Unit]]:
    """The networks that are wanted and not there yet, in waves: each needs only earlier ones."""
    by_key = {unit.key: unit for unit in plan.trainings}
    depth: dict[str, int] = {}

    def want(key: str) -> int:
        """How many waves come before this network is there."""
        if key not in by_key or _is_trained(key, store):
            return 0
        if key not in depth:
            depth[key] = 1 + max(map(want, needed(by_key[key])), default=0)
        return depth[key]

    for unit in todo:
        for key in needed(unit):
            want(key)
    for training in plan.trainings:
        if isinstance(training, Trained) and training.for_itself:
            want(training.key)
    waves: list[list[Unit]] = [[] for _ in range(max(depth.values(), default=0))]
    for unit in plan.trainings:
        if unit.key in depth:
            waves[depth[unit.key] - 1].append(unit)
    return waves


def needed(unit: Unit) -> list[str]:
    """Keys of the networks that have to be trained before this unit of work."""
    if isinstance(unit, Trained):
        keys = [unit.start]
    elif isinstance(unit, Cell):
        keys = [unit.model.learnt, unit.tuned, unit.made_on.learnt if unit.made_on else ""]
    else:
        keys = [unit.model.learnt]
    return [key for key in keys if key]


def _is_trained(key: str, store: Store) -> bool:
    record = store.read_training(key)
    return record is not None and record.outcome != "crashed" and store.weights_path(key).is_file()


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
