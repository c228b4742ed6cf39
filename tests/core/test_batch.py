"""A user's own tensors: what is taken, and how each mistake is named."""

import pytest
import torch

from robustlab.core.batch import UNLABELLED, check_images, make_batch
from robustlab.core.errors import InvalidInput

IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_defaults_are_stable_names_and_unknown_labels():
    batch = make_batch(IMAGES)
    assert batch.images is IMAGES
    assert batch.labels.tolist() == [UNLABELLED] * 3 and batch.labels.dtype == torch.int64
    assert batch.ids == ("image_0", "image_1", "image_2")
    assert batch.names == ("", "", "")
    assert len(batch) == 3


@pytest.mark.parametrize(
    "labels",
    [[2, 0, 1], (2, 0, 1), torch.tensor([2, 0, 1]), torch.tensor([2, 0, 1], dtype=torch.uint8)],
    ids=["list", "tuple", "int64", "uint8"],
)
def test_labels_become_int64(labels):
    found = make_batch(IMAGES, labels).labels
    assert found.dtype == torch.int64 and found.tolist() == [2, 0, 1]


def test_a_slice_is_a_batch():
    part = make_batch(IMAGES, [2, 0, 1], ["a", "b", "c"], ["x", "y", "z"])[1:]
    assert torch.equal(part.images, IMAGES[1:]) and part.labels.tolist() == [0, 1]
    assert part.ids == ("b", "c") and part.names == ("y", "z")


def test_numbers_serve_as_ids():
    assert make_batch(IMAGES, ids=[7, 8, 9]).ids == ("7", "8", "9")


def with_pixel(value: float) -> torch.Tensor:
    images = IMAGES.clone()
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        ({"images": IMAGES[0]}, "images", r"\[B,C,H,W\], got \(3, 4, 4\)"),
        ({"images": IMAGES.numpy()}, "images", "ndarray"),
        ({"images": (IMAGES * 255).byte()}, "images", "torch.uint8"),
        ({"images": IMAGES[:0]}, "images", "at least one image"),
        ({"images": IMAGES[:, :, :0]}, "images", "empty"),
        ({"images": IMAGES * 255}, "images", r"pixels must lie in \[0, 1\]"),
        ({"images": IMAGES - 0.5}, "images", r"values span \[-0"),
        ({"images": with_pixel(torch.nan)}, "images", "NaN or infinite"),
        ({"images": with_pixel(torch.inf)}, "images", "NaN or infinite"),
        ({"images": with_pixel(1.0001)}, "images", "values span"),
        ({"labels": [0, 1]}, "labels", r"expected shape \(3,\), got \(2,\)"),
        ({"labels": [[0], [1], [2]]}, "labels", r"got \(3, 1\)"),
        ({"labels": [0.0, 1.0, 2.0]}, "labels", "whole numbers"),
        ({"labels": [True, False, True]}, "labels", "whole numbers"),
        ({"labels": [0, 1, -2]}, "labels", "found -2; use -1"),
        ({"labels": ["cat", "dog", "cat"]}, "labels", "whole numbers"),
        ({"labels": [[0], [1, 2], [3]]}, "labels", "whole numbers"),
        ({"ids": ["a", "b"]}, "ids", "2 given for 3 images"),
        ({"ids": ["a", "b", "a"]}, "ids", "'a' appears more than once"),
        ({"ids": [1, "1", 2]}, "ids", "'1' appears more than once"),
        ({"names": ["x"]}, "names", "1 given for 3 images"),
    ],
)
def test_mistakes_are_named(arguments, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        make_batch(**{"images": IMAGES, **arguments})
    assert caught.value.field == field


def test_the_field_is_named_as_the_caller_knows_it():
    with pytest.raises(InvalidInput) as caught:
        check_images(IMAGES + 1, "background")
    assert caught.value.field == "background"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_any_float_will_do(dtype):
    assert make_batch(IMAGES.to(dtype)).images.dtype == dtype
