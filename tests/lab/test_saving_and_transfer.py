"""What is left of a disturbed image in a file, and what it does to another model."""

import numpy as np
import pytest
import torch

import attacks
import robustlab as rl
from robustlab import metrics
from robustlab.core.errors import InvalidInput
from robustlab.core.saving import FORMATS, read_back
from robustlab.core.streaming import logits_of
from robustlab.lab.run import prepare, run_experiment
from robustlab.records import Store
from tests.lab import tiny

TOP_K = {"name": "top_k", "k": 20, "steps": 2}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    run_experiment(tiny.spec(saving=list(FORMATS)), folder, workers=1)
    found, problems = Store(folder).load_all()
    assert not problems
    return Store(folder), found


def explained_again(record, images):
    """Maps and metrics by hand, through the library's front door."""
    batch = rl.data.load("mnist_5k").pick(record.cell.ids)
    model = rl.models.load("small_cnn")
    clean_said = logits_of(model, batch.images).argmax(1)
    for name in record.cell.explainers:
        explainer = rl.explainers.build(name)
        clean, again = (
            rl.core.judge.explain_maps(model, explainer, x, clean_said, batch.ids)
            for x in (batch.images, images)
        )
        yield name, clean, again, logits_of(model, images).argmax(1) == clean_said


def test_attacks_and_the_no_op_are_saved_and_controls_are_not(records):
    for record in records[1]:
        wanted = set() if record.cell.role == "control" else set(FORMATS)
        assert {frozenset(image.saved) for image in record.images} == {frozenset(wanted)}


def test_png_is_the_stored_picture_explained_again(records):
    store, found = records
    record = next(r for r in found if r.cell.attack == "top_k")
    with np.load(store.artefact_path(record.key)) as arrays:
        pixels = torch.from_numpy(arrays["attacked"]).movedim(-1, 1).float() / 255
    assert len(pixels) == len(record.images)
    for name, clean, again, kept in explained_again(record, pixels):
        values = metrics.build("top_k_intersection", k=50)(clean, again)
        for i, image in enumerate(record.images):
            row = image.saved["png"]
            assert row.values[name]["top_k_intersection"] == pytest.approx(float(values[i]))
            assert row.kept == bool(kept[i])
            moved = 1 - image.values[name]["top_k_intersection"]
            left = 1 - float(values[i])
            expected = None if moved == 0 and row.kept == image.kept else left >= moved / 2
            assert row.survives[name] == (expected if row.kept == image.kept else False)


def test_the_no_op_shows_what_the_file_alone_does(records):
    record = next(r for r in records[1] if r.cell.attack == "none")
    clean = rl.data.load("mnist_5k").pick(record.cell.ids).images
    for file_format in ("png", "jpeg_75"):
        for name, before, after, kept in explained_again(record, read_back(clean, file_format)):
            values = metrics.build("spearman")(before, after)
            for i, image in enumerate(record.images):
                row = image.saved[file_format]
                assert row.values[name]["spearman"] == pytest.approx(float(values[i]), abs=1e-6)
                assert row.survives[name] is None or row.kept != bool(kept[i])
                if file_format == "png":
                    assert row.values[name]["spearman"] == pytest.approx(1), "8-bit already"


def test_nothing_is_saved_where_nothing_was_asked_for(tmp_path):
    run_experiment(tiny.spec(saving=[], images=2), tmp_path, workers=1)
    found, _ = Store(tmp_path).load_all()
    assert all(image.saved == {} for record in found for image in record.images)


# --- transfer between models ------------------------------------------------------------------

MODELS = ["small_cnn", {"name": "small_resnet"}]


def test_an_attack_made_on_one_model_is_judged_on_the_other(tmp_path):
    spec = tiny.spec(
        models=MODELS, images=2, explainers=["gradient"], saving=[],
        attacks=[{**TOP_K, "made_on": "small_resnet"}],
        metrics=[{"name": "top_k_intersection", "k": 50}],
    )  # fmt: skip
    run_experiment(spec, tmp_path, workers=1)
    found, _ = Store(tmp_path).load_all()
    batch = rl.data.load("mnist_5k").pick(found[0].cell.ids)
    explainer, budget = rl.explainers.build("gradient"), rl.Budget("linf", 0.1)
    surrogate, model = rl.models.load("small_resnet"), rl.models.load("small_cnn")
    made = rl.attack(surrogate, explainer, attacks.build(**TOP_K), batch, budget)
    for record in (r for r in found if r.cell.role == "attack"):
        own = record.cell.model == "small_resnet"
        assert record.cell.made_on == (None if own else "small_resnet")
        judge = surrogate if own else model
        said = logits_of(judge, batch.images).argmax(1)
        before, after = (
            rl.core.judge.explain_maps(judge, explainer, x, said, batch.ids)
            for x in (batch.images, made.images)
        )
        values = metrics.build("top_k_intersection", k=50)(before, after)
        kept = logits_of(judge, made.images).argmax(1) == said
        for i, image in enumerate(record.images):
            assert image.values["gradient"]["top_k_intersection"] == pytest.approx(float(values[i]))
            assert image.kept == bool(kept[i])
    controls = [r for r in found if r.cell.role == "control"]
    assert {(r.cell.model, r.cell.made_on) for r in controls} == {
        ("small_cnn", "small_resnet"), ("small_resnet", None),
    }  # fmt: skip


def test_a_model_that_is_not_in_the_experiment_is_named():
    with pytest.raises(InvalidInput, match=r"attacks\.0\.made_on: no model is labelled 'vgg'"):
        prepare(tiny.spec(attacks=[{**TOP_K, "made_on": "vgg"}]))
