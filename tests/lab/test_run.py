"""What a run leaves behind, and that its numbers are those of the Python API."""

import csv
import json
import math
import random
import re
from itertools import product

import pytest

import attacks
import robustlab as rl
from robustlab.lab.run import run_experiment
from robustlab.records import Store
from tests.lab import tiny

CONTRACT = [
    *("model", "data", "image_id", "label", "prediction", "explainer", "attack", "norm"),
    *("epsilon", "seed", "metric", "value", "prediction_kept", "radius", "outcome"),
]


def table(path):
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def rows(finished):
    return table(finished / "results.csv")


@pytest.fixture(scope="module")
def summary(finished):
    return table(finished / "summary.csv")


@pytest.fixture(scope="module")
def digits():
    return rl.data.load("mnist_5k")


# --- results.csv ---------------------------------------------------------------------------


def test_all_files_are_there_and_nothing_else(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "cells",
        "experiment.json",
        "results.csv",
        "summary.csv",
        "provenance.json",
        "report.html",
        "gallery.html",
    }
    planned = {cell.key for cell in Store(finished).manifest().plan}
    records = {path.stem for path in (finished / "cells").glob("*.json")}
    assert records == planned
    assert len(planned) == tiny.CELLS
    pictures = {path.stem for path in (finished / "cells").glob("*.npz")}
    assert pictures < planned
    assert {path.suffix for path in (finished / "cells").iterdir()} == {".json", ".npz"}


def test_results_begin_with_the_columns_that_users_rely_on(rows):
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT


def test_results_have_one_row_for_every_measurement(rows, digits):
    found = [(r["image_id"], r["explainer"], r["attack"], r["metric"]) for r in rows]
    expected = product(
        digits.ids[:5],
        ["gradient", "grad_cam"],
        ["none", "pgd", "random_sign", "top_k", "random_sign (top_k)"],
        ["top_k_intersection", "spearman"],
    )
    assert sorted(found) == sorted(expected)


def test_every_value_is_there_and_possible(rows):
    for row in rows:
        low = 0.0 if row["metric"] == "top_k_intersection" else -1.0
        assert low <= float(row["value"]) <= 1.0
        assert row["outcome"] in ("ok", "infeasible")
        epsilon = 0.0 if row["attack"] == "none" else 0.1
        assert float(row["epsilon"]) == epsilon
        assert 0 <= float(row["radius"]) <= epsilon + 1e-6
        assert (row["model"], row["data"], row["norm"]) == ("small_cnn", "mnist_5k", "linf")
        assert row["seed"] == "0"


def test_doing_nothing_changes_nothing(rows):
    idle = [row for row in rows if row["attack"] == "none"]
    assert {(r["value"], r["radius"], r["prediction_kept"]) for r in idle} == {
        ("1.0", "0.0", "True")
    }


def test_labels_and_predictions_are_the_data_and_the_models(rows, digits):
    batch = digits.batch(5)
    predictions = rl.models.load("small_cnn")(batch.images).argmax(1).tolist()
    expected = {
        name: (str(label), str(prediction))
        for name, label, prediction in zip(
            batch.ids, batch.labels.tolist(), predictions, strict=True
        )
    }
    assert {(r["image_id"], r["label"], r["prediction"]) for r in rows} == {
        (name, *values) for name, values in expected.items()
    }


def test_a_kept_prediction_is_one_that_is_still_the_same(rows):
    for row in rows:
        same = row["prediction"] == row["prediction_after"]
        assert row["prediction_kept"] == str(same)
        if row["against"]:  # attacks on explanations must keep it
            assert same


@pytest.mark.parametrize(
    ("label", "explainer", "options"),
    [
        ("random_sign", "gradient", {}),
        ("pgd", "gradient", {"steps": 2}),
        ("pgd", "grad_cam", {"steps": 2}),
        ("top_k", "gradient", {"k": 20, "steps": 2}),
        ("top_k", "grad_cam", {"k": 20, "steps": 2}),
    ],
)
def test_the_numbers_are_those_of_the_python_api(rows, digits, label, explainer, options):
    model, made = rl.models.load("small_cnn"), rl.explainers.build(explainer)
    attack, budget = attacks.build(label, **options), rl.Budget("linf", 0.1)
    for batch in (digits.batch(5)[i : i + 2] for i in (0, 2, 4)):
        result = rl.attack(model, made, attack, batch, budget)
        for metric, settings in (("top_k_intersection", {"k": 50}), ("spearman", {})):
            values = result.drift(metric, **settings).tolist()
            for name, value, radius, kept in zip(
                batch.ids, values, result.radius, result.prediction_kept, strict=True
            ):
                wanted = (name, explainer, label, metric)
                (row,) = (
                    r
                    for r in rows
                    if (r["image_id"], r["explainer"], r["attack"], r["metric"]) == wanted
                )
                assert float(row["value"]) == value
                assert float(row["radius"]) == float(radius)
                assert row["prediction_kept"] == str(bool(kept))


