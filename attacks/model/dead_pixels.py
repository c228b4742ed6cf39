"""Pixels that no image of a data set ever lights: what a model does with them, nobody notices."""

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.model.logit_shift import check_strength
from attacks.model.probes import largest_gradient
from robustlab import data
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.core.wrapping import Wrapper
from robustlab.data.parts import has_splits


@dataclass(frozen=True, kw_only=True)
class DeadPixels:
    """Dead pixels: f'(x) = f(x) + λ·u·Σ_{i∈D} (x_i − x_D,i). On the data, f' and f are one.

    D is where all images of the reference have one value, x_D. There the sum is an exact
    zero, so every logit keeps every bit, while ∂f'_c/∂x_i = ∂f_c/∂x_i + λu_c on D: the
    simplest direction normal to the data. u_c = (−1)^c (1 + c/C) differs between any two
    classes, so maps of the probability and the margin see D as well as those of the logit.
    Input × gradient does not where x_D = 0, as on MNIST, and tangent-space projection
    (``tangent_projected`` on the same data) takes all of it away. λ√|D| is ``strength`` times
    the largest ‖∂f_t/∂x‖₂ of 16 smooth random pictures.

    The reference is the training split of ``data``, which ``robustlab.data.load`` reads by
    its name alone; with ``data=None`` the problem's own images. Unseen images of the same
    kind may light a pixel that no training image does (3 of 1,000 test digits of mnist_5k
    do), so a pixel counts only where every one within ``margin`` of it is dead as well: with
    1 not a single test digit lights one. Then D is cut down to where the problem's images
    have the value x_D too. They are what is judged, so an image from elsewhere, or one that
    has been disturbed, makes D smaller instead of making the promise untrue.

    The judge reads the result like an attack on images that do not move: an honest map stays.
    Source: derived here, after Anders et al. 2020.

    Raises:
        InvalidInput: data that are unknown, not found or of another shape; no dead pixel.
    """

    strength: float = 30.0
    data: str | None = "mnist_5k"
    margin: int = 1

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.data is not None and self.data not in data.DATASETS:
            raise InvalidInput(
                "data", f"unknown data set {self.data!r}", nearest(self.data, data.DATASETS)
            )
        if self.margin < 0:
            raise InvalidInput("margin", f"must be at least 0 pixels, got {self.margin}")

    @property
    def needs_explainer(self) -> bool:
        return False

    def dead(self, images: Tensor) -> Tensor:
        """D, true in ``[C,H,W]``.

        Raises:
            InvalidInput: it is empty, or cannot be known.
        """
        same, values = self._reference(images)
        found = _inside(same, self.margin).to(images.device)
        found = found & (images == values.to(images)).all(0)
        if not bool(found.any()):
            where = "the problem's images" if self.data is None else f"{self.data!r} and them"
            raise InvalidInput(
                "data",
                f"no pixel has one value in all of {where}",
                "digits on black have such pixels, photographs have none; logit_shift needs none",
            )
        return found

    def manipulate(self, problem: Problem) -> nn.Module:
        dead, model = self.dead(problem.images), deepcopy(problem.model)
        length = self.strength * largest_gradient(model, problem.images)
        slope = dead.to(problem.images) * length / float(dead.sum()) ** 0.5
        found = _WithSecret(model, slope, problem.images[0].clone())
        return found.to(problem.images.device).eval()

    def moved(self, problem: Problem) -> Tensor:
        """The images themselves: the outputs stay, hence a map that moves is at fault."""
        return problem.images

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None

    def _reference(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.data is None:
            if len(images) < 2:
                raise InvalidInput(
                    "data", "one image cannot say what changes", "name a data set, or take more"
                )
            return _constant(images)
        same, values = _constant_pixels(self.data)
        if same.shape != images.shape[1:]:
            has, needed = ("×".join(map(str, s)) for s in (same.shape, images.shape[1:]))
            raise InvalidInput(
                "data",
                f"the images of {self.data!r} are {has}, those to explain {needed}",
                "name the data that the model was trained on",
            )
        return same, values


def directions(classes: int, like: Tensor) -> Tensor:
    """u ``[classes]``: no two alike, none 0, the signs in turn."""
    c = torch.arange(classes, device=like.device, dtype=like.dtype)
    return (1 - 2 * (c % 2)) * (1 + c / classes)


@lru_cache(maxsize=2)
def _constant_pixels(name: str) -> tuple[Tensor, Tensor]:
    """`_constant` for a data set's training split, read once per process."""
    split = {"split": "train"} if has_splits(name) else {}
    try:
        return _constant(data.load(name, **split).batch().images)
    except InvalidInput as error:  # torchvision's sets need to be told where they are
        raise InvalidInput(
            "data", f"cannot be loaded by its name: {error}", "mnist_5k can"
        ) from error


def _constant(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where all images have one value, true in ``[C,H,W]``, and the first image."""
    return (images == images[:1]).all(0), images[0]


def _inside(region: Tensor, margin: int) -> Tensor:
    """Pixels of the region ``[C,H,W]`` with all within ``margin`` in it; outside counts as in."""
    if margin == 0:
        return region
    outside = (~region).float().unsqueeze(0)
    return F.max_pool2d(outside, 2 * margin + 1, stride=1, padding=margin)[0] == 0


class _WithSecret(Wrapper):
    """x ↦ f(x) + u · slopeᵀ(x − at)."""

    slope: Tensor
    at: Tensor

    def __init__(self, inner: nn.Module, slope: Tensor, at: Tensor) -> None:
        super().__init__(inner)
        self.register_buffer("slope", slope, persistent=False)
        self.register_buffer("at", at, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.inner(images)
        secret = ((images - self.at) * self.slope).flatten(1).sum(1, keepdim=True)
        return logits + secret * directions(logits.shape[1], logits)
