"""Does the model use what the map points at? Pixels removed so that the gap does not show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal
from robustlab.core.tables import check_choice
from robustlab.core.types import Passes
from robustlab.metrics.asking import answers, check_ids, fitting, hit, places, scored
from robustlab.metrics.imputation import imputed

Order = Literal["morf", "lerf"]
Reads = Literal["prob", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Road:
    """What the model still knows of an image whose most important pixels have been made up.

    At each of K ``percentages`` p the ⌊p·n/100⌋ of n pixels whose turn it is are removed and
    made up from those that are left: every one of them is the weighted mean of its eight
    neighbours (1/6 beside it, 1/12 diagonally, over the weights inside the picture), which is
    a linear system, solved exactly; then Gaussian noise of standard deviation ``noise``, in
    pixel values, is added to what was made up. Unlike a grey or black area, the gap has no
    outline that would tell the model which pixels were taken. With a_p what is read of the
    model then, per image and in [0, 1]:

    - ``order`` *morf*, most relevant first: the value is 1/K Σ_p a_p, what is left;
    - *lerf*, least relevant first: 1 − 1/K Σ_p a_p, what is lost of a full answer.

    Lower is more faithful either way, which is why the second is told as a loss: papers give
    the curve itself, 1 − value. ``reads``: *prob*, softmax(f)_t of the target t; *accuracy*,
    1 where t is what is predicted, else 0, whose mean over images is the paper's curve.

    Maps ``[B,H,W]``, one float64 number per image in [0, 1]. Only the order of the pixels
    counts. Ties: first in reading order, whichever end comes first; a constant map removes
    pixels in reading order. Chance: a random order on the same image. The noise of an image
    depends on ``seed``, its id and p only, and may leave the pixel box; it is not clipped.
    Cost: K forward passes, and K sparse systems on the CPU, which of 224² images may be the
    greater part: about 2 s for the nine of one image, on one core. Memory: one micro-batch.

    Source: Rong, Leemann, Borisov, Kasneci & Kasneci 2022, A consistent and efficient
    evaluation strategy for attribution methods (ICML). Their code adds the noise to
    normalised images, where 0.01 is less; the same values have the same weights and borders.

    Raises:
        InvalidInput: maps that do not fit the images, NaN in a map, ids that are not one
            per image.
    """

    name: ClassVar[str] = "road"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    only_order: ClassVar[bool] = True

    order: Order = "morf"
    reads: Reads = "prob"
    percentages: tuple[float, ...] = (10, 20, 30, 40, 50, 60, 70, 80, 90)
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("order", self.order, get_args(Order))
        check_choice("reads", self.reads, get_args(Reads))
        if not self.percentages or not all(0 < p < 100 for p in self.percentages):
            raise InvalidInput(
                "percentages", f"each must be above 0 and below 100, got {self.percentages}"
            )
        if len({*self.percentages}) < len(self.percentages):
            raise InvalidInput("percentages", f"one stands there twice: {self.percentages}")
        if not self.noise >= 0:
            raise InvalidInput("noise", f"must be at least 0, got {self.noise}")

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        ranked = fitting(maps, images)
        turn = places(ranked if self.order == "morf" else -ranked, images)
        check_ids(ids, images)

        def alter(part: Tensor, k: int, where: slice) -> Tensor:
            gone = turn[where] < int(self.percentages[k] * turn[0].numel() / 100)
            return self._made_up(part, gone, ids[where], self.percentages[k])

        read = hit if self.reads == "accuracy" else scored("prob")
        said = answers(model, images, targets, len(self.percentages), alter, read).mean(0)
        return said.clamp(0.0, 1.0) if self.order == "morf" else (1 - said).clamp(0.0, 1.0)

    def _made_up(
        self, images: Tensor, gone: Tensor, ids: Sequence[str], percentage: float
    ) -> Tensor:
        filled = imputed(images, gone)
        if self.noise == 0:
            return filled
        noise = self.noise * normal(images, ids, self.seed, f"road/{percentage:g}")
        return torch.where(gone.unsqueeze(1), filled + noise, filled)

    def cost(self) -> Passes:
        return Passes(len(self.percentages), 0)
