"""A picture or a weights file that changes under its name: no number of the old one is served."""

import json

import pytest
import torch
from PIL import Image

import robustlab as rl
from robustlab.lab.run import run_experiment
from robustlab.models.generator import GeneratorNet
from robustlab.models.weight_files import save_weights
from tests.cli.command import robustlab
from tests.lab import tiny

COLOURS = {"a.png": (200, 30, 30), "b.png": (30, 200, 30), "c.png": (30, 30, 200)}
PER_CHUNK = 7  # none, pgd and its control, top_k and its control twice
TABLES = ("results.csv", "summary.csv")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in COLOURS:
        paint(folder / name)
    return folder


def paint(path, colour=None):
    """A picture with some structure, so that explanations of it differ."""
    picture = Image.linear_gradient("L").resize((28, 28))
    Image.merge("RGB", [picture.point(lambda v, c=c: (v + c) % 256)
                        for c in colour or COLOURS[path.name]]).save(path)  # fmt: skip


def own(pictures, **changes):
    """The tiny experiment on one's own pictures, one image per cell."""
    return tiny.raw(
        models=[{"name": "small_cnn", "in_channels": 3, "weights": "none"}],
        data={"name": "image_folder", "path": str(pictures), "size": 28},
        chunk=1,
        **changes,
    )


def spec_of(values):
    return tiny.spec(**{key: value for key, value in values.items() if key != "name"})


def rows(folder, image):
    lines = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if image in line]


def same_tables(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in TABLES)


@pytest.mark.parametrize("workers", [1, 2])
def test_only_the_cells_of_a_changed_picture_are_computed_again(pictures, tmp_path, workers):
    spec, folder = spec_of(own(pictures)), tmp_path / "out"
    run_experiment(spec, folder, workers=workers)
    before, old = tiny.contents(folder / "cells"), {name: rows(folder, name) for name in COLOURS}

    again = run_experiment(spec, folder, workers=workers)
    assert again.resumed == again.cells == 3 * PER_CHUNK, "nothing has changed yet"

    paint(pictures / "b.png", (90, 10, 120))
    changed = run_experiment(spec, folder, workers=workers)
    assert (changed.resumed, changed.cells) == (2 * PER_CHUNK, 3 * PER_CHUNK)
    assert changed.problems == ()
    assert {name: rows(folder, name) == old[name] for name in COLOURS} == {
        "a.png": True, "b.png": False, "c.png": True,
    }  # fmt: skip
    after = tiny.contents(folder / "cells")
    assert {name: after[name] for name in before} == before, "what was measured stays on disk"

    run_experiment(spec, tmp_path / "afresh", workers=1)
    assert same_tables(folder, tmp_path / "afresh")


def test_a_picture_that_comes_back_finds_its_numbers(pictures, tmp_path):
    spec, folder = spec_of(own(pictures)), tmp_path / "out"
    run_experiment(spec, folder, workers=1)
    first = (folder / "results.csv").read_bytes()
    paint(pictures / "b.png", (90, 10, 120))
    run_experiment(spec, folder, workers=1)
    paint(pictures / "b.png")
    back = run_experiment(spec, folder, workers=1)
    assert back.resumed == back.cells
    assert (folder / "results.csv").read_bytes() == first


def test_a_picture_that_the_experiment_leaves_out_may_change(pictures, tmp_path):
    spec, folder = spec_of(own(pictures, images=2)), tmp_path / "out"
    run_experiment(spec, folder, workers=1)
    paint(pictures / "c.png", (90, 10, 120))
    outcome = run_experiment(spec, folder, workers=1)
    assert outcome.resumed == outcome.cells == 2 * PER_CHUNK


def test_a_changed_label_is_noticed(pictures, tmp_path):
    spec, folder = spec_of(own(pictures)), tmp_path / "out"
    labels = pictures / "labels.csv"
    labels.write_text("file,label\na.png,0\nb.png,0\nc.png,0\n")
    run_experiment(spec, folder, workers=1)
    labels.write_text("file,label\na.png,0\nb.png,7\nc.png,0\n")
    outcome = run_experiment(spec, folder, workers=1)
    assert (outcome.resumed, outcome.cells) == (2 * PER_CHUNK, 3 * PER_CHUNK)
    run_experiment(spec, tmp_path / "afresh", workers=1)
    assert same_tables(folder, tmp_path / "afresh")


def test_changed_weights_are_noticed(tmp_path):
    path, folder = tmp_path / "w.safetensors", tmp_path / "out"
    spec = tiny.spec(models=[{"name": "small_cnn", "weights": str(path)}], images=2)
    for seed in (0, 1):
        save_weights(rl.models.load("small_cnn", weights="none", seed=seed).net, path)
        outcome = run_experiment(spec, folder, workers=1)
        assert (outcome.resumed, outcome.cells) == (0, PER_CHUNK)
    again = run_experiment(spec, folder, workers=1)
    assert again.resumed == again.cells
    run_experiment(spec, tmp_path / "afresh", workers=1)
    assert same_tables(folder, tmp_path / "afresh")


def generator_maker(path):
    return {
        "spec": {"attacks": ["none"], "classes": [1], "images": 2, "explainers": ["gradient",
                 {"name": "dgn_am", "generator": str(path), "steps": 1}]},
        "write": lambda seed: save_weights(_seeded(GeneratorNet, seed), path),
        "fresh": 1,
    }  # fmt: skip


def other_weights(path):
    return {
        "spec": {"attacks": [{"name": "other_weights", "weights": str(path)}], "images": 2},
        "write": lambda seed: save_weights(
            rl.models.load("small_cnn", weights="none", seed=seed).net, path
        ),
        "fresh": 1,
    }


def _seeded(make, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


@pytest.mark.parametrize("component", [generator_maker, other_weights])
def test_changed_files_of_explainers_and_attacks_are_noticed(component, tmp_path):
    case = component(tmp_path / "w.safetensors")
    case["write"](0)
    spec = tiny.spec(**case["spec"])
    first = run_experiment(spec, tmp_path / "out", workers=1)
    case["write"](1)
    again = run_experiment(spec, tmp_path / "out", workers=1)
    assert again.crashed == ()
    assert again.resumed == first.cells - case["fresh"]


def test_the_command_goes_on_and_the_page_says_what_it_left_aside(pictures, tmp_path):
    folder, path = tmp_path / "out", tmp_path / "tiny.yaml"
    path.write_text(json.dumps(own(pictures)))
    assert robustlab("run", path, "--out", folder, "--workers", 1).code == 0
    paint(pictures / "b.png", (90, 10, 120))
    said = robustlab("run", path, "--out", folder, "--workers", 1)
    assert said.code == 0
    assert f"{2 * PER_CHUNK} of {3 * PER_CHUNK} cells are there already" in said.err
    assert "computing again" not in said.err  # no file was damaged
    assert "perhaps from before a file changed" in (folder / "report.html").read_text()


def test_a_picture_that_goes_while_the_run_is_planned_is_named(pictures, tmp_path, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(own(pictures)))
    load = rl.data.image_folder.ImageFolder.load

    def slow(self):
        dataset = load(self)
        (pictures / "b.png").unlink(missing_ok=True)
        return dataset

    monkeypatch.setattr(rl.data.image_folder.ImageFolder, "load", slow)
    said = robustlab("plan", path)
    assert said.code == 2
    assert "data: path:" in said.complaint
    assert "b.png" in said.complaint
