"""Models that an experiment trains itself: once, to weights that anybody can make again."""

import json

import pytest
import torch

from attacks.inner import SignSearch
from robustlab import data, explainers, models, training
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.streaming import logits_of
from robustlab.core.threads import one_thread
from robustlab.lab import training as lab_training
from robustlab.lab.plan import make_plan
from robustlab.lab.run import run_experiment, train_networks
from robustlab.metrics import build as metric
from robustlab.models import zoo
from robustlab.models.weight_files import read_weights
from robustlab.records import Store
from robustlab.reporting import load
from robustlab.training.loop import Schedule
from robustlab.training.train import train
from tests.lab import tiny

COMMON = {"data": {"name": "fashion_3k"}, "images": 60, "held_out": 40, "epochs": 2,
          "batch_size": 20}  # fmt: skip
ROBUST = {"objective": {"name": "adversarial", "epsilon": 0.1, "steps": 2}, "start": "plain"}
MODELS = [
    {"name": "small_cnn", "label": "plain", "train": "natural"},
    {"name": "small_cnn", "label": "robust", "train": ROBUST},
    {"name": "small_cnn", "label": "half", "train": {"objective": "natural", "weights": "float16"}},
]
CHANGES = {
    "training": COMMON,
    "models": MODELS,
    "data": {"name": "fashion_3k"},
    "attacks": ["none", {"name": "other_weights", "weights": "mnist_5k"}],
    "budgets": [],
    "metrics": ["spearman"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("courses")
    assert run_experiment(tiny.spec(**CHANGES), folder, workers=1).crashed == ()
    return folder


def trained(folder, label):
    """The record of one training and the network that it has left."""
    record = next(r for r in Store(folder).load_trainings()[0] if r.model == label)
    return record, models.load("small_cnn", weights=folder / "models" / f"{record.key}.safetensors")


def by_hand(objective, start=None):
    """What the training is, without the lab."""
    model = models.load("small_cnn", weights="none")
    if start is not None:
        model.load_state_dict(start.state_dict())
    batch = data.load("fashion_3k", split="train").batch(60)
    plan = Schedule(epochs=2, batch_size=20, learning_rate=1e-3, decay="cosine", mode="train")
    with one_thread():
        history = train(model, objective, batch, plan, SignSearch())
    return model, history


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_weights_are_those_of_the_objective_the_schedule_and_the_start(finished):
    plain, history = by_hand(training.build("natural"))
    record, found = trained(finished, "plain")
    assert same(found, plain)
    assert [dict(h) for h in record.history] == [dict(h) for h in history]
    robust, _ = by_hand(training.build("adversarial", epsilon=0.1, steps=2), start=plain)
    assert same(trained(finished, "robust")[1], robust)
    assert not same(robust, by_hand(training.build("adversarial", epsilon=0.1, steps=2))[0])


def test_what_is_measured_is_what_is_kept(finished):
    held = data.load("fashion_3k").batch(40)
    for label in ("plain", "robust", "half"):
        record, model = trained(finished, label)
        right = (logits_of(model, held.images).argmax(1) == held.labels).double().mean()
        assert record.accuracy_after == float(right)
        assert (record.attack, record.against, record.held_out) == (
            "adversarial" if label == "robust" else "natural", "", 40,
        )  # fmt: skip
    path = finished / "models" / f"{trained(finished, 'half')[0].key}.safetensors"
    kept = read_weights(path)
    assert {t.dtype for t in kept.values()} == {torch.float16}
    whole = trained(finished, "plain")[1].net.state_dict()
    assert all(torch.equal(kept[name], tensor.half()) for name, tensor in whole.items())


def test_cells_look_at_the_trained_network(finished):
    _, model = trained(finished, "robust")
    other = models.load("small_cnn", weights="mnist_5k")
    cells = [r for r in load(finished).records if r.cell.model == "robust"]
    assert len(cells) == 2 * tiny.CHUNKS
    for cell in cells:
        batch = data.load("fashion_3k").pick(cell.cell.ids)
        targets = logits_of(model, batch.images).argmax(1)
        shown = model if cell.cell.attack == "none" else other
        maps = [
            explain_maps(m, explainers.build("gradient"), batch.images, targets, None)
            for m in (model, shown)
        ]
        found = [row.values["gradient"]["spearman"] for row in cell.images]
        assert found == pytest.approx(metric("spearman")(*maps).tolist(), abs=1e-6)
        assert [row.prediction for row in cell.images] == targets.tolist()


def test_neither_workers_nor_order_change_a_byte(finished, tmp_path):
    run_experiment(tiny.spec(**CHANGES), tmp_path, workers=2, order=lambda units: units[::-1])
    assert tiny.numbers(tmp_path) == tiny.numbers(finished)
    assert (tmp_path / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


def test_a_second_run_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(lab_training, "_train", None)
    before = tiny.contents(finished / "models")
    run_experiment(tiny.spec(**CHANGES), finished, workers=1)
    assert tiny.contents(finished / "models") == before


def test_checkpoints_are_what_the_zoo_loads(finished, tmp_path, monkeypatch):
    train_networks(tiny.spec(**CHANGES), finished, checkpoints=tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    assert zoo.zoo() == ["half", "plain", "robust"]
    images = data.load("fashion_3k").batch(4).images
    for label in zoo.zoo():
        loaded = models.load(f"zoo:{label}")
        assert torch.equal(loaded(images), trained(finished, label)[1](images))
    card = json.loads((tmp_path / "robust.json").read_text(encoding="utf-8"))
    assert card["objective"] == {
        "name": "adversarial", "epsilon": 0.1, "steps": 2, "step_size": None, "random_start": True,
    }  # fmt: skip
    assert (card["start"], card["data"], card["train_images"]) == ("plain", "fashion_3k", 60)
    assert card["accuracy"] == trained(finished, "robust")[0].accuracy_after
    (tmp_path / "robust.safetensors").write_bytes((tmp_path / "plain.safetensors").read_bytes())
    with pytest.raises(InvalidInput, match="its card says"):
        models.load("zoo:robust")
    with pytest.raises(InvalidInput, match="did you mean 'plain'"):
        models.load("zoo:plan")


def test_only_what_is_asked_for_is_trained_and_what_it_goes_on_from(finished, tmp_path):
    records = train_networks(tiny.spec(**CHANGES), tmp_path, only=["robust"])
    assert [r.model for r in records] == ["plain", "robust"]
    assert [r.sha256 for r in records] == [trained(finished, r.model)[0].sha256 for r in records]
    with pytest.raises(InvalidInput, match=r"no trained model is labelled 'robst'; .*'robust'"):
        train_networks(tiny.spec(**CHANGES), tmp_path, only=["robst"])


def test_a_change_of_the_first_course_is_one_of_those_that_go_on_from_it():
    dataset = data.load("fashion_3k")

    def keys(**common):
        made = make_plan(tiny.spec(**{**CHANGES, "training": {**COMMON, **common}}), dataset)
        return {t.model.label: t.key for t in made.trainings}, {c.key for c in made.cells}

    models_before, cells_before = keys()
    models_after, cells_after = keys(epochs=3)
    assert not set(models_before.values()) & set(models_after.values())
    assert not cells_before & cells_after
    shorter = [{**MODELS[0], "train": {"objective": "natural", "epochs": 1}}, *MODELS[1:]]
    made = make_plan(tiny.spec(**{**CHANGES, "models": shorter}), dataset)
    after = {t.model.label: t.key for t in made.trainings}
    assert {k for k in after if after[k] != models_before[k]} == {"plain", "robust"}


def test_a_training_that_fails_is_said_wherever_it_was_needed(tmp_path):
    wild = {"objective": "natural", "learning_rate": 1e30}
    broken = [{**MODELS[0], "train": wild}, MODELS[1], MODELS[2]]
    outcome = run_experiment(tiny.spec(**{**CHANGES, "models": broken}), tmp_path, workers=1)
    said = dict(outcome.crashed)
    assert "Diverged" in said["training of plain"]
    assert "no file" in said["training of robust"] or "failed" in said["training of robust"]
    assert any("the training of plain failed: Diverged" in reason for _, reason in outcome.crashed)
    done = {r.cell.model: r.outcome for r in load(tmp_path).records}
    assert done == {"plain": "crashed", "robust": "crashed", "half": "ok"}
    assert "failed: Diverged" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_has_a_row_for_each(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Trained here" in page
    assert "Trained to deceive" not in page
    assert "adversarial (epsilon 0.1, steps 2), from plain" in page


def test_a_network_of_the_zoo_is_trained_already(tmp_path):
    model = {"name": "zoo:mnist_natural", "label": "again", "train": "natural"}
    with pytest.raises(InvalidInput, match=r"models\.0\.train: zoo:mnist_natural is trained"):
        run_experiment(tiny.spec(**{**CHANGES, "models": [model]}), tmp_path)


@pytest.mark.parametrize(
    ("train_", "words"),
    [
        (
            {"objective": {"name": "curvature", "beta": None}},
            r"models \(plain\.train\): model: its logits are piecewise linear",
        ),
        ("naturel", r"models\.0\.train\.objective: training: .*did you mean 'natural'"),
        ({"objective": {"name": "adversarial", "epsilon": 8}}, "wider than the pixel box"),
        ({"objective": {"name": "natural", "epsilon": 0.1}}, "takes no options"),
        ({"epochs": 0}, r"models\.0\.train\.epochs"),
        ({"epoch": 3}, r"models\.0\.train\.epoch: there is no such key.*'epochs'"),
        ({"start": "plain"}, r"models\.0\.train\.start: no model before it .* 'plain'"),
        ({"data": {"name": "mnist"}}, r"models\.0\.train\.data: mnist\.root"),
        ({"data": {"name": "mnist", "root": "nowhere"}}, "offline, put MNIST/raw"),
        ({"data": {"name": "mnist_5k", "split": "test"}}, r"data_options\.split"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(train_, words, tmp_path):
    first = {"name": "small_cnn", "label": "plain", "train": train_}
    with pytest.raises(InvalidInput, match=words):
        run_experiment(tiny.spec(**{**CHANGES, "models": [first]}), tmp_path)
    assert not list((tmp_path / "cells").glob("*")) and not (tmp_path / "models").exists()
