"""What an objective is given in a step: images, and somebody who searches around them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal

Gain = Callable[[Tensor], Tensor]
"""Images ``[B,C,H,W]`` in, what to make large ``[B]`` out; differentiable in the images."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How an objective's inner attack searches: PGD on the L∞ ball in the pixel box.

    Attributes:
        epsilon: radius, in pixel units.
        steps: of the search.
        step_size: of each; None takes 2.5 · epsilon / steps.
        random_start: begin at a random point of the ball, and not at the image.
    """

    epsilon: float
    steps: int
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        self.budget()
        if self.steps < 1:
            raise InvalidInput("steps", f"must be at least 1, got {self.steps}")
        if self.step_size is not None and not self.step_size > 0:
            raise InvalidInput("step_size", f"must be above 0, got {self.step_size}")

    def budget(self) -> Budget:
        """The ball.

        Raises:
            InvalidInput: a radius that is negative, not finite or wider than the pixel box.
        """
        return Budget("linf", self.epsilon)

    @property
    def stride(self) -> float:
        """The step size that is taken."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size


class Search(Protocol):
    """An inner attack: an objective is handed one and does not know which."""

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
        """Images within reach of ``images`` for which ``gain`` is larger, detached."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """The images of one step of a training.

    Attributes:
        search: the inner attack.
        seed, step: with the ids, all that randomness may depend on.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    search: Search
    seed: int = 0
    step: int = 0

    def worst(self, gain: Gain, reach: Reach) -> Tensor:
        """The images as the inner attack leaves them, without a graph."""
        found = self.search(gain, self.images, reach, ids=self.ids, seed=self.seed, step=self.step)
        return found.detach()

    def normal(self, purpose: str) -> Tensor:
        """Standard normal noise in the shape of the images: other numbers in every step."""
        return normal(self.images, self.ids, self.seed, f"{purpose} {self.step}")
