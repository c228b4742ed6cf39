"""A shift that the model cannot see: Kindermans et al. 2019."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.core.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class ConstantShift:
    """Constant shift: f'(x') = f(x' − m) is shown x' = x + m. Every output is the same number.

    A map that explains the model's reasons is the same as well (*input invariance*): it is
    for the gradient, and for whatever looks only at activations behind the first layer. It is
    not for input × gradient, which gains m ⊙ ∂s/∂x and so displays the picture m, nor for a
    path or an occlusion that starts at a fixed colour: black is another reference for x'.

    m is ``by`` everywhere (*constant*), or ±``by`` in squares of ``cell`` pixels
    (*checkerboard*), in pixel units; x' may leave [0, 1], as in the paper, where m = −1. Here
    m is subtracted in front of the model, where the paper puts it into the first bias, which
    is the same function where the first layer pads nothing; with zero padding only this
    form is exact. No budget: the pictures differ by m, and the model undoes it.
    """

    by: float = 0.3
    pattern: Literal["constant", "checkerboard"] = "constant"
    cell: int = 4

    def __post_init__(self) -> None:
        check_finite("by", self.by)
        if self.by == 0:
            raise InvalidInput("by", "a shift by 0 is none")
        if self.cell < 1:
            raise InvalidInput("cell", f"must be at least 1 pixel, got {self.cell}")

    @property
    def needs_explainer(self) -> bool:
        return False

    def shift(self, images: Tensor) -> Tensor:
        """m ``[1,1,H,W]``, the same for every image and channel."""
        height, width = images.shape[-2:]
        if self.pattern == "constant":
            return images.new_full((1, 1, height, width), self.by)
        rows = torch.arange(height, device=images.device) // self.cell
        columns = torch.arange(width, device=images.device) // self.cell
        odd = (rows[:, None] + columns[None]) % 2
        return (self.by * (1 - 2 * odd)).to(images).view(1, 1, height, width)

    def manipulate(self, problem: Problem) -> nn.Module:
        return _Shifted(deepcopy(problem.model), self.shift(problem.images)).eval()

    def moved(self, problem: Problem) -> Tensor:
        return problem.images + self.shift(problem.images)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


class _Shifted(Wrapper):
    """x ↦ f(x − shift), under the model's own module names."""

    def __init__(self, inner: nn.Module, shift: Tensor) -> None:
        super().__init__(inner)
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images - self.shift)
