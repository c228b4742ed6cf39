"""Arrays to pictures that a page can hold: photographs, differences and maps.

Maps come as pictures of their own with transparency, so that a page can lay them over
the photograph or show them alone, and a photograph is stored once for all its maps.
"""

from base64 import b64encode
from io import BytesIO
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALL: Final = 100  # pixels; below it every pixel is stored exactly and shown crisp
QUALITY: Final = 82
SATURATION: Final = 99.5  # percentile of |map| that gets the full colour
LEVELS: Final = 129  # of a map; odd, so that a signed map has a colour for exactly zero

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]


def photograph(pixels: Bytes) -> str:
    """A data URI of an ``[H,W,C]`` picture with one or three channels."""
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return _webp(picture)


def amplified(difference: Numbers, *, factor: float) -> str:
    """A data URI of ``0.5 + factor · difference``: mid-grey where nothing changed."""
    shown = np.clip(0.5 + factor * _finite(difference), 0, 1)
    return photograph(_levels(255 * shown))


def amplification(difference: Numbers) -> float:
    """The whole factor that brings the largest change just inside the picture's range."""
    largest = float(np.abs(_finite(difference)).max(initial=0.0))
    return max(1.0, float(np.floor(0.5 / largest))) if largest > 0 else 1.0


def heat(values: Numbers, *, signed: bool) -> str:
    """A data URI of an ``[H,W]`` map in colour, transparent where it is zero.

    Non-negative maps run through a perceptually uniform colormap, signed ones through a
    diverging one whose middle is zero. The strongest half percent of pixels share the
    full colour, or a few of them would leave the rest in the dark.
    """
    whole = _finite(values)
    scale = float(np.percentile(np.abs(whole), SATURATION)) or float(np.abs(whole).max())
    scaled = np.clip(whole / scale, -1, 1) if scale > 0 else np.zeros_like(whole)
    unit = (scaled + 1) / 2 if signed else np.clip(scaled, 0, 1)
    index = _levels((LEVELS - 1) * unit)
    picture = Image.fromarray(index)
    picture.putpalette(_colours(signed=signed).tobytes())
    text = BytesIO()
    picture.save(text, "PNG", optimize=True, transparency=_opacity(signed=signed).tobytes())
    return _uri("png", text.getvalue())


def _colours(*, signed: bool) -> Bytes:
    ramp = mpl.colormaps["RdBu_r" if signed else "inferno"](np.linspace(0, 1, LEVELS))
    return _levels(255 * np.asarray(ramp)[:, :3])


def _opacity(*, signed: bool) -> Bytes:
    """From transparent at zero to opaque, a little faster than in proportion."""
    unit = np.linspace(0, 1, LEVELS)
    strength = np.abs(2 * unit - 1) if signed else unit
    return _levels(255 * strength**0.75)


def _finite(values: Numbers) -> Floats:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _levels(values: Floats) -> Bytes:
    return np.round(values).astype(np.uint8)


def _webp(picture: Image.Image) -> str:
    file = BytesIO()
    options: dict[str, Any] = {"lossless": True} if max(picture.size) <= SMALL else {}
    picture.save(file, "WEBP", quality=QUALITY, method=4, **options)
    return _uri("webp", file.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
