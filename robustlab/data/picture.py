"""From a picture file to pixels in [0, 1], whatever its colours, depth or orientation."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from robustlab.core.regions import Box

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits: I, I;16, I;16B, F


def read_picture(path: Path, *, draft: bool = False) -> Image.Image:
    """The first frame as 8-bit RGB, turned as its EXIF orientation says.

    Transparent pixels are laid on white; 16 bits are scaled, not clipped, to 8.

    Args:
        path: a picture file.
        draft: decode a JPEG at an eighth of its size: enough to know that it is whole.

    Raises:
        Exception: nearly any type; Pillow's decoders differ in how they meet broken bytes.
            A file whose header claims too many pixels is refused before it is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # odd but readable metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            if draft:
                picture.draft("RGB", (1, 1))
            picture.load()
            return ImageOps.exif_transpose(_rgb(picture))


def why_broken(path: Path, error: Exception) -> str:
    """One line that says why ``read_picture`` failed, without repeating the path."""
    if path.exists() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in any known format"
    return str(error) or type(error).__name__


def to_square(picture: Image.Image, size: int, box: Box | None = None) -> Image.Image:
    """Crop to ``box`` (the largest centred square if None) and resize to ``size``².

    Bicubic with antialiasing. The same pixels as resizing the shorter side and cutting
    then, but a very long picture is never resized into a huge strip.
    """
    return picture.resize((size, size), Image.Resampling.BICUBIC, box or _centre(picture))


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB or gray 8-bit picture to ``[C, H, W]`` float in [0, 1]."""
    pixels = torch.from_numpy(np.array(picture)).float() / 255
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _centre(picture: Image.Image) -> Box:
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return left, top, left + side, top + side


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(_DEEP):
        flat = _eight_bits(picture)
    elif "transparency" in picture.info or picture.mode.endswith(("A", "a")):
        rgba = picture.convert("RGBA")
        flat = Image.new("RGBA", rgba.size, "white")
        flat.alpha_composite(rgba)
    else:
        flat = picture
    converted = flat.convert("RGB")
    converted.info = picture.info  # exif_transpose reads the orientation from here
    return converted


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pillow's own conversion clips 16-bit values at 255, which turns a picture white."""
    values = np.asarray(picture, dtype=np.float64)
    top = 1.0 if picture.mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ValueError(
            f"its {picture.mode} values leave [0, {top:g}]: no agreed way to show them"
        )
    return Image.fromarray(np.round(values / top * 255).astype(np.uint8))
