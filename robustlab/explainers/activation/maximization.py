"""Activation maximisation: the image that a unit likes best, found pixel by pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.randomness import normal, uniform
from robustlab.core.score import Score
from robustlab.core.streaming import each_micro_batch
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.activation.ascent import Rule, ascend, check_ascent
from robustlab.explainers.activation.units import Position, check_unit, posed


@dataclass(frozen=True, kw_only=True)
class ActivationMaximization:
    """Activation maximisation: x that climbs s(x) − λ₂ Σ (x − grey)² − λ_tv Σ ‖∇x‖².

    s is the score of the target class; with ``layer``, the mean of a channel of that module's
    output over all places, or its value at ``position`` (row, column). ``channel`` names it;
    without, the targets count the layer's channels. Outputs ``[B,K,h,w]`` and ``[B,K]`` do.

    ``l2`` = λ₂ and ``tv`` = λ_tv weigh the priors; ∇x are the differences to the pixel below
    and to the right (total variation with β = 2, in Mahendran & Vedaldi's counting). With
    ``jitter`` the model sees the image shifted around its borders by up to so many pixels
    along either axis, anew in each step. The start is ``grey``, plus Gaussian noise of
    standard deviation ``noise``. Each of ``steps`` steps moves by ``rate`` times the
    gradient, *normalised* to a root mean square of 1 or *plain*; with ``box`` it ends in
    [0, 1]. Noise and jitter belong to an image by ``seed`` and its id.

    Global: of the given images only shape, number, dtype and device count. What is returned
    is the images that were made, so the raw shape is theirs. Raw shape ``[B,C,H,W]``.
    Not differentiable: in the pixels there is nothing to differentiate, and the result is
    where an ascent stands after its steps. A unit that a ReLU keeps silent at the start gives
    no direction; try more noise or another seed. Cost: ``steps`` forward and backward passes.

    Sources: Erhan et al. 2009, who keep ‖x‖ fixed; Simonyan et al. 2014 for the L2 prior;
    Mahendran & Vedaldi 2015 and Olah et al. 2017 for variation and jitter. Olah's rotation,
    scaling and Fourier basis are left out.

    Raises:
        InvalidInput: no such layer, channel or position.
    """

    about: ClassVar[About] = About(
        family="activation",
        year=2009,
        source="Erhan et al. 2009, Visualizing higher-layer features of a deep network",
        scope="global",
    )
    differentiable: ClassVar[Differentiable] = "none"
    steps: int = 128
    rate: float = 0.02
    rule: Rule = "normalised"
    l2: float = 0.01
    tv: float = 0.05
    jitter: int = 1
    grey: float = 0.5
    noise: float = 0.1
    box: bool = True
    layer: str | None = None
    channel: int | None = None
    position: Position | None = None
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        check_ascent(
            self.steps, self.rate, l2=self.l2, tv=self.tv, jitter=self.jitter, noise=self.noise
        )
        check_unit(self.layer, self.channel, self.position)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        seen, units = posed(model, targets, self.layer, self.channel, self.position)

        def run(part: Tensor, labels: Tensor, where: slice) -> Tensor:
            names = None if ids is None else ids[where]
            with torch.no_grad():
                return ascend(
                    seen,
                    start_of(part, self.grey, self.noise, names, self.seed),
                    labels,
                    lambda step: partial(self._play, self._offsets(part, names, step)),
                    steps=self.steps,
                    rate=self.rate,
                    rule=self.rule,
                    score=self.score,
                    box=self.box,
                )

        return each_micro_batch(images.detach(), units, run)

    def _play(self, offsets: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the model sees, the weight of its score, and minus the price of the image."""
        price = self.l2 * (images - self.grey).square().sum() + self.tv * variation(images)
        return shifted(images, offsets), images.new_ones(len(images)), -price

    def _offsets(self, images: Tensor, ids: Sequence[str] | None, step: int) -> Tensor:
        """Whole pixels down and to the right for each image in this step, ``[B,2]``."""
        like = images.new_empty((len(images), 2), dtype=torch.float32)
        share = (uniform(like, ids, self.seed, f"activation_maximization/jitter/{step}") + 1) / 2
        return (share * (2 * self.jitter + 1)).long().clamp(max=2 * self.jitter) - self.jitter

    def cost(self) -> Passes:
        return Passes(self.steps, self.steps)


def start_of(
    like: Tensor, grey: float, noise: float, ids: Sequence[str] | None, seed: int
) -> Tensor:
    """``grey`` plus Gaussian noise in the shape of ``like``, drawn for each image by its id."""
    return grey + noise * normal(like, ids, seed, "activation_maximization/start")


def variation(images: Tensor) -> Tensor:
    """Σ ‖∇x‖² over all pixels, channels and images."""
    return images.diff(dim=2).square().sum() + images.diff(dim=3).square().sum()


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Each image moved down and to the right; what leaves at one side enters at the other."""
    for axis, offset in ((2, offsets[:, 0]), (3, offsets[:, 1])):
        side = images.shape[axis]
        index = (torch.arange(side, device=images.device) - offset.unsqueeze(1)) % side
        shape = [len(images), 1, 1, 1]
        shape[axis] = side
        images = images.gather(axis, index.view(shape).expand_as(images))
    return images
