"""What is left of an image once somebody has saved it: through an encoder and back."""

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustlab.core.errors import InvalidInput

FileFormat = Literal["png", "jpeg_95", "jpeg_75"]

FORMATS: Final[Mapping[FileFormat, Mapping[str, Any]]] = MappingProxyType(
    {
        "png": {"format": "PNG"},
        "jpeg_95": {"format": "JPEG", "quality": 95},
        "jpeg_75": {"format": "JPEG", "quality": 75},
    }
)


def read_back(images: Tensor, file_format: FileFormat) -> Tensor:
    """Images ``[B,C,H,W]`` after saving each to a file and opening it again.

    Pixels are rounded to 8 bits, x ↦ round(255·x)/255, which is all that PNG changes: it moves
    a pixel by up to 1/510. JPEG also drops detail (quality 95 or 75; the other settings are
    Pillow's, colour at half resolution). One channel is saved as grey, three as RGB.

    Raises:
        InvalidInput: another number of channels.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise InvalidInput("images", f"pictures have 1 or 3 channels, these have {channels}")
    pixels = (images.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    pictures = [_again(p.movedim(0, -1).numpy(), FORMATS[file_format]) for p in pixels]
    stack = torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
    return (stack.to(torch.float64) / 255).to(images)


def _again(pixels: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, **how)
    return np.asarray(Image.open(BytesIO(file.getvalue()))).reshape(pixels.shape)
