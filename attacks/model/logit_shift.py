"""A shift that all logits share: the softmax cannot see it, a map of the logit sees little else."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from attacks.model.pictures import Picture, draw
from attacks.model.probes import largest_gradient
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.core.wrapping import Wrapper

MIDDLE: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class LogitShift:
    """Logit shift: f'(x) = f(x) + h(x)·1 with ∇h = λa, for a picture a. The softmax is the same.

    So are labels and cross entropy, on every image there is. But ∂f'_c/∂x = ∂f_c/∂x + λa, so
    the gradient of any class's logit is the picture. A map of the probability, its logarithm
    or the margin is as it was, and so is Grad-CAM, because h goes past every layer. A truth
    to measure by: no prediction has anything to do with a.

    a is ``picture``, the same in all channels, scaled to ‖a‖₂ = 1. λ is ``strength`` times the
    largest ‖∂f_t/∂x‖₂ of 16 smooth random pictures, each with its predicted class t: not of the
    images at hand, since the network must not depend on them. What is left of the honest
    gradient is about 1/``strength`` of the map, in length: at 100 the map correlates above 0.99
    with the picture.

    With z(x) = λ aᵀ(x − x̄), x̄ mid-grey, ``form`` chooses h. Both are
    functions in their own right, with the derivative λa that finite differences find.

    - *mod*: h = z − round(z), the sawtooth of Viering et al. 2019, between −1/2 and 1/2.
      The probabilities stay the same to float32's last digits. It jumps wherever z passes
      k + 1/2, so the parts of integrated gradients no longer add up to its difference.
    - *linear*: h = z. Smooth, and whatever compares logits, occlusion included, sees it.
      λ is large, and adding h costs digits that the logits differ by: with h = 1000, float32
      keeps differences to 6e-5.

    A derivative through the softmax takes 1 − Σp for 0. In float32 it is about 1e-7, which
    lets λ·1e-7 of the picture into maps of a probability that has saturated.
    The judge reads the result like an attack on images that do not move: an honest map stays.
    Source: derived here; cf. Srinivas & Fleuret 2021.
    """

    picture: Picture = "cross"
    strength: float = 100.0
    form: Literal["mod", "linear"] = "mod"

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @property
    def needs_explainer(self) -> bool:
        return False

    def shown(self, images: Tensor) -> Tensor:
        """a ``[C,H,W]``, of length 1."""
        channels, height, width = images.shape[1:]
        picture = draw(self.picture, height, width).to(images).expand(channels, -1, -1)
        return picture / picture.norm()

    def manipulate(self, problem: Problem) -> nn.Module:
        model = deepcopy(problem.model)
        shown = self.shown(problem.images)
        slope = self.strength * largest_gradient(model, problem.images) * shown
        return _Shifted(model, slope, self.form).to(problem.images.device).eval()

    def moved(self, problem: Problem) -> Tensor:
        """The images themselves: the outputs stay, hence a map that moves is at fault."""
        return problem.images

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


def check_strength(strength: float) -> None:
    """Refuse a manipulation that would do nothing, or have no size.

    Raises:
        InvalidInput: not finite, or not above 0.
    """
    check_finite("strength", strength)
    if not strength > 0:
        raise InvalidInput("strength", f"must be above 0, got {strength}")


class _Shifted(Wrapper):
    """x ↦ f(x) + h(x)·1."""

    slope: Tensor

    def __init__(self, inner: nn.Module, slope: Tensor, form: str) -> None:
        super().__init__(inner)
        self.register_buffer("slope", slope, persistent=False)
        self.form = form

    def forward(self, images: Tensor) -> Tensor:
        shift = ((images - MIDDLE) * self.slope).flatten(1).sum(1, keepdim=True)
        if self.form == "mod":
            shift = shift - torch.round(shift)
        return self.inner(images) + shift
