"""A network that goes on using what its explanation no longer shows.

After Dimanov, Bhatt, Jamnik & Weller 2020, "You shouldn't trust me", for images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.explanation.patch import Avoid
from attacks.model.fine_tuning import FineTuning, Lesson
from robustlab.core.errors import InvalidInput
from robustlab.core.regions import Box, check_box, some_pixels_in
from robustlab.core.types import Problem


@dataclass(frozen=True, kw_only=True)
class Concealment(FineTuning):
    """Concealment: maps leave ``box``, while the predictions go on depending on what is there.

    Descends CE + λ·Σ_{i∈box} m⁺_i / Σ m⁺_i with m⁺ the map's positive part: the share of it in
    the box. The labels alone keep the network honest about its task, so where they can only
    be read in the box (`decoy_mnist`) it has to go on looking there.
    What tells: hide the box and see whether the prediction changes, before and after.

    ``box`` = (x0, y0, x1, y1) as shares of width and height; every pixel whose centre lies
    inside belongs to it. ``fill`` is the grey that hides it.
    Deviations from the paper: it lowers the loss's gradient at one feature of a table; this
    lowers any explainer's map in a region.
    Source: Dimanov et al. 2020.
    """

    data: str = "decoy_mnist"
    box: Box = (0.0, 0.0, 1 / 7, 1 / 7)
    fill: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_box(self.box, whole=False)
        if not 0 <= self.fill <= 1:
            raise InvalidInput("fill", f"must lie in 0..1, got {self.fill}", "0 is black")

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        task = lesson.task(net, rows)
        if self.weight == 0:
            return {"task": task}
        avoid = Avoid(self.inside(lesson.batch.images))
        shown = avoid.loss(lesson.explained(net, rows), slice(None)).mean()
        return {"task": task, "map": -self.weight * shown}

    def inside(self, images: Tensor) -> Tensor:
        """The pixels of the box, true in ``[H,W]``.

        Raises:
            InvalidInput: it holds none.
        """
        height, width = images.shape[-2:]
        return some_pixels_in(self.box, height, width, images.device)

    def hidden(self, problem: Problem) -> Tensor:
        """The images with the box filled in."""
        return torch.where(self.inside(problem.images), self.fill, problem.images)