# --- summary.csv ---------------------------------------------------------------------------


def test_the_summary_rests_on_the_results(rows, summary):
    places = [(s["explainer"], s["attack"], s["metric"]) for s in summary]
    assert len(set(places)) == len(summary) == 2 * 5 * 2
    for line in summary:
        values = [
            float(r["value"])
            for r in rows
            if all(r[key] == line[key] for key in ("explainer", "attack", "metric"))
        ]
        assert int(line["n"]) == len(values) == 5
        mean, low, high = (float(line[key]) for key in ("mean", "low", "high"))
        assert math.isclose(mean, sum(values) / 5, rel_tol=1e-12)
        assert low <= mean + 1e-12
        assert mean <= high + 1e-12
        assert line["chance"] != ""


@pytest.mark.parametrize("attack", ["pgd", "top_k"])
def test_every_attack_stands_beside_its_random_sign_control(summary, attack):
    control = {"pgd": "random_sign", "top_k": "random_sign (top_k)"}[attack]
    lines = {(s["explainer"], s["metric"]): s for s in summary if s["attack"] == attack}
    floors = {(s["explainer"], s["metric"]): s for s in summary if s["attack"] == control}
    assert lines.keys() == floors.keys()
    for place, line in lines.items():
        assert line["control_name"] == control
        assert line["control"] == floors[place]["mean"]
        assert line["beats_control"] != ""


# --- the other files -----------------------------------------------------------------------


def test_provenance_says_what_it_takes_to_run_it_again(finished):
    facts = json.loads((finished / "provenance.json").read_text())
    assert facts["versions"]["torch"]
    assert facts["device"] == "cpu"
    assert {"python", "platform", "processor", "commit", "threads"} <= facts.keys()


@pytest.mark.parametrize("page", ["report.html", "gallery.html"])
def test_pages_are_one_file_each_and_need_no_network(finished, page):
    text = (finished / page).read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert "url(http" not in text
    assert "Left aside" not in text


@pytest.mark.parametrize("wanted", [1, 3])
def test_the_gallery_shows_as_many_images_as_it_was_asked_to(tmp_path, digits, wanted):
    # fewer than share a batch: an artefact holds the first of its cell's images only
    spec = tiny.spec(images=4, attacks=["none", "pgd"], gallery={"images": wanted})
    run_experiment(spec, tmp_path, workers=1)
    text = (tmp_path / "gallery.html").read_text(encoding="utf-8")
    assert "Left aside" not in text
    shown = {name for name in digits.ids[:4] if name in text}
    assert shown == set(digits.ids[:wanted])


def test_a_gallery_of_nothing_is_possible(tmp_path):
    run_experiment(tiny.spec(images=1, attacks=["none"], gallery={"images": 0}), tmp_path)
    assert not list((tmp_path / "cells").glob("*.npz"))
    assert (tmp_path / "gallery.html").is_file()


# --- neither order nor company changes a number ---------------------------------------------


def same_tables(one, other):
    return all(
        (one / name).read_bytes() == (other / name).read_bytes()
        for name in ("results.csv", "summary.csv", "report.html", "gallery.html")
    )


def test_the_order_of_cells_does_not_matter(finished, tmp_path):
    def shuffle(cells):
        return random.Random(0).sample(cells, len(cells))

    run_experiment(tiny.spec(), tmp_path, workers=1, order=shuffle)
    assert same_tables(finished, tmp_path)
    assert tiny.numbers(finished) == tiny.numbers(tmp_path)


def test_two_workers_give_the_numbers_of_one(finished, tmp_path):
    outcome = run_experiment(tiny.spec(), tmp_path, workers=2)
    assert (outcome.cells, outcome.crashed) == (tiny.CELLS, ())
    assert same_tables(finished, tmp_path)
    assert tiny.numbers(finished) == tiny.numbers(tmp_path)


def test_pictures_in_the_gallery_change_no_number(finished, tmp_path):
    run_experiment(tiny.spec(gallery={"images": 5}), tmp_path, workers=1)
    for name in ("results.csv", "summary.csv"):
        assert (finished / name).read_bytes() == (tmp_path / name).read_bytes()


def test_an_experiment_leaves_torch_as_it_was(tmp_path):
    import torch

    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    run_experiment(tiny.spec(images=1), tmp_path, workers=1)
    after = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
