"""Data sets through torchvision, from tiny files in its layout."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

import robustlab.data as data
from robustlab.core.errors import InvalidInput
from robustlab.core.torchvision_ops import import_torchvision


def write_idx(folder, prefix, labels):
    """Image i is filled with the value 10 i."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(labels)
    pixels = np.repeat(np.arange(count, dtype=np.uint8) * 10, 28 * 28)
    head = struct.pack(">IIII", 2051, count, 28, 28)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    head = struct.pack(">II", 2049, count)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + bytes(labels))


@pytest.mark.parametrize(
    ("name", "folder", "class_name"),
    [("mnist", "MNIST", "4"), ("fashion_mnist", "FashionMNIST", "Coat")],
)
def test_idx_files_are_read_offline(tmp_path, name, folder, class_name):
    write_idx(tmp_path / folder / "raw", "train", [0, 1, 2, 3])
    write_idx(tmp_path / folder / "raw", "t10k", [4, 5, 6])
    test = data.load(name, root=str(tmp_path))
    batch = test.batch()
    assert batch.ids == (f"{name}/test/00000", f"{name}/test/00001", f"{name}/test/00002")
    assert batch.labels.tolist() == [4, 5, 6]
    assert batch.names[0] == class_name == test.class_names[4]
    assert batch.images.shape == (3, 1, 28, 28)
    assert torch.allclose(batch.images[:, 0, 0, 0], torch.tensor([0, 10, 20]) / 255)
    assert data.load(name, root=tmp_path, split="train", limit=2).labels == (0, 1)


LAYOUT = {
    "mnist": r"MNIST/raw/\{train,t10k\}-\{images-idx3,labels-idx1\}-ubyte",
    "fashion_mnist": r"FashionMNIST/raw/",
    "cifar10": r"cifar-10-batches-py/",
    "cifar100": r"cifar-100-python/",
    "svhn": r"\{train,test\}_32x32\.mat",
}


@pytest.mark.parametrize("name", LAYOUT)
def test_missing_files_say_what_to_do_offline(tmp_path, name):
    words = rf"{name}\.root: .*offline, put .*{LAYOUT[name]}.*there; online, download=True"
    with pytest.raises(InvalidInput, match=words):
        data.load(name, root=tmp_path)


def test_a_broken_file_is_an_error_with_the_same_advice(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", "train", [0])
    write_idx(tmp_path / "MNIST" / "raw", "t10k", [0])
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00")
    with pytest.raises(InvalidInput, match=r"mnist\.root: MNIST \(test\) cannot be read"):
        data.load("mnist", root=tmp_path)


class Coloured:
    """As torchvision's CIFAR and SVHN look from outside."""

    targets = labels = np.array([2, 0])
    classes = ("plane", "car", "bird")

    def __init__(self, root, download, train=None, split=None):
        self.asked = (train, split)

    def __getitem__(self, index):
        return Image.new("RGB", (32, 32), (255, 0, 0)), int(self.labels[index])


@pytest.mark.parametrize(
    ("name", "attribute", "asked", "class_name"),
    [
        ("cifar10", "CIFAR10", (False, None), "bird"),
        ("cifar100", "CIFAR100", (False, None), "bird"),
        ("svhn", "SVHN", (None, "test"), "2"),
    ],
)
def test_colour_sets(monkeypatch, tmp_path, name, attribute, asked, class_name):
    opened = []

    def open_set(*args, **options):
        opened.append(Coloured(*args, **options))
        return opened[0]

    monkeypatch.setattr(import_torchvision().datasets, attribute, open_set)
    batch = data.load(name, root=tmp_path).batch()
    assert opened[0].asked == asked
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images[0].amax((1, 2)).tolist() == [1, 0, 0]
    assert batch.labels.tolist() == [2, 0]
    assert batch.names[0] == class_name
