"""Metrics that ask an explainer for further maps, in a notebook, an experiment and its report."""

import json

import pytest

import robustlab as rl
from attacks.explanation.climbing import climb_to
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import pose
from robustlab.lab.run import prepare
from robustlab.records import Manifest, Store
from robustlab.reporting import load
from robustlab.reporting.summary import summarise
from tests.lab import beside_drift, tiny

SMALL = {"radius": 0.05, "samples": 3}
SEARCH = {**SMALL, "search": "gradient", "steps": 4}
METRICS = [
    {"name": "max_sensitivity", **SMALL},
    {"name": "max_sensitivity", **SEARCH, "label": "searched"},
    {"name": "ris", **SMALL, "compare": "raw"},
    {"name": "top_k_intersection", "k": 50},
]
LABELS = ("max_sensitivity", "searched", "ris")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return beside_drift.run(tmp_path_factory.mktemp("examined"), METRICS)


@pytest.fixture(scope="module")
def records(folder):
    return beside_drift.records_of(folder)


def test_the_record_has_the_values_of_a_direct_call_at_the_disturbed_image(records):
    model = rl.models.load("small_cnn")
    for record in (r for r in records if r.cell.role != "control"):
        batch = rl.data.load("mnist_5k").pick(record.cell.ids)
        targets = pose(model, rl.explainers.build("gradient"), batch).targets
        images = beside_drift.images_of(record, model, batch)
        disturbed = rl.Batch(images, targets, batch.ids, batch.names)
        for name in record.cell.explainers:
            explainer = rl.explainers.build(name)
            for label, metric in zip(LABELS, METRICS, strict=False):
                options = {k: v for k, v in metric.items() if k not in ("name", "label")}
                asked = rl.metrics.build(metric["name"], **options)
                value = rl.examine(model, explainer, disturbed, asked, target="label").tolist()
                found = [image.values[name][label] for image in record.images]
                assert found == pytest.approx(value, rel=2e-3, abs=1e-6)
                assert [image.chance[name].get(label) for image in record.images] == [None] * len(
                    found
                )
            for image in record.images:
                values = image.values[name]
                assert values["searched"] >= values["max_sensitivity"] > 0


def test_an_explainer_is_examined_on_what_is_left_in_a_file_too(records):
    for record in (r for r in records if r.cell.role == "attack"):
        for image in record.images:
            assert image.saved["png"].values["gradient"]["max_sensitivity"] > 0


def test_the_manifest_says_so_and_an_old_one_does_not(folder):
    metrics = Store(folder).manifest().metrics
    assert [label for label, info in metrics.items() if info.of_explainer] == [*LABELS]
    assert all(metrics[label].of_one_map and metrics[label].perfect == 0 for label in LABELS)
    whole = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    for info in whole["metrics"].values():
        del info["of_explainer"]
    assert not Manifest.from_dict(whole).metrics["ris"].of_one_map


def test_the_report_sets_the_sampled_beside_the_searched(folder, records):
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = beside_drift.text_of(html)
    assert 'id="searched"' in html and "Sampled and searched" in page
    assert "a sampled number is a lower bound" in page
    assert "3 random copies, radius 0.05" in page and "search by gradient, 4 steps" in page
    assert "on 3 of 3 images" in page
    assert "Lower is better; from 0" in page
    rows = [r for r in summarise(load(folder)) if r.metric in LABELS]
    assert all(r.chance is None for r in rows)
    assert not [f for r in rows for f in r.flags if "moves without" in f or "chance" in f]


def test_the_front_door_is_the_metric_itself():
    model, batch = rl.models.load("small_cnn"), rl.data.load("mnist_5k").batch(2)
    explainer = rl.explainers.build("grad_cam")
    metric = rl.metrics.build("max_sensitivity", **SEARCH)
    expected = metric.examine(pose(model, explainer, batch), climb_to)
    assert rl.examine(model, explainer, batch, metric).tolist() == expected.tolist()
    other = rl.examine(model, explainer, batch, metric, target=3)
    assert other.tolist() != expected.tolist()
    for wrong in ("spearman", "sparseness", "deletion"):
        with pytest.raises(InvalidInput, match=f"'{wrong}' asks an explainer for nothing"):
            rl.examine(model, explainer, batch, rl.metrics.build(wrong))


def test_it_is_no_drift():
    made = beside_drift.attacked()
    with pytest.raises(InvalidInput, match="'max_sensitivity' asks the explainer for maps"):
        made.drift("max_sensitivity")


@pytest.mark.parametrize(
    ("explainers", "metric", "words"),
    [
        (
            ["gradient", {"name": "lime", "samples": 40}],
            {"name": "ris", "search": "gradient"},
            r"metrics\.0 \(ris of lime\): search: Lime has no gradient.*evolution",
        ),
        (["gradient"], {"name": "rrs", "layer": "nowhere"}, r"rrs of gradient\): layer: .*nowhere"),
        (["gradient"], {"name": "max_sensitivity", "radius": 8}, "radius: must be above 0"),
        (["gradient"], {"name": "max_sensitivity", "radios": 1}, "radius"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(explainers, metric, words):
    with pytest.raises(InvalidInput, match=words):
        prepare(tiny.spec(explainers=explainers, metrics=[metric]))


def test_a_plan_counts_what_it_costs():
    plain, asked = (
        sum(c.cost for c in prepare(tiny.spec(metrics=m, attacks=["none"]))[0].cells)
        for m in (["spearman"], ["spearman", {"name": "max_sensitivity", "samples": 20}])
    )
    assert asked == pytest.approx(21 * plain)
