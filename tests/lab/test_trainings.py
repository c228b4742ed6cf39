"""Networks that a run trains: once, before the cells that look at them, to the same weights."""

import json

import pytest
import torch

from robustlab import data, explainers, models
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.streaming import logits_of
from robustlab.lab import fine_tuning as training
from robustlab.lab.run import run_experiment, train_networks
from robustlab.metrics import build as metric
from robustlab.records import Store
from robustlab.reporting import load
from robustlab.reporting.summary import summarise
from tests.lab import tiny

SHORT = {"images": 60, "held_out": 40, "epochs": 2, "batch_size": 20, "learning_rate": 1e-3}
FOOLED = {"name": "location_fooling", "against": "grad_cam", "label": "fooled", **SHORT}
RATE = {"name": "fooling_success_rate", "label": "rate", "high": 0.6}
CHANGES = {"attacks": ["none", FOOLED], "budgets": [], "metrics": ["spearman", RATE]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert run_experiment(tiny.spec(**CHANGES), folder, workers=1).crashed == ()
    return folder


def test_the_numbers_are_those_of_the_stored_weights(finished):
    (record,), problems = Store(finished).load_trainings()
    assert not problems
    path = finished / "models" / f"{record.key}.safetensors"
    model, fooled = models.load("small_cnn"), models.load("small_cnn", weights=path)
    held = data.load("mnist_5k").batch(40)
    right = [(logits_of(m, held.images).argmax(1) == held.labels) for m in (model, fooled)]
    assert record.accuracy_before == pytest.approx(right[0].double().mean().item())
    assert record.accuracy_after == pytest.approx(right[1].double().mean().item())
    agree = logits_of(model, held.images).argmax(1) == logits_of(fooled, held.images).argmax(1)
    assert record.agreement == pytest.approx(agree.double().mean().item())
    assert (record.train_images, record.held_out, record.outcome) == (60, 40, "ok")

    cells = [r for r in load(finished).records if r.cell.attack == "fooled"]
    assert len(cells) == tiny.CHUNKS
    for cell in cells:
        batch = data.load("mnist_5k").pick(cell.cell.ids)
        targets = logits_of(model, batch.images).argmax(1)
        for name in ("gradient", "grad_cam"):
            explainer = explainers.build(name)
            maps = [
                explain_maps(m, explainer, batch.images, targets, None) for m in (model, fooled)
            ]
            for label, judge in (
                ("spearman", metric("spearman")),
                ("rate", metric("fooling_success_rate", high=0.6)),
            ):
                expected = judge(*maps)
                for i, row in enumerate(cell.images):
                    found = row.values[name][label]
                    assert found == pytest.approx(float(expected[i]), abs=1e-6), (name, label)
                    assert (row.outcome, row.radius) == ("ok", 0.0)


@pytest.mark.slow  # test_courses.py has the same machinery in every run
def test_neither_workers_nor_order_change_a_number(finished, tmp_path):
    run_experiment(tiny.spec(**CHANGES), tmp_path, workers=2, order=lambda units: units[::-1])
    assert tiny.numbers(tmp_path) == tiny.numbers(finished)
    one, other = (Store(f).load_trainings()[0][0].sha256 for f in (finished, tmp_path))
    assert one == other
    assert (tmp_path / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


def test_a_second_run_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(training, "_train", None)
    before = tiny.contents(finished / "models")
    run_experiment(tiny.spec(**CHANGES), finished, workers=1)
    assert tiny.contents(finished / "models") == before


def test_training_first_and_measuring_later_is_the_same(finished, tmp_path):
    told = []
    records = train_networks(tiny.spec(**CHANGES), tmp_path, watch=lambda _: told.append)
    assert [p.step for p in told] == list(range(1, 7)) and told[0].steps == 6
    assert [r.outcome for r in records] == ["ok"]
    assert not list((tmp_path / "cells").glob("*.json"))
    run_experiment(tiny.spec(**CHANGES), tmp_path, workers=1)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished)


class Killed(BaseException):
    """As Ctrl-C is: nothing catches it on the way."""


def test_a_killed_training_goes_on_to_the_same_weights(finished, tmp_path):
    def kill(progress):
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        train_networks(tiny.spec(**CHANGES), tmp_path, watch=lambda _: kill)
    assert [p.name.partition(".")[2] for p in (tmp_path / "models").iterdir()] == [
        "state.safetensors"
    ]
    steps = []
    train_networks(tiny.spec(**CHANGES), tmp_path, watch=lambda _: lambda p: steps.append(p.step))
    assert steps == [4, 5, 6]
    one, other = (Store(f).load_trainings()[0][0].sha256 for f in (finished, tmp_path))
    assert one == other


def test_a_collapsed_model_fools_nobody(tmp_path):
    wild = {**FOOLED, "learning_rate": 0.3, "label": "wild"}
    run_experiment(tiny.spec(**{**CHANGES, "attacks": [wild]}), tmp_path, workers=1)
    (record,), _ = Store(tmp_path).load_trainings()
    assert record.outcome == "collapsed"
    rows = [row for row in summarise(load(tmp_path)) if row.attack == "wild"]
    assert rows and all(row.mean is None and row.n == 0 for row in rows)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "has collapsed and fools nobody" in page


def test_a_training_that_fails_is_a_row_that_says_so(tmp_path):
    broken = {**FOOLED, "learning_rate": 1e30, "label": "broken"}
    outcome = run_experiment(tiny.spec(**{**CHANGES, "attacks": [broken]}), tmp_path, workers=1)
    assert any("Diverged" in reason for _, reason in outcome.crashed)
    assert any("its training failed" in reason for _, reason in outcome.crashed)
    (record,), _ = Store(tmp_path).load_trainings()
    assert record.outcome == "crashed" and "a smaller learning_rate may help" in record.error
    assert "could not be trained" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_has_a_row_for_each_network(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Trained to deceive" in page and "kept its task" in page
    assert "no random-sign control" not in page.lower()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": [{**FOOLED, "against": "lime"}], "explainers": ["lime"]}, "lime"),
        ({"attacks": [{**FOOLED, "data": "mnist"}]}, "attacks: mnist.root"),
        ({"attacks": [{**FOOLED, "data_options": {"split": "test"}}]}, r"data_options\.split"),
        ({"attacks": [{**FOOLED, "data": "photos"}]}, "small_cnn takes 1 channels, got 3"),
        (
            {
                "attacks": [{**FOOLED, "against": "cam"}],
                "explainers": [{"name": "grad_cam", "layer": "net.conv9", "label": "cam"}],
            },
            "no module 'net.conv9'",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(tmp_path, changes, words):
    with pytest.raises(InvalidInput, match=words):
        run_experiment(tiny.spec(**{**CHANGES, **changes}), tmp_path, workers=1)


def test_an_experiment_without_training_says_so(tmp_path):
    with pytest.raises(InvalidInput, match="trains no network"):
        train_networks(tiny.spec(), tmp_path)


def test_a_foreign_weights_file_is_refused_with_the_reason(finished, tmp_path):
    (record,), _ = Store(finished).load_trainings()
    path = finished / "models" / f"{record.key}.safetensors"
    with pytest.raises(InvalidInput, match="was made for another network"):
        models.load("small_resnet", weights=path)
    assert json.loads(path.with_suffix(".json").read_text())["attack"] == "fooled"
    assert torch.is_tensor(next(iter(models.load("small_cnn", weights=path).parameters())))
