"""Shipped samples: balanced, of the sets that they name, and apart from each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

import robustlab.data as data
from robustlab.core.files import sha256
from robustlab.data import sampled

MNIST, FASHION = "03425c6a4a7772b4", "010fa9270ec6263c"
PARTS = [("mnist_1k", "test", 100), ("fashion_3k", "test", 100), ("fashion_3k", "train", 200)]


def options(name, split):
    return {} if name == "mnist_1k" else {"split": split}


@pytest.mark.parametrize(("name", "split", "per_class"), PARTS)
def test_classes_take_turns(name, split, per_class):
    found = data.load(name, **options(name, split))
    assert np.bincount(found.labels).tolist() == [per_class] * 10
    assert found.labels[:20] == (*range(10), *range(10))
    batch = found.batch()
    assert batch.images.shape == (10 * per_class, 1, 28, 28)
    assert batch.images.min() == 0
    assert batch.images.max() == 1
    assert data.load(name, limit=7, **options(name, split)).ids == found.ids[:7]


def test_no_picture_of_a_sample_is_in_another_one():
    found = [data.load(n, **options(n, s)).batch().images for n, s, _ in PARTS]
    found.append(data.load("mnist_5k").batch().images)
    known = [{i.numpy().tobytes() for i in images} for images in found]
    for i, one in enumerate(known):
        assert not any(one & other for other in known[i + 1 :])


def test_the_files_are_those_that_were_made():
    made = {"mnist_1k": MNIST, "fashion_3k": FASHION}
    assert {name: sha256(sampled.FOLDER / f"{name}.npz")[:16] for name in made} == made


def test_making_them_takes_the_first_of_every_class(tmp_path, monkeypatch):
    class Source:
        def __init__(self, root: Path, train: bool) -> None:
            labels = torch.arange(4000).flip(0) % 10 if train else torch.arange(2000) // 3 % 10
            self.targets, self.data = labels, labels[:, None, None].expand(-1, 28, 28).byte()

    datasets = type("datasets", (), {"MNIST": Source, "FashionMNIST": Source})
    source = type("torchvision", (), {"datasets": datasets})
    monkeypatch.setattr(sampled, "import_torchvision", lambda: source)
    monkeypatch.setattr(sampled, "FOLDER", tmp_path)
    sampled.make(tmp_path)
    with np.load(tmp_path / "fashion_3k.npz") as file:
        assert file["test"][:, 0, 0].tolist() == list(range(10)) * 100
        assert file["train_rows"][:10].tolist() == list(range(9, -1, -1))
        assert file["test_rows"][:21:10].tolist() == [0, 1, 2]
