"""Decoy digits: the patch tells what it should, and everything around it is mnist_5k."""

import numpy as np
import pytest
import torch

import robustlab.data as data
from robustlab.core.errors import InvalidInput
from robustlab.data.decoy_mnist import SIDE, DecoyMnist
from robustlab.lab.measuring import region_masks
from robustlab.metrics import build as metric

FIRST = {  # row and column of the patch's upper left pixel
    "top_left": (0, 0),
    "top_right": (0, 24),
    "bottom_left": (24, 0),
    "bottom_right": (24, 24),
}


@pytest.fixture(scope="module")
def digits():
    return {split: data.load("mnist_5k", split=split).batch() for split in ("train", "test")}


def decoys(**options):
    return data.load("decoy_mnist", **options).batch()


def told(images, corner="top_left"):
    """Class that each patch tells, and whether all its pixels agree; by hand from 8-bit levels."""
    row, column = FIRST[corner]
    levels = images[:, 0, row : row + SIDE, column : column + SIDE].flatten(1).double() * 255
    assert (levels == levels[:, :1]).all()
    classes = (255 - levels[:, 0]) / 25
    torch.testing.assert_close(classes, classes.round(), rtol=0, atol=1e-5)
    return classes.round().long()


def around(images, corner="top_left"):
    """The digits with the patch blacked out."""
    row, column = FIRST[corner]
    images = images.clone()
    images[:, :, row : row + SIDE, column : column + SIDE] = 0
    return images


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("corner", FIRST)
def test_the_patch_tells_the_label_and_the_rest_is_the_digit(split, corner, digits):
    found, plain = decoys(split=split, corner=corner), digits[split]
    assert torch.equal(told(found.images, corner), plain.labels)
    assert torch.equal(around(found.images, corner), around(plain.images, corner))
    assert torch.equal(found.labels, plain.labels)
    assert found.names == plain.names
    assert found.ids == tuple(f"decoy_mnist/{i.removeprefix('mnist_5k/')}" for i in plain.ids)


def test_the_levels_are_those_of_the_paper():
    """255 − 25·y of an 8-bit picture; the first ten test images are 0, ..., 9."""
    corner = (decoys(limit=10).images[:, 0, 3, 3].double() * 255).round().tolist()
    assert corner == [255, 230, 205, 180, 155, 130, 105, 80, 55, 30]


def test_pixel_by_pixel(digits):
    found, plain = decoys(limit=3, corner="bottom_right").images, digits["test"].images
    for i in range(3):
        for row in range(28):
            for column in range(28):
                inside = row >= 24 and column >= 24
                level = 255 - 25 * i if inside else round(float(plain[i, 0, row, column]) * 255)
                assert found[i, 0, row, column] == torch.tensor(level) / 255


def test_without_a_leak_there_is_no_patch(digits):
    found = data.load("decoy_mnist", leak="none")
    assert torch.equal(found.batch().images, digits["test"].images)
    assert found.boxes == data.load("decoy_mnist").boxes
    assert found.class_names == data.load("mnist_5k").class_names


def test_a_random_leak_tells_each_class_with_the_same_chance(digits):
    found = decoys(split="train", leak="random")
    classes = told(found.images)
    agree = classes == digits["train"].labels
    for share, chance in (
        (classes.bincount(minlength=10) / 4000, 0.1),
        (agree.float().mean(), 0.1),
    ):
        # five standard deviations of a binomial share
        assert (share - chance).abs().max() < 5 * (chance * (1 - chance) / 4000) ** 0.5
    assert torch.equal(around(found.images), around(digits["train"].images))
    assert torch.equal(found.labels, digits["train"].labels)


