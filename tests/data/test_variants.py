"""Moved copies: every pixel where a loop puts it, the same for an image in any company."""

import pytest
import torch

from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.data.variants import with_moved_copies


def some(count=3):
    images = torch.rand(count, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    return make_batch(images, list(range(count)), [f"i{n}" for n in range(count)])


def moves(image, copy, shift):
    """Every (rows, columns) that turns the image into the copy, pixel by pixel."""
    _, height, width = image.shape
    found = []
    for dy in range(-shift, shift + 1):
        for dx in range(-shift, shift + 1):
            rows = [min(max(r + dy, 0), height - 1) for r in range(height)]
            columns = [min(max(c + dx, 0), width - 1) for c in range(width)]
            if torch.equal(image[:, rows][:, :, columns], copy):
                found.append((dy, dx))
    return found


def test_copies_are_the_images_moved():
    batch = some()
    more = with_moved_copies(batch, 4, 2)
    assert len(more) == 15 and torch.equal(more.images[:3], batch.images)
    assert more.ids[:6] == ("i0", "i1", "i2", "i0~1", "i1~1", "i2~1")
    assert more.labels.tolist() == [0, 1, 2] * 5
    seen = [moves(batch.images[i % 3], more.images[i], 2) for i in range(3, 15)]
    assert all(len(found) == 1 for found in seen)
    assert len({found[0] for found in seen}) > 6


def test_a_move_belongs_to_the_image():
    one, all_ = with_moved_copies(some()[1:2], 2, 2), with_moved_copies(some(), 2, 2)
    for i, j in ((0, 1), (1, 4), (2, 7)):
        assert torch.equal(one.images[i], all_.images[j]) and one.ids[i] == all_.ids[j]
    other = with_moved_copies(some(), 2, 2, seed=1)
    assert not torch.equal(other.images, all_.images)


def test_none_is_none():
    batch = some()
    assert with_moved_copies(batch, 0, 2) is batch
    assert torch.equal(with_moved_copies(batch, 1, 0).images[3:], batch.images)


@pytest.mark.parametrize(("copies", "shift", "field"), [(-1, 2, "copies"), (1, -1, "shift"),
                                                        (1, 6, "shift")])  # fmt: skip
def test_impossible_copies_are_refused(copies, shift, field):
    with pytest.raises(InvalidInput) as caught:
        with_moved_copies(some(), copies, shift)
    assert caught.value.field == field
