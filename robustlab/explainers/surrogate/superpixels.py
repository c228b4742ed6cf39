"""Superpixels: the parts of an image that LIME and KernelSHAP switch off."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

Superpixels = Literal["slic", "felzenszwalb", "quickshift", "grid"]


def segment(images: Tensor, method: Superpixels, segments: int) -> Tensor:
    """Part numbers ``[B,H,W]``, int64: 0..nᵢ−1 for image i, with nᵢ around ``segments``.

    *grid* cuts every image into the same nearly square cells. The others are those of
    scikit-image and follow the picture: *slic* (Achanta et al. 2012), *felzenszwalb*
    (Felzenszwalb & Huttenlocher 2004) with no part below a quarter of an even share, and
    *quickshift* (Vedaldi & Soatto 2008) with a kernel of an eighth of the side of an even
    share, which for a photograph is what LIME's authors use. Pictures of one channel, or of
    any number but three, are segmented as grey ones, by the mean of their channels.

    A function of the single image: computed one by one, on the CPU, in float64.

    Raises:
        InvalidInput: an image is one part only, so there is nothing to tell apart.
    """
    height, width = images.shape[-2:]
    if method == "grid":
        regions = _grid(height, width, segments).repeat(len(images), 1, 1)
    else:
        pictures = images.detach().to("cpu", torch.float64)
        if images.shape[1] != 3:
            pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        colours = pictures.permute(0, 2, 3, 1).contiguous().numpy()
        found = [_follow(picture, method, segments) for picture in colours]
        regions = torch.stack([torch.from_numpy(part) for part in found])
    if int(regions.flatten(1).amax(1).min()) == 0:
        raise InvalidInput(
            "superpixels",
            f"{method} finds a single part in an image of {height}x{width} pixels",
            "superpixels: grid cuts any image of two pixels or more; "
            "the explainers occlusion and rise need no superpixels",
        )
    return regions.to(images.device)


def counts(regions: Tensor) -> list[int]:
    """How many parts each image has."""
    return [int(top) + 1 for top in regions.flatten(1).amax(1)]


def check_samples(regions: Tensor, samples: int, allowed: int) -> None:
    """Refuse images with more parts than so many samples can tell apart."""
    most = max(counts(regions))
    if most > allowed:
        raise InvalidInput(
            "superpixels",
            f"an image has {most} of them, but {samples} samples tell at most {allowed} apart",
            "ask for fewer segments or more samples; "
            "the explainers occlusion and rise need no superpixels",
        )


def _grid(height: int, width: int, segments: int) -> Tensor:
    """Cells as square as the count allows, none of them empty."""
    rows = min(height, segments, max(1, round((segments * height / width) ** 0.5)))
    columns = min(width, max(1, round(segments / rows)))
    row = torch.arange(height) * rows // height
    column = torch.arange(width) * columns // width
    return row[:, None] * columns + column


def _follow(picture: np.ndarray, method: Superpixels, segments: int) -> np.ndarray:
    """Parts of one ``[H,W,3]`` picture, numbered without gaps."""
    from skimage import segmentation  # a second that `robustlab list` need not wait for

    share = picture.shape[0] * picture.shape[1] / segments
    if method == "slic":
        found = segmentation.slic(picture, n_segments=segments, compactness=10, start_label=0)
    elif method == "felzenszwalb":
        smallest = max(1, round(share / 4))
        found = segmentation.felzenszwalb(picture, scale=100, sigma=0.5, min_size=smallest)
    else:  # quickshift
        kernel = max(1.0, share**0.5 / 8)
        found = segmentation.quickshift(picture, kernel_size=kernel, max_dist=200, ratio=0.2)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)
