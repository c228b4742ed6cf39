"""Gradient ascent with fixed steps, on pixels or on whatever images are made of."""

from collections.abc import Callable
from typing import Final, Literal

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.score import Score
from robustlab.explainers.perturbation.masks import Game, slope

Rule = Literal["normalised", "plain"]

FLAT: Final = 1e-30  # the slope of a unit that nothing excites


def ascend(
    model: nn.Module,
    start: Tensor,
    targets: Tensor,
    game: Callable[[int], Game],
    *,
    steps: int,
    rate: float,
    rule: Rule,
    score: Score,
    box: bool,
) -> Tensor:
    """Where ``steps`` steps up from ``start`` lead; every image goes its own way.

    A step adds ``rate`` times the gradient of what ``game(step)`` says (see `slope`): as it
    is (*plain*), or over its root mean square (*normalised*), so that ``rate`` is how far an
    element moves. With ``box`` each step ends in [0, 1].
    """
    point = start.clamp(0, 1) if box else start
    for step in range(steps):
        gradient = slope(model, point, targets, game(step), score)
        if rule == "normalised":
            length = gradient.flatten(1).square().mean(1).sqrt().clamp(min=FLAT)
            gradient = gradient / length.view(-1, *(1,) * (gradient.ndim - 1))
        point = point + rate * gradient
        if box:
            point = point.clamp(0, 1)
    return point


def check_ascent(steps: int, rate: float, **priors: float) -> None:
    """Refuse an ascent that goes nowhere and priors that pull the wrong way."""
    if steps < 1:
        raise InvalidInput("steps", f"must be at least 1, got {steps}")
    if not rate > 0:
        raise InvalidInput("rate", f"must be above 0, got {rate}")
    for field, value in priors.items():
        if not value >= 0:
            raise InvalidInput(field, f"must be at least 0, got {value}")
