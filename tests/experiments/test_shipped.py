"""The experiments that ship: each is found, is valid, says how to run it, and runs."""

import csv
import shlex

import pytest
import typer

from robustlab.cli import app
from robustlab.lab.find import experiments, find_experiment
from robustlab.lab.run import prepare
from robustlab.lab.spec import load_spec
from tests.cli.command import ROOT, robustlab

FOLDER = ROOT / "experiments"
NAMES = sorted(path.stem for path in FOLDER.iterdir())
# what runs in seconds even on photographs, so that every test run sees it
QUICK = {"quickstart", "fragility_mnist"}
FILES = ("results.csv", "summary.csv", "provenance.json", "report.html", "gallery.html")


def test_every_file_of_the_folder_is_found_by_its_name():
    assert experiments() == {name: FOLDER / f"{name}.yaml" for name in NAMES}
    assert [path.suffix for path in FOLDER.iterdir() if path.suffix != ".yaml"] == []
    assert "quickstart" in NAMES
    for name in NAMES:
        assert find_experiment(name) == find_experiment(str(FOLDER / f"{name}.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_the_command_that_runs_it(name):
    first, second, *_ = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# robustlab ")
    program, command, *arguments = shlex.split(first.removeprefix("# ").partition("(")[0])
    known = typer.main.get_command(app).commands
    options = {option for p in known[command].params for option in p.opts}
    assert program == "robustlab"
    assert command in ("run", "evaluate")
    if command == "run":
        assert arguments == [name]
        assert second.startswith(f"# robustlab run {name} --smoke")
    assert {a for a in arguments if a.startswith("-")} <= options


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_so_is_its_smoke_form_at_a_tenth_of_the_cost(name):
    costs = []
    for smoke in (False, True):
        spec = load_spec(FOLDER / f"{name}.yaml", smoke=smoke)
        plan, _ = prepare(spec)
        assert spec.name == name
        assert "?" in spec.question
        assert plan.cells
        costs.append(sum(unit.cost for unit in (*plan.cells, *plan.trainings)))
    assert costs[1] < costs[0] / 10


def test_validate_agrees():
    names = sorted(QUICK)  # it asks what the test above asks
    said = robustlab("validate", *names)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [f"{name}: valid" for name in names]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_its_smoke_form_runs_end_to_end(name, tmp_path):
    said = robustlab("run", name, "--smoke", "--out", tmp_path, "--workers", 1)
    assert said.code == 0, said.err
    for file in FILES:
        assert (tmp_path / file).stat().st_size > 100
    plan, _ = prepare(load_spec(FOLDER / f"{name}.yaml", smoke=True))
    assert {p.stem for p in (tmp_path / "cells").glob("*.json")} == {c.key for c in plan.cells}
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    measured = sum(len(c.ids) * len(c.measured) * len(c.metrics) for c in plan.cells)
    assert len(rows) == measured
    assert "crashed" not in {row["outcome"] for row in rows}
    assert all(row["value"] for row in rows)
    for page in ("report.html", "gallery.html"):
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert "Left aside" not in text
        assert "<script src" not in text
