"""How long work shows that it goes on: bars on a terminal, a few lines in a log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from robustlab.cli.console import err, escaped, warn

if TYPE_CHECKING:
    from robustlab.core.progress import Progress as Steps
    from robustlab.core.progress import Watch
    from robustlab.lab.executors import Record
    from robustlab.lab.run import Watcher
    from robustlab.lab.units import FineTuned, Plan, Trained, Unit

LINES = 10
"""How many lines a log gets for one training or one run."""


@contextmanager
def steps() -> Iterator[Any]:
    """A bar for every training, in steps, with the time left and the last loss."""
    if not err.is_terminal:
        yield _lines
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=err,
    ) as bars:

        def watch(trained: "Trained | FineTuned") -> "Watch":
            task = bars.add_task(trained.title, total=None, loss="")

            def told(progress: "Steps") -> None:
                bars.update(
                    task, completed=progress.step, total=progress.steps, loss=_loss(progress)
                )

            return told

        yield watch


def _lines(trained: "Trained | FineTuned") -> "Watch":
    def told(progress: "Steps") -> None:
        tenth = progress.steps // LINES or 1
        if progress.step % tenth == 0 or progress.step == progress.steps:
            done = f"{progress.step}/{progress.steps}"
            err.print(escaped(f"{trained.title}: {done} {_loss(progress)}"), soft_wrap=True)

    return told


def _loss(progress: "Steps") -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in progress.parts.items())


def run_watcher() -> "Watcher":
    """Told how a run goes. A factory, because its base must not be imported for `--help`."""
    from robustlab.lab.run import Watcher
    from robustlab.lab.units import Cell, Visual

    class Told(Watcher):
        """A bar in gradient passes with the time left, or a line at every tenth of them."""

        def start(self, plan: "Plan", todo: Sequence["Unit"], problems: Sequence[str]) -> None:
            for problem in problems:
                warn("computing again", problem)
            units = len(plan.cells) + len(plan.visuals)
            stored = units - sum(isinstance(unit, Cell | Visual) for unit in todo)
            if stored:
                err.print(f"{stored} of {units} cells are there already")
            self.count, self.total = 0, len(todo)
            self.cost, self.whole = 0.0, sum(unit.cost for unit in todo) or 1.0
            self.name, self.started = plan.spec.name, perf_counter()
            self.bar = _bar(plan.spec.name, self.whole) if err.is_terminal else None

        def done(self, unit: "Unit", record: "Record") -> None:
            before = int(LINES * self.cost / self.whole)
            self.count, self.cost = self.count + 1, self.cost + unit.cost
            if self.bar is not None:
                text = f"cell {self.count} of {self.total}"
                self.bar.update(self.bar.task_ids[0], advance=unit.cost, description=text)
            elif int(LINES * self.cost / self.whole) > before:
                err.print(escaped(self._line()), soft_wrap=True)

        def _line(self) -> str:
            share, seconds = self.cost / self.whole, perf_counter() - self.started
            left = f"about {seconds * (1 - share) / share:.0f} s left"
            return f"{self.name}: cell {self.count} of {self.total}, {seconds:.0f} s, {left}"

        def finish(self) -> None:
            if self.bar is not None:
                self.bar.stop()

    return Told()


def _bar(name: str, whole: float) -> Progress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    )
    bar.add_task(name, total=whole)
    bar.start()
    return bar
