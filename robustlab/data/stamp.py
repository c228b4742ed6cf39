"""A small mark of known place on images: a decoy that gives the label away, or a trigger."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.regions import Box
from robustlab.core.tables import check_finite

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]
Shape = Literal["square", "disc", "triangle", "cross"]

_LEAST_SHAPED = 4  # a disc of 3×3 pixels would be the square


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A shape in a frame of ``side`` × ``side`` pixels that replaces what lies under it.

    With i and j the row and column within the frame, s its side, u = |2i + 1 − s| and
    v = |2j + 1 − s| (twice the distances from its middle), the pixels of a *disc* have
    u² + v² ≤ s², of an upright *triangle* v ≤ i + 1, of a *cross* (two diagonals, growing
    thicker every 8 pixels) |u − v| ≤ 2⌊s/8⌋, and of a *square* all. From 4 pixels on the
    four differ, and each touches all sides of its frame.

    Attributes:
        shape: as above.
        side: of the frame, in pixels.
        corner: of the image, in which the frame lies, ``margin`` pixels from both edges.
        at: (row, column) of the frame's upper left pixel; it comes before ``corner``.
        value: what is written, in [0, 1]: one number, or one per channel.

    Raises:
        InvalidInput: a side below 1 (4 for what is not a square), a negative place, a margin
            beside ``at``, or a value outside [0, 1].
    """

    # inside the options of an attack, a misspelt one would else be dropped in silence
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    shape: Shape = "square"
    side: int = 4
    corner: Corner = "top_left"
    margin: int = 0
    at: tuple[int, int] | None = None
    value: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        least = 1 if self.shape == "square" else _LEAST_SHAPED
        if self.side < least:
            remedy = "a square has at least 1" if least == 1 else f"{least} show a {self.shape}"
            raise InvalidInput("side", f"{self.side} pixels are no {self.shape}", remedy)
        if self.margin < 0:
            raise InvalidInput("margin", f"must be at least 0, got {self.margin}")
        if self.at is not None:
            self._check_at(self.at)
        values = self._values()
        check_finite("value", values)
        if not values or not all(0 <= value <= 1 for value in values):
            raise InvalidInput("value", f"{self.value} leaves [0, 1]", "0 is black, 1 is white")

    def box(self, height: int, width: int) -> Box:
        """The frame as ``(x0, y0, x1, y1)``, shares of width and height, origin top left.

        Raises:
            InvalidInput: the frame leaves an image of this size or covers all of it.
        """
        top, left = self._corner(height, width)
        bottom, right = top + self.side, left + self.side
        return left / width, top / height, right / width, bottom / height

    def mask(self, height: int, width: int) -> Tensor:
        """The pixels of the shape, true in ``[H, W]``.

        Raises:
            InvalidInput: as ``box``.
        """
        top, left = self._corner(height, width)
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[top : top + self.side, left : left + self.side] = self._shape()
        return inside

    def paste(self, images: Tensor, values: Tensor | None = None) -> Tensor:
        """New images with the stamp on them; every other pixel stays bit for bit.

        Args:
            images: ``[B, C, H, W]`` float, pixel units in [0, 1].
            values: ``[B]``, one grey level per image in [0, 1], instead of ``value``.

        Raises:
            InvalidInput: as ``box``; other shapes, or values outside [0, 1].
        """
        if images.ndim != 4 or not images.is_floating_point():
            got = f"{tuple(images.shape)} {images.dtype}"
            raise InvalidInput("images", f"expected a float tensor [B,C,H,W], got {got}")
        inside = self.mask(*images.shape[-2:]).to(images.device)
        colours = self._colours(images.shape[1]) if values is None else _greys(values, len(images))
        return torch.where(inside, colours.to(images), images)

    def _shape(self) -> Tensor:
        """The pixels of the shape in its frame ``[side, side]``."""
        steps = torch.arange(self.side)
        off = (2 * steps + 1 - self.side).abs()
        rows, columns = off[:, None], off[None]
        if self.shape == "disc":
            return rows**2 + columns**2 <= self.side**2
        if self.shape == "triangle":
            return columns <= steps[:, None] + 1
        if self.shape == "cross":
            return (rows - columns).abs() <= 2 * (self.side // 8)
        return torch.ones(self.side, self.side, dtype=torch.bool)

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        """Row and column of the frame's upper left pixel."""
        side, picture = self.side, f"a {width}x{height} picture"
        if side >= height and side >= width:
            problem = f"a stamp of {side}x{side} pixels covers all of {picture}"
            raise InvalidInput("side", problem, _most(min(height, width) - 1))
        if side > min(height, width):
            problem = f"a stamp of {side}x{side} pixels leaves {picture}"
            raise InvalidInput("side", problem, _most(min(height, width)))
        rows, columns = height - side, width - side
        if self.at is not None:
            if self.at[0] > rows or self.at[1] > columns:
                problem = f"from {self.at} a stamp of {side}x{side} pixels leaves {picture}"
                raise InvalidInput("at", problem, f"at most ({rows}, {columns})")
            return self.at
        if self.margin > min(rows, columns):
            problem = f"{self.margin} and a stamp of {side}x{side} pixels leave {picture}"
            raise InvalidInput("margin", problem, f"at most {min(rows, columns)}")
        top = rows - self.margin if self.corner.startswith("bottom") else self.margin
        left = columns - self.margin if self.corner.endswith("right") else self.margin
        return top, left

    def _check_at(self, at: tuple[int, int]) -> None:
        if min(at) < 0:
            raise InvalidInput("at", f"{at} is not within the image", "(0, 0) is its first pixel")
        if self.margin:
            problem = f"{self.margin} is measured from a corner, and a place is given"
            raise InvalidInput("margin", problem, "leave out margin or at")

    def _values(self) -> tuple[float, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def _colours(self, channels: int) -> Tensor:
        """``value`` as ``[C, 1, 1]`` or ``[1, 1, 1]``."""
        values = self._values()
        if len(values) not in (1, channels):
            problem = f"{len(values)} given for images of {channels} channels"
            raise InvalidInput("value", problem, f"give 1 or {channels}")
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


def _greys(values: Tensor, count: int) -> Tensor:
    """One grey level per image as ``[B, 1, 1, 1]``."""
    if values.shape != (count,):
        raise InvalidInput("values", f"expected shape ({count},), got {tuple(values.shape)}")
    if not bool(((values >= 0) & (values <= 1)).all()):  # NaN is neither
        found = f"{float(values.min()):.4g} to {float(values.max()):.4g}"
        raise InvalidInput("values", f"{found} leaves [0, 1]", "0 is black, 1 is white")
    return values.reshape(-1, 1, 1, 1)


def _most(side: int) -> str:
    return f"at most {side}" if side else "take larger images"
