"""What every loaded data set can do: batches, chunks, picking by id."""

from dataclasses import replace

import pytest
import torch

from robustlab.core.errors import InvalidInput
from robustlab.data import Dataset


@pytest.fixture
def reads():
    return []


@pytest.fixture
def dataset(reads):
    def read(position):
        reads.append(position)
        return torch.full((1, 2, 2), position / 10)

    ids = tuple(f"n/{i}" for i in range(5))
    return Dataset("n", ids, (0, 1, 2, 3, 4), ("a", "b", "c", "d", "e"), read)


def test_ids_are_known_without_reading_a_pixel(dataset, reads):
    assert len(dataset) == 5
    assert dataset.ids[0] == "n/0"
    dataset.chunks(2)
    assert reads == []


def test_batch_has_all_or_the_first(dataset, reads):
    assert len(dataset.batch()) == 5
    reads.clear()
    batch = dataset.batch(2)
    assert batch.ids == ("n/0", "n/1")
    assert batch.labels.tolist() == [0, 1]
    assert batch.names == ("a", "b")
    assert reads == [0, 1], "only what was asked for is decoded"
    assert len(dataset.batch(99)) == 5


def test_chunks_cover_everything_once_in_order_and_lazily(dataset, reads):
    chunks = dataset.chunks(2)
    first = next(chunks)
    assert reads == [0, 1]
    assert [b.ids for b in (first, *chunks)] == [("n/0", "n/1"), ("n/2", "n/3"), ("n/4",)]


def test_pick_follows_the_order_asked_for(dataset):
    batch = dataset.pick(["n/3", "n/1"])
    assert batch.ids == ("n/3", "n/1")
    assert batch.labels.tolist() == [3, 1]
    assert torch.equal(batch.images[0], torch.full((1, 2, 2), 0.3))


def test_a_revision_is_made_of_the_fingerprints_asked_for(dataset):
    assert dataset.revision(dataset.ids) == "", "nothing that could change without its name"
    one, other = (replace(dataset, fingerprint=f) for f in (str, lambda i: str(i + (i == 3))))
    assert one.revision(["n/0", "n/1"]) == other.revision(["n/0", "n/1"]) != ""
    assert one.revision(["n/0", "n/3"]) != other.revision(["n/0", "n/3"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d.batch(0), "limit: must be at least 1, got 0"),
        (lambda d: d.chunks(0), "size: must be at least 1"),
        (lambda d: d.pick(["n/9"]), "no image 'n/9'"),
        (lambda d: d.pick([]), "no image asked for"),
        (lambda d: replace(d, fingerprint=str).revision(["n/9"]), "no image 'n/9'"),
        (lambda d: d.box("n/0"), "no box for 'n/0'"),
    ],
)
def test_misuse_is_named(dataset, call, words):
    with pytest.raises(InvalidInput, match=words):
        call(dataset)
