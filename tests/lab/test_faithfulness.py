"""Metrics that ask the model, in an experiment: what is recorded, its chance, and the report."""

import json
import re

import pytest
import torch

import attacks
import robustlab as rl
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.randomness import generator
from robustlab.core.saving import read_back
from robustlab.core.streaming import logits_of
from robustlab.lab.run import prepare, run_experiment
from robustlab.records import Manifest, Store
from robustlab.reporting import load
from robustlab.reporting.summary import summarise
from tests.lab import tiny

EXPLAINERS = ["gradient", "fixed_map"]
DELETION = {"steps": 7, "baseline": "black"}
TOP_K = {"k": 50, "steps": 2}
METRICS = [
    {"name": "deletion", **DELETION},
    {"name": "top_k_intersection", "k": 50},
    {"name": "insertion", "steps": 7},
]


def run(folder, **changes):
    spec = tiny.spec(**{
        "images": 3, "chunk": 2, "explainers": EXPLAINERS, "metrics": METRICS, "saving": ["png"],
        "attacks": ["none", {"name": "top_k", "against": "gradient", **TOP_K}],
        "gallery": {"images": 1}, **changes,
    })  # fmt: skip
    outcome = run_experiment(spec, folder, workers=1)
    assert outcome.crashed == ()
    found, problems = Store(folder).load_all()
    assert not problems
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faithful")


@pytest.fixture(scope="module")
def records(folder):
    return run(folder)


@pytest.fixture(scope="module")
def page(folder, records):
    html = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def attacked(record):
    """(model, clean pictures, disturbed pictures, explained classes) by the front door."""
    batch = rl.data.load("mnist_5k").pick(record.cell.ids)
    model = rl.models.load("small_cnn")
    images = batch.images
    if record.cell.attack == "top_k":
        attack = attacks.build("top_k", **TOP_K)
        images = rl.attack(
            model, rl.explainers.build("gradient"), attack, batch, rl.Budget("linf", 0.1)
        ).images
    return model, batch, images, logits_of(model, batch.images).argmax(1)


def random_order(ids, side=28):
    orders = [torch.randperm(side * side, generator=generator(0, i, "chance")) for i in ids]
    return torch.stack(orders).view(-1, side, side)


@pytest.mark.parametrize("role", ["none", "attack"])
def test_the_record_has_the_value_of_a_direct_call(records, role):
    of_role = [r for r in records if r.cell.role == role]
    assert len(of_role) == 2  # chunks
    for record in of_role:
        model, batch, images, targets = attacked(record)
        for label, options in (("deletion", DELETION), ("insertion", {"steps": 7})):
            metric = rl.metrics.build(label, **options)
            chance = metric.assess(model, images, targets, random_order(batch.ids), batch.ids)
            for name in EXPLAINERS:
                explainer = rl.explainers.build(name)
                maps = explain_maps(model, explainer, images, targets, batch.ids)
                stale = explain_maps(model, explainer, batch.images, targets, batch.ids)
                value = metric.assess(model, images, targets, maps, batch.ids)
                on_clean = metric.assess(model, batch.images, targets, stale, batch.ids)
                found = [image.values[name][label] for image in record.images]
                assert found == pytest.approx(value.tolist(), abs=1e-6)
                by_chance = [image.chance[name][label] for image in record.images]
                assert by_chance == pytest.approx(chance.tolist(), abs=1e-6)
                if role == "attack":  # canary: the clean picture with its clean map
                    assert found != pytest.approx(on_clean.tolist(), abs=1e-4)


def test_saved_pictures_are_asked_about_as_they_were_read(records):
    for record in (r for r in records if r.cell.role == "attack"):
        model, batch, images, targets = attacked(record)
        again = read_back(images, "png")
        maps = explain_maps(model, rl.explainers.build("gradient"), again, targets, batch.ids)
        value = rl.metrics.build("deletion", **DELETION).assess(
            model, again, targets, maps, batch.ids
        )
        rows = [image.saved["png"] for image in record.images]
        assert [r.values["gradient"]["deletion"] for r in rows] == pytest.approx(
            value.tolist(), abs=1e-6
        )
        # survival is about movement: of the first metric of two maps, not of deletion
        overlaps = [r.values["gradient"]["top_k_intersection"] for r in rows]
        moved = [1 - i.values["gradient"]["top_k_intersection"] for i in record.images]
        for row, overlap, far, image in zip(rows, overlaps, moved, record.images, strict=True):
            if far > 0 and row.kept == image.kept:
                assert row.survives["gradient"] == (1 - overlap >= far / 2)
            assert row.survives["fixed_map"] in (None, False)