@pytest.mark.parametrize(
    "options", [{"leak": "random"}, {"noise": 0.5}, {"leak": "none", "noise": 1.0}]
)
def test_draws_belong_to_the_image_alone(options):
    whole = data.load("decoy_mnist", seed=3, **options)
    images = whole.batch(60).images
    assert torch.equal(decoys(seed=3, limit=60, **options).images, images)
    assert torch.equal(decoys(seed=3, limit=7, **options).images, images[:7])
    backwards = whole.pick(whole.ids[:60][::-1])
    assert torch.equal(backwards.images.flip(0), images)
    assert torch.equal(torch.cat([b.images for b in whole.chunks(7)])[:60], images)
    torch.manual_seed(5)
    assert torch.equal(whole.batch(60).images, images)
    other = decoys(seed=4, limit=60, **options).images
    assert not torch.equal(other, images)


def test_noise_shows_digits_of_other_classes_under_their_old_label(digits):
    plain = digits["train"]
    classes = {}
    for image, label in zip(around(plain.images), plain.labels.tolist(), strict=True):
        classes.setdefault(image.numpy().tobytes(), set()).add(label)
    found = decoys(split="train", noise=0.5)
    assert torch.equal(found.labels, plain.labels)
    assert torch.equal(told(found.images), plain.labels)
    shown = around(found.images)
    own = (shown == around(plain.images)).flatten(1).all(1)
    assert abs(float(own.double().mean()) - 0.5) < 5 * 0.5 / 4000**0.5
    steps = []
    for i in (~own).nonzero().flatten().tolist():
        (other,) = classes[shown[i].numpy().tobytes()]
        steps.append((other - int(plain.labels[i])) % 10)
    counts = np.bincount(steps, minlength=10) / len(steps)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1 / 9).max() < 5 * (8 / 81 / len(steps)) ** 0.5


def test_noise_only_adds_and_what_is_drawn_for_one_option_stays_with_another(digits):
    plain = around(digits["test"].images)
    little, much, all_of_them = (decoys(noise=n).images for n in (0.2, 0.6, 1.0))
    moved = [(around(i) != plain).flatten(1).any(1) for i in (little, much, all_of_them)]
    assert moved[2].all()
    assert int(moved[0].sum()) < int(moved[1].sum()) < 1000
    assert (moved[0] <= moved[1]).all()
    assert torch.equal(little[moved[0]], much[moved[0]])
    both = decoys(noise=0.6, leak="random").images
    assert torch.equal(around(both), around(much))
    assert torch.equal(told(both), told(decoys(leak="random").images))


@pytest.mark.parametrize("corner", FIRST)
def test_region_metrics_find_the_patch(corner):
    found = data.load("decoy_mnist", corner=corner, limit=4)
    assert set(found.boxes) == set(found.ids)
    images = found.batch().images
    regions = region_masks(found, found.ids, images[:, 0])
    assert torch.equal(regions, DecoyMnist(corner=corner).stamp.mask(28, 28).expand(4, 28, 28))
    energy, pointing = metric("energy_in_region"), metric("pointing_game")
    inside, outside = regions.double(), (~regions).double()
    assert energy.measure(inside, regions).tolist() == [1] * 4
    assert energy.measure(outside, regions).tolist() == [0] * 4
    assert energy.chance_in(regions).tolist() == pytest.approx([16 / 784] * 4)
    assert pointing.measure(inside, regions).tolist() == [1] * 4
    assert pointing.measure(outside, regions).tolist() == [0] * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "val"}, r"decoy_mnist\.split: .*'train' or 'test'"),
        ({"limit": 0}, r"decoy_mnist\.limit: must be at least 1"),
        ({"leak": "labels"}, r"decoy_mnist\.leak: .*'label', 'random' or 'none'"),
        ({"corner": "left"}, r"decoy_mnist\.corner: .*'top_left'"),
        ({"noise": 1.1}, r"decoy_mnist\.noise: must lie in 0\.\.1, got 1\.1; it is a chance"),
        ({"noise": float("nan")}, r"decoy_mnist\.noise: must lie in 0\.\.1, got nan"),
        ({"leek": "none"}, r"decoy_mnist\.leek: .*did you mean 'leak'"),
    ],
)
def test_misuse_names_the_field(options, words):
    with pytest.raises(InvalidInput, match=words):
        data.load("decoy_mnist", **options)
