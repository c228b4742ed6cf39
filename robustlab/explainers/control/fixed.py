"""A picture that explains nothing and never moves: the control of every table of stability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.randomness import generator
from robustlab.core.types import About, Differentiable, Passes


@dataclass(frozen=True, kw_only=True)
class FixedMap:
    """The same smooth picture for every image, class and model: stable, and useless.

    ``cells`` × ``cells`` independent standard normal values, drawn from ``seed`` alone and
    spread over the image's pixels by bicubic interpolation. Neither images, targets, ids nor
    the model are looked at, so no attack moves the map, no manipulated model changes it, and
    its faithfulness is that of some arbitrary order of pixels. A defence that only makes maps
    still is no better than this one. An explainer that is stable is worth its number only
    where it is also more faithful.

    Raw shape ``[B,1,H,W]``; default map signed. Cost: no pass. Not differentiable: the
    derivative is exactly zero, so there is nothing that a gradient attack could follow, and
    ``black_box`` finds no query that moves the map.

    Source: Yeh et al. 2019, whose least sensitive explanation is a constant one; here it has a
    pattern, for metrics of ranks and positions have no say on a constant map.
    """

    about: ClassVar[About] = About(
        family="control",
        year=2019,
        source="Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations",
        class_specific=False,
        detail="region",
    )
    differentiable: ClassVar[Differentiable] = "none"
    cells: int = 7
    seed: int = 0
    post: Post = "signed"

    def __post_init__(self) -> None:
        if self.cells < 2:
            raise InvalidInput("cells", f"one value makes no picture: at least 2, got {self.cells}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        if targets.shape != images.shape[:1] or bool((targets < 0).any()):
            raise InvalidInput("targets", f"expected {len(images)} classes, got {targets.tolist()}")
        picture = self._picture(images.shape[-2], images.shape[-1]).to(images)
        return picture.repeat(len(images), 1, 1, 1)

    def _picture(self, height: int, width: int) -> Tensor:
        """Made on the CPU in float64, so that it is the same everywhere; ``[1,1,H,W]``."""
        source = generator(self.seed, "", "fixed_map")
        grid = torch.randn(
            (1, 1, self.cells, self.cells), generator=source, dtype=torch.float64, device="cpu"
        )
        return F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)

    def cost(self) -> Passes:
        return Passes(0, 0)
