"""The Gaussian blur by closed form, against scipy, and as the linear map that it is."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from tests.nets import pictures

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def test_a_point_becomes_the_product_of_two_gaussians():
    point = torch.zeros(1, 1, 9, 11, dtype=torch.double)
    point[..., 4, 5] = 1.0
    tails = [math.exp(-(o**2) / (2 * 0.5**2)) for o in (0, 1, 2)]  # radius ⌈3 · 0.5⌉ = 2
    total = tails[0] + 2 * (tails[1] + tails[2])
    line = torch.tensor([tails[2], tails[1], tails[0], tails[1], tails[2]]).double() / total
    expected = torch.zeros_like(point)
    expected[..., 2:7, 3:8] = line[:, None] * line
    torch.testing.assert_close(gaussian_blur(point, 0.5), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 40.0])
@pytest.mark.parametrize("shape", [(2, 3, 12, 9), (1, 1, 2, 5), (1, 2, 1, 7)])
def test_equals_scipy_with_mirrored_borders(sigma, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    expected = images.numpy()
    for axis in (2, 3):
        radius = min(math.ceil(3 * sigma), shape[axis] - 1)  # the whole image at most
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    torch.testing.assert_close(gaussian_blur(images, sigma), torch.tensor(expected), **EXACT)


def test_the_border_reflects_as_torch_pads():
    images, radius = pictures(), 3
    padded = torch.nn.functional.pad(images, (radius,) * 4, mode="reflect")
    inside = gaussian_blur(padded, 1.0)[..., radius:-radius, radius:-radius]
    torch.testing.assert_close(gaussian_blur(images, 1.0), inside, **EXACT)


def test_constants_stay_and_channels_and_images_do_not_mix():
    images = torch.arange(6.0, dtype=torch.double).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    torch.testing.assert_close(gaussian_blur(images, 2.0), images.contiguous(), **EXACT)


def test_the_derivative_is_the_transposed_blur():
    images, direction = pictures(seed=1), pictures(seed=2)
    leaf = images.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(gaussian_blur(leaf, 1.5), leaf, direction)
    left = (gaussian_blur(images, 1.5) * direction).sum()
    torch.testing.assert_close((images * pulled).sum(), left, **EXACT)
    assert not torch.allclose(pulled, gaussian_blur(direction, 1.5)), "reflection is not symmetric"


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_width_is_refused(sigma):
    with pytest.raises(InvalidInput, match="above 0"):
        gaussian_blur(pictures(), sigma)
