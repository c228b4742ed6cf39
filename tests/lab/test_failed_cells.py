"""A cell that fails is a visible row and never a missing one; the others are kept."""

import csv
import json

import pytest
import torch

from attacks.explanation.fragility import TopK
from attacks.prediction import PGD
from robustlab.core.errors import NotDifferentiable
from robustlab.explainers import GradCAM
from robustlab.lab.run import run_experiment
from tests.cli.command import robustlab
from tests.lab import tiny

FAILING = ("mnist_5k/1004", "mnist_5k/1504")  # the second chunk


def table(folder, name="results.csv"):
    with (folder / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def path(tmp_path):
    return tiny.write(tmp_path / "tiny.yaml")


@pytest.fixture
def broken_pgd(monkeypatch):
    """PGD that raises on one chunk of images only."""
    honest = PGD.propose

    def propose(self, problem, budget):
        if problem.ids == FAILING:
            raise RuntimeError("the accelerator [0] is on fire")
        return honest(self, problem, budget)

    monkeypatch.setattr(PGD, "propose", propose)
    yield
    monkeypatch.undo()


def test_a_crashed_cell_is_shown_kept_apart_and_tried_again(
    finished, path, tmp_path, monkeypatch, broken_pgd
):
    folder = tmp_path / "out"
    said = robustlab("run", path, "--out", folder, "--workers", 1)
    assert said.code == 1
    assert "Traceback" not in said.err
    (line,) = (line for line in said.err.splitlines() if line.startswith("failed"))
    for part in ("pgd", *FAILING, "RuntimeError: the accelerator [0] is on fire"):
        assert part in line

    whole, rows = table(finished), table(folder)
    assert len(rows) == len(whole)
    for row, expected in zip(rows, whole, strict=True):
        if row["attack"] == "pgd" and row["image_id"] in FAILING:
            assert row["outcome"] == "crashed"
            assert (row["value"], row["radius"], row["prediction_kept"]) == ("", "", "")
            for key in ("model", "data", "explainer", "norm", "epsilon", "seed", "metric"):
                assert row[key] == expected[key]
        else:
            assert row == expected
    assert sum(row["outcome"] == "crashed" for row in rows) == 2 * 2 * 2

    for row in table(folder, "summary.csv"):
        crashed = 2 if row["attack"] == "pgd" else 0
        assert (int(row["n_crashed"]), int(row["n"])) == (crashed, 5 - crashed)
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "the accelerator [0] is on fire" in report

    # again, still broken: nothing but the failed cell is tried, and it is not called a success
    before = tiny.contents(folder / "cells")
    again = robustlab("run", path, "--out", folder, "--workers", 1)
    assert again.code == 1
    assert f"{tiny.CELLS - 1} of {tiny.CELLS} cells are there already" in again.err
    after = tiny.contents(folder / "cells")
    assert len([name for name in after if after[name] != before[name]]) == 1

    # again, repaired
    monkeypatch.undo()
    outcome = run_experiment(tiny.spec(), folder, workers=1)
    assert (outcome.resumed, outcome.crashed) == (tiny.CELLS - 1, ())
    for name in ("results.csv", "summary.csv", "report.html", "gallery.html"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert tiny.numbers(folder) == tiny.numbers(finished)


def test_an_explainer_that_fails_takes_only_its_own_cells_along(finished, tmp_path, monkeypatch):
    def refuse(*_, create_graph=False, **__):
        raise NotDifferentiable("no second derivative today")

    honest = GradCAM.explain
    monkeypatch.setattr(
        GradCAM,
        "explain",
        lambda *a, create_graph=False, **k: (refuse if create_graph else honest)(
            *a, create_graph=create_graph, **k
        ),
    )
    outcome = run_experiment(tiny.spec(), tmp_path, workers=1)
    assert len(outcome.crashed) == tiny.CHUNKS  # top_k against grad_cam
    for what, reason in outcome.crashed:
        assert what.startswith("top_k on mnist_5k/")
        assert reason == "NotDifferentiable: no second derivative today"
    for row, expected in zip(table(tmp_path), table(finished), strict=True):
        failed = row["attack"] == "top_k" and row["explainer"] == "grad_cam"
        assert row["outcome"] == ("crashed" if failed else expected["outcome"])
        assert failed or row == expected


def _not_finite(problem, budget):
    return torch.full_like(problem.images, float("nan"))


def _too_far(problem, budget):
    return 1 - problem.images


def _nothing(problem, budget):
    return problem.images.clone()


@pytest.mark.parametrize(
    ("proposal", "outcome"),
    [(_not_finite, "diverged"), (_too_far, "budget_violated"), (_nothing, "infeasible")],
)
def test_an_attack_that_misbehaves_is_named_for_it(tmp_path, monkeypatch, proposal, outcome):
    monkeypatch.setattr(TopK, "propose", lambda _, problem, budget: proposal(problem, budget))
    path = tiny.write(tmp_path / "tiny.yaml")
    said = robustlab("run", path, "--out", tmp_path / "out", "--workers", 1)
    assert said.code == 0  # a result, not a failure of the lab
    for row in table(tmp_path / "out"):
        assert row["outcome"] == (outcome if row["attack"] == "top_k" else "ok")
        assert float(row["radius"]) <= float(row["epsilon"]) + 1e-6


def test_a_record_of_a_crash_says_where_it_happened(path, tmp_path, broken_pgd):
    robustlab("run", path, "--out", tmp_path / "out", "--workers", 1)
    records = [json.loads(p.read_text()) for p in (tmp_path / "out" / "cells").glob("*.json")]
    (crashed,) = (r for r in records if r["outcome"] == "crashed")
    assert "in propose)" in crashed["error"]
    assert crashed["provenance"]["versions"]["torch"]
    assert crashed["seconds"] > 0
