"""The command line: parse, call the lab, print. Nothing heavy is imported before it is needed."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from robustlab.core.errors import RobustlabError
from robustlab.records.errors import OtherExperiment, UnreadableResults

if TYPE_CHECKING:
    from robustlab.core.progress import Progress as Steps
    from robustlab.core.progress import Watch
    from robustlab.lab.run import Outcome
    from robustlab.lab.units import FineTuned, Plan, Trained, Unit
    from robustlab.records import TrainingRecord

app = typer.Typer(
    name="robustlab",
    help="Can this explanation be trusted under attack?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# a pipe has no width of its own: tables get room, since nobody can resize it
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False)

Name = Annotated[str, typer.Argument(help="An experiment's name, or a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the spec: --set attacks.0.steps=50"),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Apply the file's own overrides: seconds.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Folder = Annotated[Path, typer.Argument(help="A folder that `run` has written.")]


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except (RobustlabError, UnreadableResults, OtherExperiment) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    err.print(f"[bold red]error[/] {_escaped(message)}", soft_wrap=True)
    sys.exit(2)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


@app.command("list")
def list_(
    section: Annotated[
        str | None,
        typer.Argument(help="explainers, attacks, metrics, training, models, data or experiments"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """What there is: explainers, attacks, metrics, models, data, experiments."""
    from robustlab.lab.catalogue import SECTIONS, catalogue

    entries = [e for s in ([section] if section else SECTIONS) for e in catalogue(s)]
    if as_json:
        print(json.dumps(entries, indent=2, default=str))  # noqa: T201
        return
    out.print(_comparison(entries) if section == "explainers" else _listing(entries))


def _listing(entries: Sequence[dict[str, Any]]) -> Table:
    table = Table("section", "name", "what it is", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry["section"], entry["name"], _escaped(entry["summary"]))
    return table


def _comparison(entries: Sequence[dict[str, Any]]) -> Table:
    """The survey's comparison table; `show NAME` has the formulas."""
    table = Table(
        Column("name", no_wrap=True), "family", "year", "specific to", "explains", "detail",
        "differentiable", "attacked by", "passes", box=None, pad_edge=False,
    )  # fmt: skip
    for e in entries:
        specific = [k for k in ("class", "layer") if e[f"{k}_specific"]]
        table.add_row(
            e["name"], e["family"], str(e["year"]), ", ".join(specific) or "–",
            "an image" if e["scope"] == "local" else "the model", e["detail"],
            e["differentiable"], e["attacked_by"].split(":")[0],
            f"{e['passes']['forward']:g} + {e['passes']['backward']:g}",
        )  # fmt: skip
    return table


@app.command()
def show(name: Annotated[str, typer.Argument(help="A component or an experiment.")]) -> None:
    """Formula, options, cost and source of one component, or an experiment's file."""
    from robustlab.lab.catalogue import describe

    title, text = describe(name)
    out.print(f"[bold]{_escaped(title)}[/]\n")
    out.print(_escaped(text), soft_wrap=True)


@app.command()
def validate(
    paths: Annotated[list[str], typer.Argument(help="Experiment names or YAML files.")],
) -> None:
    """Check experiment files without running them; exit 2 if one is wrong."""
    from robustlab.lab.find import find_experiment
    from robustlab.lab.run import prepare
    from robustlab.lab.spec import load_spec

    wrong = 0
    for name in paths:
        try:
            path = find_experiment(name)
            for smoke in (False, True):
                prepare(load_spec(path, smoke=smoke))
            out.print(f"{name}: valid")
        except RobustlabError as error:
            wrong += 1
            err.print(f"[bold red]error[/] {_escaped(str(error))}", soft_wrap=True)
    if wrong:
        raise typer.Exit(2)


@app.command()
def plan(name: Name, smoke: Smoke = False, set_: Set = None, device: Device = "cpu") -> None:
    """The cells of an experiment and what they will cost, without running them."""
    from robustlab.lab.find import find_experiment
    from robustlab.lab.run import prepare
    from robustlab.lab.spec import load_spec

    made, _ = prepare(
        load_spec(find_experiment(name), overrides=set_ or (), smoke=smoke), device=device
    )
    groups: dict[tuple[str, ...], list[float]] = {}
    for cell in made.cells:
        against = cell.against.label if cell.against else ""
        epsilon = f"{cell.budget.norm} {cell.budget.epsilon:.4g}"
        groups.setdefault((cell.model.label, cell.waged.label, against, epsilon), []).append(
            cell.cost
        )
    for visual in made.visuals:
        images = f"{len(visual.classes)} images"
        groups[visual.model.label, visual.measured.label, "the model", images] = [visual.cost]
    table = Table(
        "model", "attack", "against", "budget", "cells", "gradient passes", box=None, pad_edge=False
    )
    for row, costs in groups.items():
        table.add_row(*(_escaped(r) for r in row), str(len(costs)), f"{sum(costs):.0f}")
    out.print(table)
    total = sum(sum(costs) for costs in groups.values())
    count = len(made.cells) + len(made.visuals)
    out.print(f"{count} cells, about {total:.0f} gradient passes of one image")


