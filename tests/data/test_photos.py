"""The photographs: there, offline, stable, with boxes. Their classes: tests/models."""

import pytest
import torch

import robustlab.data as data
from robustlab.core.errors import InvalidInput
from robustlab.data.photos import BOX, PHOTOS


def test_at_least_eight_in_unit_range():
    batch = data.load("photos").batch()
    assert len(batch) >= 8
    assert batch.images.shape == (len(batch), 3, 224, 224)
    assert batch.images.dtype == torch.float32
    for image, photo in zip(batch.images, batch.ids, strict=True):
        assert 0 <= image.min() < 0.2 < 0.7 < image.max() <= 1, photo
        assert image.std() > 0.1, f"{photo} is not blank"


def test_camera_is_gray_and_the_others_are_not():
    batch = data.load("photos", size=32).batch()
    colourful = (batch.images.amax(1) - batch.images.amin(1)).amax((1, 2)) > 0.1
    assert [i for i, c in zip(batch.ids, colourful.tolist(), strict=True) if not c] == ["camera"]


def test_size_is_an_option_and_shows_the_same_picture():
    small = data.load("photos", size=56).batch()
    large = data.load("photos", size=224).batch()
    assert small.images.shape[2:] == (56, 56)
    shrunk = torch.nn.functional.avg_pool2d(large.images, 4)
    assert (shrunk - small.images).abs().mean() < 0.02


def test_crops_are_squares():
    for photo in PHOTOS:
        left, top, right, bottom = photo.crop
        assert right - left == bottom - top > 0, photo.id


def test_boxes_lie_inside_and_are_reachable_by_id():
    photos = data.load("photos")
    assert set(photos.boxes) == set(photos.ids) == set(BOX)
    for image_id in photos.ids:
        x0, y0, x1, y1 = photos.box(image_id)
        assert 0 <= x0 < x1 <= 1, image_id
        assert 0 <= y0 < y1 <= 1, image_id
    informative = [b for b in BOX.values() if (b[2] - b[0]) * (b[3] - b[1]) < 0.6]
    assert len(informative) >= 5, "most boxes leave room to be missed"


def test_rocket_box_holds_the_bright_rocket():
    photos = data.load("photos")
    image = photos.pick(["rocket"]).images[0].mean(0)
    x0, y0, x1, y1 = (round(v * 224) for v in photos.box("rocket"))
    sky = image[y0 : y1 - 40, x1 + 5 : x1 + 40]  # right of the rocket, above the lights
    assert image[y0:y1, x0:x1].mean() > 1.5 * sky.mean()


def test_an_unknown_id_lists_the_known_ones():
    with pytest.raises(InvalidInput, match=r"known: camera, coffee"):
        data.load("photos").box("nobody")


def test_photographs_can_be_left_out() -> None:
    whole, part = data.load("photos"), data.load("photos", leave_out=["coffee"])
    assert part.ids == tuple(i for i in whole.ids if i != "coffee")
    assert torch.equal(part.pick(["flower"]).images, whole.pick(["flower"]).images)
    with pytest.raises(InvalidInput, match="did you mean 'coffee'"):
        data.load("photos", leave_out=["cofee"])
