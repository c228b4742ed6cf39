"""Saving an image and opening it again."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.core.errors import InvalidInput
from robustlab.core.saving import FORMATS, read_back


def pictures(channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels)
    rough = torch.rand(2, channels, 6, 8, generator=generator, dtype=dtype)
    return torch.nn.functional.interpolate(rough, (24, 32), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_png_rounds_to_eight_bits_and_nothing_else(channels, dtype):
    images = pictures(channels, dtype)
    again = read_back(images, "png")
    assert again.dtype == dtype
    assert torch.equal(again, ((images * 255).round().double() / 255).to(dtype))
    assert torch.equal(read_back(again, "png"), again)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [95, 75])
def test_jpeg_is_what_a_file_on_disk_holds(channels, quality, tmp_path):
    images = pictures(channels)
    again = read_back(images, f"jpeg_{quality}")
    for i, image in enumerate(images):
        pixels = (image * 255).round().byte().movedim(0, -1).numpy()
        path = tmp_path / f"{i}.jpg"
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path, quality=quality)
        opened = np.asarray(Image.open(path), dtype=np.float64).reshape(pixels.shape) / 255
        np.testing.assert_allclose(again[i].movedim(0, -1).numpy(), opened, atol=1e-7)


def test_every_image_is_saved_alone():
    images = pictures(3)
    for file_format in FORMATS:
        both = read_back(images, file_format)
        assert torch.equal(both[1:], read_back(images[1:], file_format))


def test_other_channels_are_refused():
    with pytest.raises(InvalidInput, match="1 or 3 channels"):
        read_back(torch.zeros(1, 2, 4, 4), "png")
