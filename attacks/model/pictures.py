"""Pictures that a manipulated map is made to show, by name and at any size."""

from typing import Final, Literal, get_args

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput, nearest

Picture = Literal["cross", "frame", "disc", "checkerboard"]

THICKNESS: Final = 1 / 8  # of a cross's half beam and of a frame, as a share of the side
RADIUS: Final = 0.3  # of a disc
ROUNDING: Final = 1e-9


def draw(picture: Picture, height: int, width: int) -> Tensor:
    """Ones on zeros ``[height,width]``, float64 on the CPU, drawn at the places' centres.

    *cross*: an upright plus through the centre. *frame*: along the border. *disc*: in the
    centre. *checkerboard*: four squares along the shorter side, or places where there are
    fewer. Beams and frames are at least one place thick.

    Raises:
        InvalidInput: an unknown picture, or a grid too coarse to show it.
    """
    drawn = _drawn(picture, height, width).double()
    if drawn.min() == drawn.max():
        raise InvalidInput(
            "picture",
            f"a {picture} on {height}x{width} places is a plain area",
            "checkerboard needs two places, the others three by three",
        )
    return drawn


def _drawn(picture: Picture, height: int, width: int) -> Tensor:
    y, x = _centred(height)[:, None], _centred(width)[None]
    match picture:
        case "cross":
            return (y.abs() <= _thick(height) / 2) | (x.abs() <= _thick(width) / 2)
        case "frame":
            return (y.abs() >= 0.5 - _thick(height)) | (x.abs() >= 0.5 - _thick(width))
        case "disc":
            return y.square() + x.square() <= RADIUS**2
        case "checkerboard":
            cell = max(1, min(height, width) // 4)
            rows, columns = torch.arange(height) // cell, torch.arange(width) // cell
            return (rows[:, None] + columns[None]) % 2 == 1
    raise InvalidInput(
        "picture", f"unknown picture {picture!r}", nearest(str(picture), get_args(Picture))
    )


def _centred(count: int) -> Tensor:
    """Where the places' centres lie along one side, from -1/2 to 1/2."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5


def _thick(count: int) -> float:
    """At least one place; of an even number, the two in the middle make a beam."""
    return max(THICKNESS, 1 / count) + ROUNDING