@app.command()
def run(
    name: Name,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where results go; default results/NAME.")
    ] = None,
    smoke: Smoke = False,
    set_: Set = None,
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core.")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
) -> None:
    """Run an experiment; a killed run goes on where it stopped. Exit 1 if a cell failed."""
    from robustlab.lab.find import find_experiment
    from robustlab.lab.spec import load_spec

    spec = load_spec(find_experiment(name), overrides=set_ or (), smoke=smoke)
    folder = folder or Path("results") / (f"{spec.name}-smoke" if smoke else spec.name)
    _run(spec, folder, device, workers, executor)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A model's name; see `robustlab list models`.")],
    data: Annotated[
        str | None,
        typer.Option(help="Data by name, or a folder of pictures; default the protocol's own."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="The experiment that is run on the model: what, how, how strictly.")
    ] = "evaluation",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where results go; default results/evaluate-MODEL.")
    ] = None,
    set_: Set = None,
    smoke: Smoke = False,
    device: Device = "cpu",
    workers: Annotated[int | None, typer.Option(min=1)] = None,
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
) -> None:
    """How stable are the explanations of *your* model? An experiment with it in others' place.

    `--protocol attributional_robustness` is the one that the zoo is ranked by.
    """
    from robustlab.lab.find import find_experiment
    from robustlab.lab.spec import load_spec

    source = [] if data is None else [f"data={json.dumps({'name': data})}"]
    if data is not None and ("/" in data or Path(data).is_dir()):
        source = [f"data={json.dumps({'name': 'image_folder', 'path': data})}"]
    choices = [f"models={json.dumps([{'name': model}])}", *source, *(set_ or [])]
    spec = load_spec(find_experiment(protocol), overrides=choices, smoke=smoke)
    safe = model.replace(":", "-").replace("/", "-")
    name = f"evaluate-{safe}" if protocol == "evaluation" else f"{protocol}-{safe}"
    _run(spec, folder or Path("results") / name, device, workers, executor)


@app.command()
def report(folder: Folder) -> None:
    """Write tables and report.html again from the records of a run."""
    from robustlab import reporting

    for write in (reporting.write_results, reporting.write_summary, reporting.write_report):
        out.print(str(write(folder)), soft_wrap=True)


@app.command()
def gallery(folder: Folder) -> None:
    """Write gallery.html again from the records of a run."""
    from robustlab import reporting

    out.print(str(reporting.write_gallery(folder)), soft_wrap=True)


@app.command()
def leaderboard(
    folder: Annotated[
        Path, typer.Argument(help="Results of a run, several of them, or leaderboard/*.json.")
    ],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where it goes; default the folder itself.")
    ] = None,
) -> None:
    """Write one JSON per model, leaderboard.html and leaderboard.md from records or such files."""
    from robustlab import reporting

    written = reporting.write_leaderboard(folder, out_folder)
    for path in written.files:
        out.print(str(path), soft_wrap=True)
    for path in written.passed_over:
        err.print(f"[yellow]passed over[/] {_escaped(str(path))}: nothing to show", soft_wrap=True)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="An experiment that trains, or small_cnn, ...")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where they go; default results/NAME.")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Where to leave each trained model under its label, with a card."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the model of that label, and what it goes on from; repeatable."),
    ] = None,
    smoke: Smoke = False,
    set_: Set = None,
    device: Device = "cpu",
) -> None:
    """Train an experiment's networks, for `run` to measure; or a small one that ships."""
    from robustlab.training.small import RECIPES, make

    if name in RECIPES:
        folder = folder or Path("results/weights")
        folder.mkdir(parents=True, exist_ok=True)
        with err.status(f"training {name}"):
            card = make(name, folder)
        out.print(json.dumps(card, indent=2), soft_wrap=True)
        return
    from robustlab.lab.find import find_experiment
    from robustlab.lab.run import train_networks
    from robustlab.lab.spec import load_spec

    spec = load_spec(find_experiment(name, RECIPES), overrides=set_ or (), smoke=smoke)
    folder = folder or Path("results") / (f"{spec.name}-smoke" if smoke else spec.name)
    with _steps() as watch:
        records = train_networks(
            spec, folder, device=device, watch=watch, checkpoints=checkpoints, only=only or ()
        )
    _show_trainings(records, folder)
    if any(one.outcome == "crashed" for one in records):
        raise typer.Exit(1)


