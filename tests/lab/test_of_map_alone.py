"""Metrics of one map alone, and those that ask for its values, in an experiment and its report."""

import json
import re

import pytest
import torch

import robustlab as rl
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.randomness import generator
from robustlab.core.streaming import logits_of
from robustlab.lab.run import prepare
from robustlab.records import Manifest, Store
from robustlab.reporting import load
from robustlab.reporting.summary import summarise
from tests.lab import beside_drift, tiny

INFIDELITY = {"samples": 8}
ROAD = {"percentages": [20, 60]}
METRICS = [
    {"name": "sparseness"},
    {"name": "top_k_intersection", "k": 50},
    {"name": "complexity"},
    {"name": "infidelity", **INFIDELITY},
    {"name": "road", **ROAD},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return beside_drift.run(tmp_path_factory.mktemp("alone"), METRICS)


@pytest.fixture(scope="module")
def records(folder):
    return beside_drift.records_of(folder)


@pytest.fixture(scope="module")
def page(folder):
    return beside_drift.text_of((folder / "report.html").read_text(encoding="utf-8"))


def looked_at(record):
    """(model, pictures, classes, maps by explainer) by the front door."""
    batch, model = rl.data.load("mnist_5k").pick(record.cell.ids), rl.models.load("small_cnn")
    images = beside_drift.images_of(record, model, batch)
    targets = logits_of(model, batch.images).argmax(1)
    explainers = {name: rl.explainers.build(name) for name in record.cell.explainers}
    maps = {
        name: explain_maps(model, explainer, images, targets, batch.ids)
        for name, explainer in explainers.items()
    }
    return model, images, targets, maps


def found(record, explainer, metric, kind="values"):
    return [getattr(image, kind)[explainer].get(metric) for image in record.images]


@pytest.mark.parametrize("role", ["none", "attack"])
def test_the_record_has_the_values_of_a_direct_call(records, role):
    for record in (r for r in records if r.cell.role == role):
        model, images, targets, maps = looked_at(record)
        for name, own in maps.items():
            for label in ("sparseness", "complexity"):
                value = rl.metrics.build(label).describe(own).tolist()
                assert found(record, name, label) == pytest.approx(value, abs=1e-6)
                assert found(record, name, label, "chance") == [None] * len(images)
            for label, options in (("infidelity", INFIDELITY), ("road", ROAD)):
                metric = rl.metrics.build(label, **options)
                value = metric.assess(model, images, targets, own, record.cell.ids).tolist()
                assert found(record, name, label) == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_chance_of_a_metric_of_values_is_the_map_itself_in_disorder(records):
    (record, *_) = (r for r in records if r.cell.role == "attack")
    model, images, targets, maps = looked_at(record)
    orders = [torch.randperm(784, generator=generator(0, i, "chance")) for i in record.cell.ids]
    metric = rl.metrics.build("infidelity", **INFIDELITY)
    for name, own in maps.items():
        mixed = own.flatten(1).gather(1, torch.stack(orders)).view_as(own)
        value = metric.assess(model, images, targets, mixed, record.cell.ids).tolist()
        by_chance = found(record, name, "infidelity", "chance")
        assert by_chance == pytest.approx(value, rel=1e-4, abs=1e-6)
        ranks = torch.stack(orders).view_as(own).float()  # canary: as of metrics of order
        other = metric.assess(model, images, targets, ranks, record.cell.ids).tolist()
        assert by_chance != pytest.approx(other, rel=1e-4)
    # of the order alone, all explainers share one number
    assert found(record, "gradient", "road", "chance") == found(
        record, "grad_cam", "road", "chance"
    )


def test_the_manifest_says_which_metrics_describe(folder):
    metrics = Store(folder).manifest().metrics
    assert [label for label, info in metrics.items() if info.of_map_alone] == [
        "sparseness",
        "complexity",
    ]
    assert [label for label, info in metrics.items() if info.of_model] == ["infidelity", "road"]
    whole = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    for info in whole["metrics"].values():
        del info["of_map_alone"]
    assert not Manifest.from_dict(whole).metrics["sparseness"].of_one_map  # a folder from before


def test_the_report_describes_and_judges_nothing(folder, page):
    assert page.count("Neither end is better; from 0") == 2
    assert "a shuffled map scores the same" in page
    assert "sparseness describes a map and has no better end" in page
    (headline,) = re.findall(
        r"At ε = 0.1 the top_k attack brings sparseness of gradient[^.]*", page
    )
    assert "unmoved" not in headline and "random orders" not in headline
    rows = [r for r in summarise(load(folder)) if r.metric in ("sparseness", "complexity")]
    assert {r.beats_control for r in rows} == {""} and all(r.chance is None for r in rows)
    assert any(r.control is not None for r in rows if r.role == "attack")
    flags = {flag for r in rows for flag in r.flags}
    assert not [flag for flag in flags if "random" in flag or "chance" in flag or "moves" in flag]
    # metrics of two maps beside them are judged as ever
    drift = [r for r in summarise(load(folder)) if r.metric == "top_k_intersection"]
    assert any(r.beats_control for r in drift)


def test_survival_in_a_file_is_by_the_metric_of_two_maps(records):
    for record in (r for r in records if r.cell.role == "attack"):
        for image in record.images:
            row = image.saved["png"]
            assert row.values["gradient"]["sparseness"] > 0
            far = 1 - image.values["gradient"]["top_k_intersection"]
            left = 1 - row.values["gradient"]["top_k_intersection"]
            if far > 0 and row.kept == image.kept:
                assert row.survives["gradient"] == (left >= far / 2)


def test_a_notebook_is_told_that_it_is_no_drift():
    made = beside_drift.attacked()
    with pytest.raises(InvalidInput, match="'sparseness' describes one map, it does not compare"):
        made.drift("sparseness")
    with pytest.raises(InvalidInput, match="'road' asks the model about one map"):
        made.drift("road")


def test_options_that_cannot_work_are_refused_before_the_run():
    bad = [{"name": "sparseness"}, {"name": "infidelity", "samples": 1}]
    with pytest.raises(InvalidInput, match=r"metrics\.1.*samples: must be at least 2"):
        prepare(tiny.spec(metrics=bad))
