"""Attacks on the model: the same images and classes, explained on another network."""

import pytest
import torch

from attacks import build
from robustlab import data, explainers, models
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
from robustlab.core.streaming import logits_of
from robustlab.lab.api import attack
from robustlab.lab.run import run_experiment
from robustlab.metrics import build as metric
from robustlab.records import Store
from robustlab.reporting import load, summarise
from tests.lab import tiny

DISTURBED = [
    {"name": "random_weights", "share": 0.25, "label": "last layer"},
    {"name": "random_weights", "label": "all layers"},
]
CHANGES = {"attacks": DISTURBED, "budgets": [], "explainers": ["gradient", "lrp"], "seeds": [3]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_experiment(tiny.spec(**CHANGES), tmp_path_factory.mktemp("models"), workers=1)


def test_the_numbers_are_those_of_the_two_models(finished):
    record = next(r for r in load(finished.folder).records if r.cell.attack == "all layers")
    batch = data.load("mnist_5k").pick(record.cell.ids)
    model = models.load("small_cnn")
    torch.manual_seed(0)
    other = build("random_weights").manipulate(
        tiny.problem(model, explainers.build("gradient"), batch, seed=3)
    )
    targets = logits_of(model, batch.images).argmax(1)
    maps = [
        to_maps(explainers.build("gradient").explain(m, batch.images, targets), "abs_sum", (28, 28))
        for m in (model, other)
    ]
    expected = metric("spearman")(*maps)
    for i, row in enumerate(record.images):
        assert row.values["gradient"]["spearman"] == pytest.approx(float(expected[i]), abs=1e-6)
        assert row.prediction_after == int(logits_of(other, batch.images)[i].argmax())
        assert (row.radius, row.outcome) == (0.0, "ok")


def test_the_report_reads_them_the_other_way_round(finished):
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "Disturbed models" in page
    assert "no random-sign control" not in page.lower()
    rows = summarise(load(finished.folder))
    assert {row.disturbs for row in rows} == {"model"}
    assert not any("random sign" in flag for row in rows for flag in row.flags)


def test_a_notebook_does_it_without_a_budget():
    model, batch = models.load("small_cnn"), data.load("mnist_5k").batch(2)
    gradient = explainers.build("gradient")
    result = attack(model, gradient, build("random_weights"), batch)
    assert torch.equal(result.images, batch.images)
    assert result.outcomes == ("ok", "ok")
    assert (result.forwards, result.backwards) == (0, 0)
    assert float(result.drift("spearman").max()) < 0.9
    with pytest.raises(InvalidInput, match="budget"):
        attack(model, gradient, build("fgsm"), batch)


def test_a_shift_that_the_model_undoes_reads_like_an_attack_on_images(tmp_path):
    spec = tiny.spec(
        explainers=["gradient", "input_x_gradient"], budgets=[], images=2,
        attacks=[{"name": "constant_shift", "by": -1.0}],
    )  # fmt: skip
    outcome = run_experiment(spec, tmp_path, workers=1)
    assert outcome.crashed == ()
    (record,), _ = Store(tmp_path).load_all()
    for image in record.images:
        assert image.kept
        assert image.outcome == "ok"
        assert image.confidence_after == pytest.approx(image.confidence, abs=1e-6)
        assert image.values["gradient"]["spearman"] == pytest.approx(1)
        assert image.values["input_x_gradient"]["spearman"] < 0.9
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Disturbed models" not in page
    assert "no random-sign control" not in page
