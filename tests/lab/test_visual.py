"""Explainers of the whole model: their own records, their own place in the report."""

import json

import numpy as np
import pytest

from robustlab import data, explainers, models
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import logits_of
from robustlab.lab.api import attack, explain
from robustlab.lab.run import prepare, run_experiment
from robustlab.records import Store
from tests.lab import tiny

MAKER = {"name": "activation_maximization", "steps": 4}
SMALL = {"images": 2, "attacks": ["none"], "explainers": ["gradient", MAKER], "classes": [3, 7]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visual")
    return run_experiment(tiny.spec(**SMALL), folder, workers=1)


def test_every_class_has_an_image_and_what_the_model_says_of_it(finished):
    (record,), problems = Store(finished.folder).load_visuals()
    assert not problems
    assert [row.target for row in record.images] == [3, 7]
    assert record.passes.forward == record.passes.backward == 2 * 4
    with np.load(Store(finished.folder).visual_path(record.key, ".npz")) as file:
        pixels = file["images"]
    assert pixels.shape == (2, 28, 28, 1)
    import torch

    images = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    logits = logits_of(models.load("small_cnn"), images)
    for row, said in zip(record.images, logits, strict=True):
        assert row.score == pytest.approx(float(said[row.target]), abs=0.1)  # 8-bit pixels
        assert row.prediction == int(said.argmax())


def test_the_report_shows_them_in_a_section_of_their_own(finished):
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "What the model looks for" in page
    assert page.count('alt="made for ') == 2
    results = (finished.folder / "results.csv").read_text(encoding="utf-8")
    assert "activation_maximization" not in results, "there is no map that could drift"


def test_a_second_run_makes_nothing_again_and_a_lost_one_comes_back(finished):
    spec = tiny.spec(**SMALL)
    (record,), _ = Store(finished.folder).load_visuals()
    before = tiny.contents(finished.folder / "visuals")
    again = run_experiment(spec, finished.folder, workers=1)
    assert again.resumed == again.cells
    assert tiny.contents(finished.folder / "visuals") == before
    path = Store(finished.folder).visual_path(record.key)
    path.write_text("{", encoding="utf-8")
    mended = run_experiment(spec, finished.folder, workers=1)
    assert mended.resumed == mended.cells - 1
    assert any(path.name in problem for problem in mended.problems)
    restored = json.loads(path.read_text(encoding="utf-8"))
    assert restored["images"] == json.loads(json.dumps(record.to_dict()))["images"]


def test_a_failure_is_a_record_and_shows(tmp_path, monkeypatch):
    def boom(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(explainers.EXPLAINERS[MAKER["name"]], "explain", boom)
    done = run_experiment(tiny.spec(**SMALL), tmp_path, workers=1)
    assert [title for title, _ in done.crashed] == ["activation_maximization of small_cnn"]
    assert "no luck" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_class_that_the_model_does_not_have_is_refused_before_work():
    with pytest.raises(InvalidInput, match="class 10 is out of range"):
        prepare(tiny.spec(**{**SMALL, "classes": [10]}))


@pytest.mark.parametrize("classes", [[1, 1], [-1], []])
def test_impossible_classes_are_refused(classes):
    with pytest.raises(InvalidInput, match="classes"):
        tiny.spec(classes=classes)


def test_notebooks_are_told_that_there_is_no_map():
    model, batch = models.load("small_cnn"), data.load("mnist_5k").batch(1)
    maker = explainers.build("activation_maximization")
    with pytest.raises(InvalidInput, match="explains the model by an image"):
        explain(model, maker, batch)
    from attacks import build

    with pytest.raises(InvalidInput, match="explains the model by an image"):
        attack(model, maker, build("none"), batch)