def test_a_manipulated_model_is_the_one_that_is_asked(tmp_path):
    (record,) = (
        r
        for r in run(tmp_path, images=2, attacks=[{"name": "random_weights"}], saving=[])
        if r.cell.role == "attack"
    )
    batch = rl.data.load("mnist_5k").pick(record.cell.ids)
    true = rl.models.load("small_cnn")
    targets = logits_of(true, batch.images).argmax(1)
    explainer = rl.explainers.build("gradient")
    problem = tiny.problem(true, explainer, batch)
    other = attacks.build("random_weights").manipulate(problem)
    metric = rl.metrics.build("deletion", **DELETION)
    maps = explain_maps(other, explainer, batch.images, targets, batch.ids)
    value = metric.assess(other, batch.images, targets, maps, batch.ids).tolist()
    found = [image.values["gradient"]["deletion"] for image in record.images]
    assert found == pytest.approx(value, abs=1e-6)
    on_true = metric.assess(true, batch.images, targets, maps, batch.ids).tolist()
    assert found != pytest.approx(on_true, abs=1e-4)  # canary


def test_the_class_that_was_explained_is_the_one_that_is_asked_about(tmp_path):
    records = run(
        tmp_path, target="current", explainers=["gradient"], images=4, chunk=4, saving=[],
        attacks=[{"name": "pgd", "steps": 5}], budgets=[{"norm": "linf", "epsilon": [0.3]}],
    )  # fmt: skip
    (record,) = (r for r in records if r.cell.role == "attack")
    model, batch, _, targets = attacked(record)
    explainer, budget = rl.explainers.build("gradient"), rl.Budget("linf", 0.3)
    made = rl.attack(
        model, explainer, attacks.build("pgd", steps=5), batch, budget, target="current"
    )
    assert not made.prediction_kept.all()
    metric = rl.metrics.build("deletion", **DELETION)
    found = [image.values["gradient"]["deletion"] for image in record.images]
    value, other = (
        metric.assess(model, made.images, t, made.maps, batch.ids).tolist()
        for t in (made.predictions, targets)
    )
    assert found == pytest.approx(value, abs=1e-6)
    assert found != pytest.approx(other, abs=1e-4)  # canary


def test_the_control_is_the_most_stable_and_no_more_faithful_than_the_gradient(folder, records):
    rows = {(r.explainer, r.metric, r.role): r for r in summarise(load(folder))}
    assert rows["fixed_map", "top_k_intersection", "attack"].mean == 1
    assert rows["gradient", "top_k_intersection", "attack"].mean < 1
    still, useful = (rows[e, "deletion", "none"].mean for e in ("fixed_map", "gradient"))
    assert useful < still


# --- what the report makes of it ------------------------------------------------------------


def test_the_manifest_says_which_metrics_ask_the_model(folder, records):
    manifest = Store(folder).manifest()
    asks = {label: info.of_model for label, info in manifest.metrics.items()}
    assert asks == {"deletion": True, "top_k_intersection": False, "insertion": True}
    assert not any(info.of_region for info in manifest.metrics.values())
    assert manifest.metrics["deletion"].of_one_map
    # a manifest from before says neither
    whole = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    for info in whole["metrics"].values():
        del info["of_model"], info["of_region"]
    assert not any(info.of_one_map for info in Manifest.from_dict(whole).metrics.values())


def test_the_report_words_a_number_of_one_map_as_such(page):
    assert "Lower is more faithful; from 0 to 1; random orders score" in page
    assert "Higher is more faithful; from 0 to 1; random orders score" in page
    assert "Higher is more stable; from 0 to 1; two unrelated maps score" in page
    (headline,) = re.findall(r"At ε = 0.1 the top_k attack brings deletion of gradient[^;]*", page)
    assert ", where random orders have 0." in headline
    assert "is unmoved" not in headline


def test_no_map_is_said_to_move_by_itself(folder, records, page):
    assert "every map stays where it is" in page  # by top_k_intersection
    flags = {
        f for row in summarise(load(folder)) for f in row.flags if row.metric != METRICS[1]["name"]
    }
    assert not flags & {"moves without an attack", "near chance floor", "past the chance floor"}


def test_a_map_that_does_no_better_than_random_is_flagged(folder, records):
    info = load(folder).manifest.metrics
    for row in summarise(load(folder)):
        if info[row.metric].of_model and row.mean is not None:
            higher = info[row.metric].higher_is_more_stable
            beaten = row.mean > row.chance if higher else row.mean < row.chance
            assert ("no more faithful than random" in row.flags) == (not beaten)


# --- before any work is done ----------------------------------------------------------------


def test_more_steps_than_pixels_are_refused_before_the_run():
    bad = [{"name": "spearman"}, {"name": "deletion", "steps": 785}]
    with pytest.raises(InvalidInput, match=r"metrics\.1 \(deletion\): steps: 785 is more"):
        prepare(tiny.spec(metrics=bad))
