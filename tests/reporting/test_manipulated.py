"""The section on trained networks: what it says of one that fools, one that collapsed, one lost."""

from dataclasses import replace

import pytest

from robustlab.records import TrainingRecord
from robustlab.reporting.manipulated import manipulated, manipulated_headlines, success
from robustlab.reporting.summary import summarise

TRAINED = TrainingRecord(
    key="k", model="", attack="top_k", against="", seed=0, outcome="ok", data="mnist_5k",
    train_images=4000, held_out=1000, accuracy_before=0.968, accuracy_after=0.96,
    agreement=0.975, most_lost=0.02, history=({"task": 0.1, "map": 0.5},),
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(run):
    """The fixture's top_k as if it had been trained against its explainers."""
    table = summarise(run)
    row = next(
        r for r in table if r.attack == "top_k" and r.against == r.explainer and r.mean is not None
    )
    trained = replace(TRAINED, model=row.model, against=row.against)
    return trained, row, table, run.manifest


def test_the_sentence_has_the_task_and_the_maps(scene):
    trained, row, table, manifest = scene
    (sentence,) = manipulated_headlines([trained], table, manifest)
    assert f"trained to fool {row.against} of {row.model}" in sentence
    assert "right about 96.0\u202f% of 1,000 held-out images, 96.8\u202f% before" in sentence
    assert "agrees with it on 97.5\u202f%" in sentence
    (shown,) = manipulated([trained], table, manifest)
    assert (shown.outcome, shown.collapsed, shown.agreement) == (
        "kept its task", False, "97.5\u202f%",
    )  # fmt: skip
    assert shown.loss == "task 0.100, map 0.500" and shown.file == "models/k.safetensors"


def test_a_rate_counts_for_the_attacks_own_goal_only(scene):
    trained, row, _, manifest = scene
    info = manifest.metrics[row.metric]
    rate = replace(info, name="fooling_success_rate", options={"goal": "location"})
    attack = manifest.attacks["top_k"]
    for name, found in (("location_fooling", True), ("top_k_fooling", False), ("top_k", False)):
        changed = replace(
            manifest,
            metrics={**manifest.metrics, row.metric: rate},
            attacks={**manifest.attacks, "top_k": replace(attack, name=name)},
        )
        one = success(trained, [row], changed)
        assert (one is row) == found


def test_what_has_collapsed_or_failed_fools_nobody(scene):
    trained, _, table, manifest = scene
    collapsed = replace(trained, outcome="collapsed", accuracy_after=0.1)
    crashed = replace(trained, outcome="crashed", error="Diverged: map is nan")
    said = manipulated_headlines([collapsed, crashed], table, manifest)
    assert "collapsed and fools nobody" in said[0] and "more than 2\u202f% is lost" in said[0]
    assert said[1] == "top_k could not be trained: Diverged: map is nan."
    rows = manipulated([collapsed, crashed], table, manifest)
    assert all(row.collapsed for row in rows) and rows[1].file == ""


def test_without_labels_agreement_counts(scene):
    trained, _, table, manifest = scene
    unlabelled = replace(trained, accuracy_before=None, accuracy_after=None)
    (sentence,) = manipulated_headlines([unlabelled], table, manifest)
    assert "agrees with it on 97.5\u202f% of 1,000 images" in sentence


def test_without_training_there_is_no_section(folder):
    assert 'id="manipulated"' not in (folder / "report.html").read_text(encoding="utf-8")
