"""The inner attack of robust training: PGD on whatever an objective wants to be large."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import uniform
from robustlab.training.examples import Gain, Reach


@dataclass(frozen=True, kw_only=True)
class SignSearch:
    """x ← Π(x + α · sign ∇ gain(x)) in the L∞ ball and the pixel box; the last iterate.

    An objective's terms are averages over what is found, so no iterate is picked: that is how
    Madry et al. 2018 and Chen et al. 2019 train. They start at x + U(−ε, ε) and clip after the
    first step; here the start is clipped as well. The start of an image depends on the seed,
    its id and the step of the training. Cost: one evaluation of the gain and its gradient per step.

    Raises:
        InvalidInput: the gain does not depend on the images, as that on the gradient map of a
            linear network would not.
    """

    def __call__(
        self,
        gain: Gain,
        images: Tensor,
        reach: Reach,
        *,
        ids: tuple[str, ...],
        seed: int,
        step: int,
    ) -> Tensor:
        found = images.detach()
        if reach.random_start:
            noise = uniform(found, ids, seed, f"inner start {step}")
            found = reach.budget().project(found + reach.epsilon * noise, images)
        return climb(gain, found, images, reach)


def climb(gain: Gain, start: Tensor, images: Tensor, reach: Reach) -> Tensor:
    """The steps alone, from ``start`` and within reach of ``images``."""
    budget, found = reach.budget(), start.detach()
    for _ in range(reach.steps):
        leaf = found.clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(_dependent(gain(leaf)).sum(), leaf)
        found = budget.project(found + reach.stride * slope.sign(), images)
    return found


def _dependent(gains: Tensor) -> Tensor:
    if not gains.requires_grad:
        raise InvalidInput(
            "model",
            "what the inner attack should enlarge does not depend on the image",
            "the gradient map of a linear network is the same everywhere: take another objective",
        )
    return gains
