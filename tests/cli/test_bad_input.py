"""A user's mistake ends in one line on stderr that names the place, and exit code 2."""

import json
import sys
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from tests.cli.command import robustlab, start
from tests.lab import tiny


@pytest.fixture
def path(tmp_path):
    return tiny.write(tmp_path / "tiny.yaml", smoke={"images": 1})


def refused(*arguments):
    """The complaint about a command, after checking its form."""
    said = robustlab(*arguments)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert said.out == ""
    return said.complaint


def put(key, value):
    return ["--set", f"{key}={json.dumps(value)}"]


FOLDER = {"name": "image_folder", "size": 28}


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        # names
        (put("explainers.0", "gradent"), ["explainers.0", "did you mean 'gradient'?"]),
        (put("attacks.1", "pdg"), ["attacks.1", "did you mean 'pgd'?"]),
        (put("metrics.1", "spearmen"), ["metrics.1", "did you mean 'spearman'?"]),
        (put("models.0", "small_cn"), ["models", "did you mean 'small_cnn'?"]),
        (put("models.0", "torchvision:resnet81"), ["torchvision:resnet81"]),
        (put("data.name", "mnist5k"), ["data", "did you mean 'mnist_5k'?"]),
        # options
        (put("explainers.1.layr", "x"), ["explainers.1", "layr", "did you mean 'layer'?"]),
        (put("attacks.1.stpes", 3), ["attacks.1", "stpes", "did you mean 'steps'?"]),
        (put("metrics.0.kk", 3), ["metrics.0", "kk", "known: k"]),
        (put("models.0.wieghts", "none"), ["models", "wieghts", "did you mean 'weights'?"]),
        (put("data.splt", "test"), ["data", "splt", "did you mean 'split'?"]),
        (put("data.split", "tset"), ["data", "split", "'tset'"]),
        (put("chunks", 3), ["chunks", "did you mean 'chunk'?"]),
        (put("chunk", "many"), ["chunk", "'many'"]),
        (["--set", "chunk"], ["--set", "'chunk' has no '='"]),
        (["--set", "chunk=[1"], ["--set", "chunk=[1"]),
        (put("attacks.1.against", "grad"), ["attacks.1", "against", "'grad'"]),
        (put("attacks.2.against", "grad"), ["attacks.2.against", "each, grad_cam, gradient"]),
        (put("attacks.1", {"name": "random_sign", "like": "top_k"}), ["attacks.1", "like"]),
        # budgets
        (put("budgets.0.epsilon", -0.1), ["epsilon", "-0.1"]),
        (put("budgets.0.epsilon", 8), ["epsilon", "8/255"]),
        (put("budgets.0.epsilon", "8/x"), ["budgets.0.epsilon", "'8/x'"]),
        (put("budgets.0.epsilon", []), ["budgets.0.epsilon"]),
        (["--set", "budgets.0={norm: l2, epsilon: .inf}"], ["budgets.0.epsilon"]),
        # what only the model and the data can tell
        (put("attacks.2.k", 785), ["attacks (top_k)", "k: 785", "1..784"]),
        (put("attacks.2.k", 0), ["attacks (top_k)", "k: 0"]),
        (put("metrics.0.k", 785), ["metrics.0", "k: 785", "784 pixels"]),
        (put("metrics.1", "energy_in_region"), ["metrics.1 (energy_in_region)", "mnist_5k"]),
        (put("explainers.1.layer", "net.conv9"), ["explainers.1", "layer", "'net.conv2'"]),
        (put("explainers.1.layer", "net.fc1"), ["explainers.1", "layer", "no spatial extent"]),
        (put("explainers.1.layer", "conv2"), ["explainers.1", "layer", "'net.conv2'"]),
        (put("models.0.classes", 5), ["models (small_cnn)", "small_cnn"]),
        (put("models.0.weights", "none.pth"), ["models", "weights", "none.pth"]),
        (
            put("models.0", {"name": "small_cnn", "classes": 4, "weights": "none"}),
            ["data (mnist_5k)", "labels", "label 4 is out of range", "0..3"],
        ),
        (put("target", 10), ["target", "10", "0..9"]),
        (put("explainers.1.target", 10), ["explainers.1", "target", "10"]),
        (put("data", "photos"), ["models (small_cnn)", "images", "1 channels, got 3"]),
        (put("data", {"name": "mnist"}), ["data", "root"]),
        (put("data", FOLDER), ["data", "image_folder.path"]),
        (put("data", {**FOLDER, "path": "no/such"}), ["data", "path", "no/such does not exist"]),
        # options of the command
        (["--device", "tpu"], ["--device", "'tpu'"]),
        (["--device", "cuda:99"], ["--device", "'cuda:99'"]),
        (["--device", "meta"], ["--device", "'meta'"]),
        (["--executor", "slurm"], ["--executor", "'slurm'", "local, ray"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_an_experiment(path, tmp_path, overrides, fragments):
    complaint = refused("run", path, "--out", tmp_path / "out", "--workers", 1, *overrides)
    for fragment in fragments:
        assert fragment in complaint
    assert not (tmp_path / "out").exists()  # found before any work was done


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["run", "quickstrt"], ["experiment", "did you mean 'quickstart'?"]),
        (["plan", "quickstrt"], ["experiment", "did you mean 'quickstart'?"]),
        (["validate", "quickstrt"], ["experiment", "did you mean 'quickstart'?"]),
        (["run", "no/such.yaml"], ["experiment", "no file 'no/such.yaml'"]),
        (["list", "explainer"], ["section", "did you mean 'explainers'?"]),
        (["show", "gradcam"], ["did you mean 'grad_cam'?"]),
        (["show", "no/such.yaml"], ["no/such.yaml"]),
        (["train", "small_cn"], ["'small_cn'", "did you mean 'small_cnn'?"]),
        (["evaluate", "--model", "resnet18", "--smoke"], ["models", "'resnet18'"]),
        (["evaluate", "--model", "small_cnn", "--data", "mnist_5", "--smoke"], ["'mnist_5k'"]),
        (["evaluate", "--model", "small_cnn", "--data", "no/such"], ["data", "no/such"]),
        (["evaluate", "--model", "small_cnn", "--data", "mnist_5k"], ["metrics.0", "k: 1000"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_name_that_nothing_has(tmp_path, monkeypatch, arguments, fragments):
    monkeypatch.chdir(tmp_path)
    complaint = refused(*arguments)
    for fragment in fragments:
        assert fragment in complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "quickstart", "--workers", "0"],
        ["run", "quickstart", "--workers", "two"],
        ["run", "quickstart", "--smokee"],
        ["evaluate"],
        ["report"],
        ["explode"],
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_understood(arguments):
    said = robustlab(*arguments)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert "Usage" in said.err


# --- files that are no experiment ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"question: [a\nb: c: d\n", "is not valid YAML"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "expected keys and values"),
        (b"question: why\n", "is missing"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_a_file_that_is_no_experiment(tmp_path, command, content, problem):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    complaint = refused(command, path, *([] if command == "validate" else ["--smoke"]))
    assert "wrong.yaml" in complaint
    assert problem in complaint


# --- folders of pictures -------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    return place


def on_pictures(path, folder, *more):
    return refused("run", path, "--out", path.parent / "out",
                   *put("data", {**FOLDER, "path": str(folder)}), *more)  # fmt: skip


def picture(path, mode="RGB"):
    Image.new(mode, (28, 28)).save(path)


COLOUR_NET = put("models", [{"name": "small_cnn", "in_channels": 3, "weights": "none"}])


def test_an_empty_folder(path, folder):
    complaint = on_pictures(path, folder)
    assert f"path: no picture in {folder}" in complaint
    (folder / "notes.txt").write_text("no picture")
    assert complaint == on_pictures(path, folder)


def test_a_folder_of_broken_pictures(path, folder):
    (folder / "a.png").write_bytes(b"not a picture")
    complaint = on_pictures(path, folder)
    assert "is broken" in complaint
    assert "a.png" in complaint


def test_a_file_instead_of_a_folder(path, folder):
    picture(folder / "a.png")
    assert "is not a folder" in on_pictures(path, folder / "a.png")


def test_colour_pictures_for_a_network_of_grey_ones(path, folder):
    picture(folder / "a.png")
    complaint = on_pictures(path, folder)
    assert "models (small_cnn): images: small_cnn takes 1 channels, got 3" in complaint


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("file,label\na.png,10\n", "label 10 is out of range"),
        ("file,label\nb.png,1\n", "no picture 'b.png'"),
        ("file,label\na.png,cat\n", "'cat' is not a whole number"),
        ("a.png,1\n", "no header"),
    ],
)
def test_labels_that_do_not_fit(path, folder, labels, problem):
    picture(folder / "a.png")
    (folder / "labels.csv").write_text(labels)
    complaint = on_pictures(path, folder, *COLOUR_NET)
    assert problem in complaint
    assert "labels" in complaint


def test_labels_that_are_needed_and_missing(path, folder):
    picture(folder / "a.png")
    for needs in (put("target", "label"), put("attacks.1", {"name": "fgsm", "against": "label"})):
        complaint = on_pictures(path, folder, *COLOUR_NET, *needs)
        assert "'label' was asked for but some images have none" in complaint


# --- results folders -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["report", "gallery"])
def test_a_folder_that_is_no_run(tmp_path, command):
    for folder in (tmp_path, tmp_path / "none"):
        complaint = refused(command, folder)
        assert complaint.startswith(f"{folder}: holds no experiment.json")
    (tmp_path / "experiment.json").write_text("{}")
    assert "experiment.json: not a manifest" in refused(command, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.json"]


def test_an_out_that_is_or_lies_under_a_file(path, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert f"{out}: is not a folder" in refused("run", path, "--smoke", "--out", out)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_cannot_be_written(path, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # not by its mode: the tests may run as root
    with mock.patch.object(Path, "mkdir", refuse):
        complaint = refused("run", path, "--smoke", "--out", tmp_path / "out")
    assert complaint.startswith(f"--out: {tmp_path / 'out'} cannot be written")
    assert "Permission denied" in complaint


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder nobody may write")
def test_an_out_where_nobody_may_write(path):
    assert "--out: /proc/run cannot be written" in refused(
        "run", path, "--smoke", "--out", "/proc/run"
    )


def test_ray_that_is_not_installed(path, tmp_path):
    with mock.patch.dict(sys.modules, {"ray": None}):
        said = robustlab("run", path, "--smoke", "--out", tmp_path / "out", "--executor", "ray")
    assert said.code == 2
    assert "pip install 'robustlab[ray]'" in said.err.splitlines()[-1]


# --- odds and ends -------------------------------------------------------------------------


def test_brackets_in_a_message_are_shown_as_they_are(tmp_path):
    complaint = refused("run", f"{tmp_path}/[bold]x[/].yaml")
    assert "/[bold]x[/].yaml" in complaint


def test_a_process_of_its_own_ends_as_these_tests_do(path):
    arguments = ("run", path, "--set", "chunks=3")
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err == robustlab(*arguments).err
