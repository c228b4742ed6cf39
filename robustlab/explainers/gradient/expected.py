"""Expected gradients: integrated gradients averaged over baselines, one random point of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.blur import gaussian_blur
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import copies, input_gradient
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.gradient.baselines import (
    check_background,
    check_blur,
    drawn_from,
    random_pixels,
)
from robustlab.explainers.gradient.path import path_product, pulled_back


@dataclass(frozen=True, kw_only=True)
class ExpectedGradients:
    """Expected gradients (GradientSHAP): a = (1/n) Σ_j (x − b_j) ⊙ ∂s/∂z at b_j + α_j (x − b_j).

    ``samples`` = n. α_j is uniform on [0, 1] and b_j comes from the ``background``: *uniform*
    random pixels in [0, 1]; the image's own Gaussian *blur* (``blur_sigma`` pixels, the same
    for every j); or the name of a data set that ``robustlab.data.load`` reads by its name
    alone, whose images are drawn with equal chances and put back (also the explained image
    itself, if it is among them). Draws belong to an image by ``seed`` and its id, and are the
    same for the attack and the judge. Captum's GradientShap also adds noise to the image; the
    paper and we do not. As n grows, Σ a → s(x) − mean of s(b) in expectation only.

    Raw shape ``[B,C,H,W]``; default map Σ_c |a|. Cost: n forward and n backward passes.
    Sources: Erion et al. 2021; Lundberg & Lee 2017 for GradientSHAP.

    Raises:
        InvalidInput: the data set is unknown, is not found, or has images of another shape.
    """

    about: ClassVar[About] = About(
        family="gradient",
        year=2021,
        source="Erion et al. 2021, Improving performance of deep learning models with axiomatic"
        " attribution priors and expected gradients",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    background: str = "uniform"
    samples: int = 16
    blur_sigma: float = 10.0
    seed: int = 0
    score: Score = "logit"
    post: Post = "abs_sum"

    def __post_init__(self) -> None:
        check_background(self.background)
        check_blur(self.blur_sigma)
        if self.samples < 1:
            raise InvalidInput("samples", f"must be at least 1, got {self.samples}")

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        images = images if create_graph else images.detach()
        sums: dict[int, Tensor] = {}

        def started(part: Tensor, j: int, where: slice) -> Tensor:
            return self._start(part, None if ids is None else ids[where], j)

        for js, where, starts in copies(images, self.samples, started):
            names = None if ids is None else ids[where]
            part = images[where]
            path = part.repeat(len(js), 1, 1, 1) - starts
            alphas = torch.cat([self._alpha(part, names, j) for j in js])
            gradients = input_gradient(
                model,
                starts + alphas * path,
                targets[where].repeat(len(js)),
                score=self.score,
                create_graph=create_graph,
            )
            for term in (path * gradients).view(len(js), *part.shape):
                sums[where.start] = sums[where.start] + term if where.start in sums else term
        return torch.cat([sums[start] for start in sorted(sums)]) / self.samples

    def transpose_product(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        cotangent: Tensor,
        *,
        step: float,
        ids: Sequence[str] | None = None,
    ) -> Tensor:
        """Jᵀv as `path_product` has it, and through the background where it is the blur."""
        with torch.enable_grad():
            image = images.detach().requires_grad_()
            start = self._start(image, ids, 0)  # the only one that follows the image is shared
        images = image.detach()
        points = (
            (self._start(images, ids, j), self._alpha(images, ids, j), 1 / self.samples)
            for j in range(self.samples)
        )
        to_image, to_start = path_product(
            model, images, targets, cotangent, points, step=step, score=self.score
        )
        return to_image + pulled_back(start, image, to_start)

    def _start(self, images: Tensor, ids: Sequence[str] | None, sample: int) -> Tensor:
        purpose = f"expected_gradients/background/{sample}"
        if self.background == "blur":
            return gaussian_blur(images, self.blur_sigma)
        if self.background == "uniform":
            return random_pixels(images, ids, self.seed, purpose)
        return drawn_from(self.background, images, ids, self.seed, purpose)

    def _alpha(self, images: Tensor, ids: Sequence[str] | None, sample: int) -> Tensor:
        """One number in [0, 1] per image, ``[B,1,1,1]``."""
        purpose = f"expected_gradients/alpha/{sample}"
        return random_pixels(images[:, :1, :1, :1], ids, self.seed, purpose)

    def cost(self) -> Passes:
        return Passes(self.samples, self.samples)
