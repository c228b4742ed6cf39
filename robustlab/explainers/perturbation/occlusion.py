"""Occlusion: how much of the score is lost when a window hides part of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.perturbation.blends import Keep, blended_scores
from robustlab.explainers.perturbation.infill import Infill, infill_of
from robustlab.explainers.perturbation.options import check_infill


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Occlusion: a(u) = mean over the windows W that cover pixel u of s(x) − s(x without W).

    ``grid`` windows per axis (or rows and columns), evenly spread from border to border, so
    that the number of passes does not depend on the image. ``window`` is a window's side: a
    share of the image's side (a fraction) or pixels (a whole number). With ``stride``, in
    pixels, windows start at 0, stride, 2·stride, ... and the last is cut off at the border,
    as in captum; `resolved` then counts them into ``grid``. Where an image has fewer
    positions than ``grid``, some windows coincide and count as often as they occur.

    ``infill`` takes a window's place: a pixel value, *mean* (the image's mean colour, close
    to the paper's grey square), *blur* (standard deviation ``blur`` times the shorter side)
    or *noise* (drawn per image from ``seed``). Raw shape ``[B,1,H,W]``, default map signed.
    Cost: 1 + rows · columns forward passes; with ``stride``, ``grid`` is only a guess until
    `resolved` has seen an image. Memory: one micro-batch, with ``create_graph`` too.
    Source: Zeiler & Fergus 2014, who draw the probability left at the window's centre
    (``score: prob``); averaging the loss over windows is captum's reading.

    Raises:
        InvalidInput: windows that leave gaps or do not fit into the image.
    """

    about: ClassVar[About] = About(
        family="perturbation",
        year=2014,
        source="Zeiler & Fergus 2014, Visualizing and understanding convolutional networks",
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    grid: int | tuple[int, int] = 10
    window: int | float = 0.2
    stride: int | None = None
    infill: Infill = "mean"
    blur: float = 0.15
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        if min(self._rows_and_columns) < 1:
            raise InvalidInput("grid", f"must be at least 1, got {self.grid}")
        if isinstance(self.window, int):
            if self.window < 1:
                raise InvalidInput("window", f"must be at least 1 pixel, got {self.window}")
            if self.stride is not None and self.stride > self.window:
                raise InvalidInput(
                    "stride", f"{self.stride} leaves gaps between windows of {self.window}"
                )
        elif not 0 < self.window <= 1:
            raise InvalidInput(
                "window",
                f"a share of the image must be in (0, 1], got {self.window}",
                "a whole number counts pixels",
            )
        if self.stride is not None and self.stride < 1:
            raise InvalidInput("stride", f"must be at least 1, got {self.stride}")
        check_infill(self.infill, self.blur)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        with torch.set_grad_enabled(create_graph):
            images = images if create_graph else images.detach()
            rows, columns = self._windows(images)
            hidden_by = infill_of(
                images, self.infill, blur=self.blur, ids=ids, seed=self.seed, purpose="occlusion"
            )

            def keep(js: range, _: slice) -> Tensor:
                which = torch.arange(js.start, js.stop, device=images.device)
                row, column = rows[which // len(columns)], columns[which % len(columns)]
                return (1 - row.unsqueeze(2) * column.unsqueeze(1))[:, None, None]

            def scores(count: int, keep: Keep) -> Tensor:
                return blended_scores(
                    model, images, hidden_by, targets, count, keep,
                    score=self.score, create_graph=create_graph,
                )  # fmt: skip

            whole = scores(1, lambda *_: images.new_ones(1, 1, 1, 1, 1))
            lost = whole - scores(len(rows) * len(columns), keep)
            lost = lost.view(len(rows), len(columns), -1)
            total = torch.einsum("rcb,rh,cw->bhw", lost, rows, columns)
            return (total / torch.outer(rows.sum(0), columns.sum(0))).unsqueeze(1)

    def _windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows and which columns each window hides: 0 or 1, ``[n,H]`` and ``[m,W]``."""
        rows, columns = self._rows_and_columns
        height, width = images.shape[-2:]
        return self._along(height, rows).to(images), self._along(width, columns).to(images)

    def _along(self, side: int, count: int) -> Tensor:
        window = self._pixels(side)
        if self.stride is None:
            starts = torch.linspace(0, side - window, count, dtype=torch.float64).round()
        else:
            starts = self.stride * torch.arange(1 + math.ceil((side - window) / self.stride))
        places = torch.arange(side)
        hides = (places >= starts.unsqueeze(1)) & (places < starts.unsqueeze(1) + window)
        if not hides.any(0).all():
            raise InvalidInput(
                "window",
                f"{len(starts)} windows of {window} pixels leave gaps on a side of {side}",
                "make window larger, or grid larger, or stride smaller",
            )
        return hides

    def _pixels(self, side: int) -> int:
        if not isinstance(self.window, int):
            return max(1, round(self.window * side))
        if self.window > side:
            raise InvalidInput("window", f"{self.window} pixels do not fit into {side}")
        return self.window

    @property
    def _rows_and_columns(self) -> tuple[int, int]:
        return (self.grid, self.grid) if isinstance(self.grid, int) else self.grid

    def resolved(self, model: nn.Module, images: Tensor) -> "Occlusion":
        """The same explainer with the windows of these images counted."""
        rows, columns = self._windows(images)
        return replace(self, grid=(len(rows), len(columns))) if self.stride else self

    def cost(self) -> Passes:
        rows, columns = self._rows_and_columns
        return Passes(1 + rows * columns, 0)