def _show_trainings(records: "Sequence[TrainingRecord]", folder: Path) -> None:
    table = Table(
        "model", "training", "against", "accuracy", "after", "agreement", "outcome", box=None
    )
    for one in records:
        shares = (one.accuracy_before, one.accuracy_after, one.agreement)
        numbers = ("–" if s is None else f"{s:.3f}" for s in shares)
        table.add_row(one.model, one.attack, one.against or "–", *numbers, one.outcome)
    out.print(table)
    for one in records:
        if one.outcome == "crashed":
            err.print(f"[bold red]failed[/] {_escaped(one.attack)}: {_escaped(one.error)}")
        else:
            out.print(str(folder / "models" / f"{one.key}.safetensors"), soft_wrap=True)


@app.command()
def doctor() -> None:
    """Check the installation; exit 1 if something is wrong."""
    from robustlab.lab.doctor import checks

    results = checks()
    for sound, what, found in results:
        mark = "[green]ok[/] " if sound else "[bold red]bad[/]"
        out.print(f"{mark} {_escaped(what)}: {_escaped(found)}", soft_wrap=True)
    if not all(sound for sound, _, _ in results):
        raise typer.Exit(1)


def _run(spec: Any, folder: Path, device: str, workers: int | None, executor: str) -> None:
    from robustlab.core.errors import InvalidInput, nearest
    from robustlab.lab.run import run_experiment

    if executor not in ("local", "ray"):
        raise InvalidInput(
            "--executor", f"unknown {executor!r}", nearest(executor, ("local", "ray"))
        )
    try:
        outcome = run_experiment(
            spec,
            folder,
            device=device,
            workers=workers,
            executor=executor,  # type: ignore[arg-type]
            watcher=_progress(),
        )
    except KeyboardInterrupt:
        err.print("stopped; what is finished is stored: run the same command again to go on")
        raise typer.Exit(130) from None
    _print_outcome(outcome)
    if outcome.crashed:
        raise typer.Exit(1)


def _print_outcome(outcome: "Outcome") -> None:
    from robustlab.reporting import short_cautions, short_table

    header, *rows = short_table(outcome.folder)
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    out.print(table, soft_wrap=True)
    for caution in short_cautions(outcome.folder):
        out.print(f"[yellow]caution[/] {_escaped(caution)}", soft_wrap=True)
    for path, reason in outcome.skipped:
        err.print(f"[yellow]skipped[/] {_escaped(path)}: {_escaped(reason)}", soft_wrap=True)
    for what, reason in outcome.crashed:
        err.print(f"[bold red]failed[/] {_escaped(what)}: {_escaped(reason)}", soft_wrap=True)
    for name in ("results.csv", "summary.csv", "report.html", "gallery.html"):
        out.print(str(outcome.folder / name), soft_wrap=True)


@contextmanager
def _steps() -> Iterator[Any]:
    """A bar for every training, in steps, with the time left and the last loss."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not err.is_terminal:  # a log has no bars
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
    """The same for a log: ten lines for every training."""

    def told(progress: "Steps") -> None:
        tenth = progress.steps // 10 or 1
        if progress.step % tenth == 0 or progress.step == progress.steps:
            done = f"{progress.step}/{progress.steps}"
            err.print(_escaped(f"{trained.title}: {done} {_loss(progress)}"), soft_wrap=True)

    return told


def _loss(progress: "Steps") -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in progress.parts.items())


def _progress() -> Any:
    """A progress bar in gradient passes, with the time left."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from robustlab.lab.executors import Record
    from robustlab.lab.run import Watcher
    from robustlab.lab.units import Cell, Visual

    class Bar(Watcher):
        def __init__(self) -> None:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TextColumn("elapsed"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=err,
            )
            self.task = self.progress.add_task("", total=None)
            self.count = 0

        def start(self, plan: "Plan", todo: Sequence["Unit"], problems: Sequence[str]) -> None:
            for problem in problems:
                err.print(f"[yellow]computing again[/] {_escaped(problem)}", soft_wrap=True)
            units = len(plan.cells) + len(plan.visuals)
            stored = units - sum(isinstance(unit, Cell | Visual) for unit in todo)
            if stored:
                err.print(f"{stored} of {units} cells are there already")
            self.count, self.total = 0, len(todo)
            self.progress.update(
                self.task, total=sum(u.cost for u in todo) or 1, description=plan.spec.name
            )
            self.progress.start()

        def done(self, unit: "Unit", record: Record) -> None:
            self.count += 1
            self.progress.update(
                self.task, advance=unit.cost, description=f"cell {self.count} of {self.total}"
            )

        def finish(self) -> None:
            self.progress.stop()

    return Bar()


if __name__ == "__main__":
    main()
