"""Does the map say by how much the model's answer changes when the picture does?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import generator, normal
from robustlab.core.score import Score
from robustlab.core.tables import check_choice
from robustlab.core.types import Passes
from robustlab.metrics.asking import answers, check_ids, fitting, scored
from robustlab.metrics.pairs import LARGEST, divided, home, peak
from robustlab.metrics.stand_in import Baseline, check_baseline, stand_in

Perturbation = Literal["noise", "square"]


@dataclass(frozen=True, kw_only=True)
class Infidelity:
    """Mean squared error of the map's forecast of what a perturbation does to the score.

    E_I [(β·Iᵀφ − (f(x) − f(x − I)))²] over ``samples`` perturbations I of the image x, with
    f the target's ``score`` and φ the map. β is 1, or with ``normalise`` the best scale,
    β = E[Iᵀφ·Δf] / E[(Iᵀφ)²] (0 where the map forecasts nothing), because a map of this lab
    has hardly ever kept the scale of its score. β may be negative: a map and its negative then
    score alike. In squared units of the score, at least 0: lower is more faithful. E[Δf²],
    what an all-zero map has, is the most that there is with ``normalise``. Compare maps of
    one image and model; between models the score's own scale tells.

    ``perturbation`` *noise*: Gaussian of standard deviation ``sigma`` in pixel values, grey:
    all channels of a pixel move alike. *square*: a square whose side is ``side`` times the
    shorter side of the image (at least a pixel), anywhere it fits, shows the ``baseline``
    instead, so I = x − baseline in there and 0 elsewhere.

    A map ``[B,H,W]`` has one value per pixel, an image has C channels. Iᵀφ is
    Σ_pixels φ · (mean of I over the channels): the map is taken to hold what all channels of
    a pixel do together, each 1/C of it. So the gradient of a linear model, summed over the
    channels (``post: signed``), has infidelity 0 under noise, and under squares of grey
    images. A map without signs cannot forecast in which direction the score goes.

    ``contributions``: the map holds what each pixel adds to the score (input × gradient,
    integrated gradients, LRP, SHAP, occlusion) and not the slope there; then I counts as 1
    for each removed pixel in Iᵀφ. With *square* only.

    One float64 number per image. Ties play no role; a constant map forecasts by the sum of I
    alone. Chance: the same values in random places. The perturbations of an image depend on
    ``seed``, its id and the sample's number only, and may leave the pixel box. Cost: samples
    + 1 forward passes. Memory: one micro-batch.

    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019, On the (in)fidelity and sensitivity
    of explanations (NeurIPS); β as in their code and captum's ``normalize=True``. They draw
    noise per channel, which a map of pixels cannot answer for.

    Raises:
        InvalidInput: maps that do not fit the images, NaN in a map, ids that are not one
            per image.
    """

    name: ClassVar[str] = "infidelity"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    only_order: ClassVar[bool] = False

    perturbation: Perturbation = "noise"
    normalise: bool = True
    score: Score = "logit"
    samples: int = 50
    sigma: float = 0.2
    side: float = 0.25
    baseline: Baseline = "mean"
    blur: float = 0.15
    contributions: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("perturbation", self.perturbation, get_args(Perturbation))
        check_choice("score", self.score, get_args(Score))
        if self.samples < 1 + self.normalise:
            least = "2: one sample always has a scale that fits it" if self.normalise else "1"
            raise InvalidInput("samples", f"must be at least {least}")
        if not self.sigma > 0:
            raise InvalidInput("sigma", f"must be above 0, got {self.sigma}")
        if not 0 < self.side <= 1:
            raise InvalidInput("side", f"must be above 0 and at most 1, got {self.side}")
        check_baseline(self.baseline, self.blur)
        if self.contributions and self.perturbation == "noise":
            raise InvalidInput(
                "contributions", "noise removes no pixel", "with perturbation: square"
            )

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        values = fitting(maps, images).to(home(images.device), torch.float64)
        check_ids(ids, images)
        scale = peak(values)
        shape = divided(values, scale)  # so that nothing overflows on the way
        forecast = values.new_zeros(self.samples, len(images))
        seen = images.detach()
        visible = seen - stand_in(seen, self.baseline, self.blur)

        def alter(part: Tensor, j: int, where: slice) -> Tensor:
            if j == 0:
                return part
            change, weight = self._perturbed(visible[where], ids[where], j - 1)
            forecast[j - 1, where] = (weight.to(shape) * shape[where]).sum((1, 2))
            return part - change

        said = answers(model, images, targets, self.samples + 1, alter, scored(self.score))
        happened = said[:1] - said[1:]
        if self.normalise:
            forecast *= _best_scale(forecast, happened)
        else:
            forecast *= scale.flatten()
        return (forecast - happened).square().mean(0).clamp(max=LARGEST)

    def _perturbed(self, visible: Tensor, ids: Sequence[str], j: int) -> tuple[Tensor, Tensor]:
        """I ``[B,C,H,W]``, and what the map is multiplied with, ``[B,H,W]``.

        ``visible`` is what a square takes away, x − baseline.
        """
        purpose = f"infidelity/{j}"
        if self.perturbation == "noise":
            grey = self.sigma * normal(visible[:, :1], ids, self.seed, purpose)
            return grey.expand_as(visible), grey[:, 0]
        inside = torch.stack([self._square(visible, i, purpose) for i in ids]).unsqueeze(1)
        change = visible * inside
        return change, inside[:, 0] if self.contributions else change.mean(1)

    def _square(self, like: Tensor, image_id: str, purpose: str) -> Tensor:
        """1 inside a square that lies anywhere, ``[H,W]``."""
        height, width = like.shape[-2:]
        side = max(1, round(self.side * min(height, width)))
        draw = generator(self.seed, image_id, purpose)
        top, left = (
            int(torch.randint(0, length - side + 1, (), generator=draw, device="cpu"))
            for length in (height, width)
        )
        square = torch.zeros(height, width, dtype=like.dtype, device=like.device)
        square[top : top + side, left : left + side] = 1
        return square

    def cost(self) -> Passes:
        return Passes(self.samples + 1, 0)


def _best_scale(forecast: Tensor, happened: Tensor) -> Tensor:
    """β per image: what brings the forecasts ``[samples,B]`` nearest to what happened."""
    square = forecast.square().sum(0)
    return torch.where(square > 0, divided((forecast * happened).sum(0), square), 0.0)
