"""A part of a picture as a box of shares, and the pixels that belong to it."""

from typing import Final

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

Box = tuple[float, float, float, float]
_CORNER: Final = "(0, 0, 0.15, 0.15) is a corner"


def check_box(box: Box, field: str = "box", *, whole: bool = True) -> None:
    """Refuse what is no part of a picture; without ``whole`` also all of it.

    Raises:
        InvalidInput: (x0, y0, x1, y1) are not shares in ascending order, or the whole picture.
    """
    inside = len(box) == 4 and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
    if not inside:
        raise InvalidInput(field, f"{box} is not within the image", _CORNER)
    if not whole and tuple(box) == (0, 0, 1, 1):
        raise InvalidInput(field, "covers the whole image", _CORNER)


def pixels_in(box: Box, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Every pixel whose centre lies inside, true in ``[H,W]``."""
    x0, y0, x1, y1 = box
    rows = (torch.arange(height, device=device) + 0.5) / height
    columns = (torch.arange(width, device=device) + 0.5) / width
    return ((rows > y0) & (rows < y1))[:, None] & ((columns > x0) & (columns < x1))[None]


def some_pixels_in(box: Box, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """The same, of a box that must hold one.

    Raises:
        InvalidInput: it is smaller than a pixel.
    """
    found = pixels_in(box, height, width, device)
    if not bool(found.any()):
        raise InvalidInput("box", f"{box} holds no pixel of {height}x{width}")
    return found
