"""The commands: parse, call the lab, print. Nothing heavy is imported before it is needed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from robustlab.cli.console import complain, err, escaped, leave, out, warn
from robustlab.core.errors import InvalidInput, RobustlabError, nearest
from robustlab.records.errors import OtherExperiment, UnreadableResults

app = typer.Typer(
    name="robustlab",
    help="Can this explanation be trusted under attack?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Name = Annotated[str, typer.Argument(help="An experiment's name, or a YAML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the spec: --set attacks.0.steps=50"),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Apply the file's own overrides: seconds.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")]
Executor = Annotated[str, typer.Option(help="local, or ray for a cluster.")]
EXECUTORS = ("local", "ray")
Folder = Annotated[Path, typer.Argument(help="A folder that `run` has written.")]


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except (RobustlabError, UnreadableResults, OtherExperiment) as error:
        leave(str(error))


@app.command("list")
def list_(
    section: Annotated[
        str | None,
        typer.Argument(help="explainers, attacks, metrics, training, models, data or experiments"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """What there is: explainers, attacks, metrics, models, data, experiments."""
    from robustlab.cli.tables import comparison, listing
    from robustlab.lab.catalogue import SECTIONS, catalogue

    entries = [e for s in ([section] if section else SECTIONS) for e in catalogue(s)]
    if as_json:
        print(json.dumps(entries, indent=2, default=str))  # noqa: T201
        return
    out.print(comparison(entries) if section == "explainers" else listing(entries))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A component or an experiment.")]) -> None:
    """Formula, options, cost and source of one component, or an experiment's file."""
    from robustlab.lab.catalogue import describe

    title, text = describe(name)
    out.print(f"[bold]{escaped(title)}[/]\n")
    out.print(escaped(text), soft_wrap=True)


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
            complain(str(error))
    if wrong:
        raise typer.Exit(2)


@app.command()
def plan(name: Name, smoke: Smoke = False, set_: Set = None, device: Device = "cpu") -> None:
    """The cells of an experiment and what they will cost, without running them."""
    from robustlab.cli.tables import planned
    from robustlab.lab.find import find_experiment
    from robustlab.lab.run import prepare
    from robustlab.lab.spec import load_spec

    made, _ = prepare(
        load_spec(find_experiment(name), overrides=set_ or (), smoke=smoke), device=device
    )
    out.print(planned(made))
    costs = [*(cell.cost for cell in made.cells), *(visual.cost for visual in made.visuals)]
    out.print(f"{len(costs)} cells, about {sum(costs):.0f} gradient passes of one image")


@app.command()
def run(
    name: Name,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where results go; default results/NAME.")
    ] = None,
    smoke: Smoke = False,
    set_: Set = None,
    device: Device = "cpu",
    workers: Workers = None,
    executor: Executor = "local",
) -> None:
    """Run an experiment; a killed run goes on where it stopped. Exit 1 if a cell failed."""
    from robustlab.lab.find import find_experiment
    from robustlab.lab.spec import load_spec

    spec = load_spec(find_experiment(name), overrides=set_ or (), smoke=smoke)
    _run(spec, folder or _place(spec.name, smoke), device, workers, executor)


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
    workers: Workers = None,
    executor: Executor = "local",
) -> None:
    """How stable are the explanations of *your* model? An experiment with it in others' place.

    `--protocol attributional_robustness` is the one that the zoo is ranked by.
    """
    from robustlab.lab.find import find_experiment
    from robustlab.lab.spec import load_spec

    source = [] if data is None else [f"data={json.dumps({'name': data})}"]
    choices = [f"models={json.dumps([{'name': model}])}", *source, *(set_ or [])]
    spec = load_spec(find_experiment(protocol), overrides=choices, smoke=smoke)
    safe = model.replace(":", "-").replace("/", "-")
    name = f"evaluate-{safe}" if protocol == "evaluation" else f"{protocol}-{safe}"
    _run(spec, folder or _place(name, smoke), device, workers, executor)


@app.command()
def report(folder: Folder) -> None:
    """Write tables and report.html again from the records of a run."""
    from robustlab import reporting

    run = reporting.load(folder)  # once for all three
    for write in (reporting.write_results, reporting.write_summary, reporting.write_report):
        out.print(str(write(run)), soft_wrap=True)


@app.command()
def gallery(folder: Folder) -> None:
    """Write gallery.html again from the records of a run."""
    from robustlab import reporting

    out.print(str(reporting.write_gallery(folder)), soft_wrap=True)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A folder that `run` has written.")],
    b: Annotated[Path, typer.Argument(help="Another one; differences are B − A.")],
    metric: Annotated[
        str | None, typer.Option(help="The metric to compare by; default the primary one of A.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="By every metric that both have.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one object.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file too.")] = None,
) -> None:
    """What changed between two runs: paired differences, with intervals. Exit 0 also if much did.

    Two versions of the code, or one model with and without a defence.
    """
    from robustlab.cli.tables import show_versus
    from robustlab.reporting import compare_runs
    from robustlab.reporting.versus_table import versus_json, write_rows

    found = compare_runs(a, b, metric=metric, every=every)
    if csv is not None:
        write_rows(csv, found)
    if as_json:
        print(json.dumps(versus_json(found), indent=2, allow_nan=False))  # noqa: T201
        return
    show_versus(found)


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
        warn("passed over", f"{path}: nothing to show")


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
    from robustlab.cli.progress import steps
    from robustlab.cli.tables import show_trainings
    from robustlab.core.memory import keep_memory
    from robustlab.lab.find import find_experiment
    from robustlab.lab.run import train_networks
    from robustlab.lab.spec import load_spec

    spec = load_spec(find_experiment(name, RECIPES), overrides=set_ or (), smoke=smoke)
    folder = folder or _place(spec.name, smoke)
    keep_memory()  # this process is ours
    with steps() as watch:
        records = train_networks(
            spec, folder, device=device, watch=watch, checkpoints=checkpoints, only=only or ()
        )
    show_trainings(records, folder)
    if any(one.outcome == "crashed" for one in records):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Check the installation; exit 1 if something is wrong."""
    from robustlab.lab.doctor import checks

    results = checks()
    for sound, what, found in results:
        mark = "[green]ok[/] " if sound else "[bold red]bad[/]"
        out.print(f"{mark} {escaped(what)}: {escaped(found)}", soft_wrap=True)
    if not all(sound for sound, _, _ in results):
        raise typer.Exit(1)


def _place(name: str, smoke: bool) -> Path:
    """Where results go unless told; a smoke run is another experiment and has its own folder."""
    return Path("results") / (f"{name}-smoke" if smoke else name)


def _run(spec: Any, folder: Path, device: str, workers: int | None, executor: str) -> None:
    from robustlab.cli.progress import run_watcher
    from robustlab.cli.tables import show_outcome
    from robustlab.core.memory import keep_memory
    from robustlab.lab.run import run_experiment

    if executor not in EXECUTORS:
        raise InvalidInput("--executor", f"unknown {executor!r}", nearest(executor, EXECUTORS))
    keep_memory()  # this process is ours
    try:
        outcome = run_experiment(
            spec,
            folder,
            device=device,
            workers=workers,
            executor=executor,  # type: ignore[arg-type]
            watcher=run_watcher(),
        )
    except KeyboardInterrupt:
        err.print("stopped; what is finished is stored: run the same command again to go on")
        raise typer.Exit(130) from None
    show_outcome(outcome)
    if outcome.crashed:
        raise typer.Exit(1)
