"""Subramanya, Pillai & Pirsiavash 2019: "Fooling network interpretation in image classification".

A patch that makes the model see another class, and hides from the explanation of that class.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from attacks.explanation.ascent import Ascent, Path
from attacks.explanation.objectives import Objective
from attacks.explanation.selection import Best
from attacks.explanation.steering import check_path, map_gradient
from attacks.norms import check_norm
from attacks.toward import Toward, check_toward, classes_toward, pull
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import TINY
from robustlab.core.randomness import signs
from robustlab.core.streaming import logits_of
from robustlab.core.tables import check_finite
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.data.stamp import Corner


@dataclass(frozen=True, eq=False)
class Avoid:
    """−Σ_{i∈P} m⁺_i / Σ m⁺_i for the patch P ``[H,W]`` and the positive part m⁺ of a map.

    A map without a positive part points nowhere: it counts as a flat one, |P|/HW, because
    else an attack would only have to extinguish the map.
    """

    inside: Tensor

    def loss(self, maps: Tensor, where: slice) -> Tensor:
        positive = maps.clamp(min=0)
        total = positive.sum((1, 2))
        share = (positive * self.inside).sum((1, 2)) / total.clamp(min=TINY)
        return -torch.where(total > TINY, share, self.inside.to(maps.dtype).mean())

    def value(self, maps: Tensor) -> Tensor:
        return self.loss(maps, slice(None)).double()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a patch lies: in a ``corner``, or ``at`` (x0, y0), its upper left pixel as shares
    of width and height, which comes first. The side is the budget's, ⌊√(ε·H·W)⌋ pixels.
    """

    corner: Corner = "top_left"
    at: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.at is not None and not all(0 <= share <= 1 for share in self.at):
            raise InvalidInput("at", f"{self.at} is not within the image", "(0, 0) is a corner")

    def inside(self, images: Tensor, budget: Budget) -> Tensor:
        """The patch's pixels, true in ``[H,W]``.

        Raises:
            InvalidInput: less than a pixel, or a place from where it leaves the picture.
        """
        height, width = images.shape[-2:]
        side = min(budget.side(images), height, width)
        if side == 0:
            raise InvalidInput(
                "epsilon",
                f"{budget.epsilon:.2g} of a {width}x{height} picture is less than one pixel",
                f"{1.01 / (width * height):.2g} is one",
            )
        left = width - side if self.corner.endswith("right") else 0
        top = height - side if self.corner.startswith("bottom") else 0
        if self.at is not None:
            left, top = round(self.at[0] * width), round(self.at[1] * height)
        if left + side > width or top + side > height:
            most = (width - side) / width, (height - side) / height
            raise InvalidInput(
                "at",
                f"from {self.at} a patch of {side}x{side} pixels leaves a {width}x{height} picture",
                f"at most ({most[0]:.2g}, {most[1]:.2g})",
            )
        inside = torch.zeros(height, width, dtype=torch.bool, device=images.device)
        inside[top : top + side, left : left + side] = True
        return inside


@dataclass(frozen=True, kw_only=True)
class RandomPatch(Place):
    """The control of patches: every value of the patch is black or white by a fair coin."""

    @property
    def needs_explainer(self) -> bool:
        return False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, ("patch",), "a random patch")
        if budget.epsilon == 0:
            return problem.images.clone()
        coins = signs(problem.images, problem.ids, problem.seed, "random_patch")
        values = torch.where(coins > 0, budget.upper, budget.lower).to(problem.images)
        return torch.where(self.inside(values, budget), values, problem.images)

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Patch(Place):
    """An adversarial patch that the map of its own class does not show.

    Over the values z ∈ [lower, upper] of a square P, from mid-grey:
    z ← z − α·sign ∇(Σ_{i∈P} m⁺_i / Σ m⁺_i + ``weight``·CE(x̃, t)), with m⁺ the positive part
    of the map of class t (``toward``) on the patched image x̃. For an image that is already
    predicted as t the CE is switched off. Among the iterates that are predicted as t the one
    with the least energy in P is kept; where there is none, the last. ``hide`` = False takes
    steps on the CE alone and keeps the last iterate predicted as t: the plain adversarial
    patch that the paper compares with, which looks at no explanation.

    Needs a budget of norm ``patch``; pixels outside P stay bit for bit. ``step_size`` in pixel
    units, by default 2.5·(upper − lower)/steps; a ``probe`` (hessian_vector) is a share of it;
    ``path`` and ``beta`` as for the attacks on maps alone. Judge it with ``target: current``,
    or explain class t: success is another prediction whose map is not in P.

    Cost per step: a gradient, a forward pass and an explanation, and three more explanations
    (hessian_vector) or a double backward (double_backward); without ``hide`` a gradient and a
    forward pass. Deviations from the paper: any map instead of Grad-CAM's cells, so the energy
    is a share and not divided by their number; z starts at mid-grey, not at the mean colour;
    z itself stays in the box; all steps are taken and the best is kept.
    """

    steps: int = 100
    step_size: float | None = None
    toward: Toward = "runner_up"
    weight: float = 1.0
    hide: bool = True
    path: Path = "auto"
    beta: float | tuple[float, float] | Literal["auto"] | None = "auto"
    probe: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._along()  # refuses steps, paths and surrogates that cannot be
        check_toward(self.toward)
        if not self.weight > 0:
            raise InvalidInput("weight", f"must be above 0, got {self.weight}")
        check_finite("weight", self.weight)

    @property
    def needs_explainer(self) -> bool:
        return self.hide

    def gradient_path(self, explainer: Explainer) -> str:
        return self._along().gradient_path(explainer) if self.hide else ""

    def control(self) -> Attack | None:
        return RandomPatch(corner=self.corner, at=self.at)

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        check_norm(budget, ("patch",), "patch")
        if self.hide:
            check_path(self._along(), problem.explainer)
        if budget.epsilon == 0:
            return problem.images.clone()
        wanted = classes_toward(problem, self.toward)
        inside = self.inside(problem.images, budget)
        middle = torch.full_like(problem.images, (budget.lower + budget.upper) / 2)
        start = torch.where(inside, middle, problem.images)
        search = self._hidden if self.hide else self._plain
        return search(replace(problem, targets=wanted), budget, inside, start)

    def _hidden(self, aimed: Problem, budget: Budget, inside: Tensor, images: Tensor) -> Tensor:
        objective: Objective = Avoid(inside)
        best = Best(aimed, objective, budget=budget, wanted=aimed.targets)
        seen = best.consider(images)
        for step in range(self.steps):
            gradient = map_gradient(
                aimed,
                images,
                objective,
                self._along(),
                step=step,
                probe=self.probe * self._length(budget),
            )
            missing = ~seen.kept.view(-1, 1, 1, 1)
            gradient = gradient + self.weight * missing * pull(aimed, images, aimed.targets)
            images = self._moved(aimed, budget, inside, images, gradient)
            seen = best.consider(images)
        last = budget.finished(images, aimed.images)
        return torch.where(best.found.view(-1, 1, 1, 1), best.images, last)

    def _plain(self, aimed: Problem, budget: Budget, inside: Tensor, images: Tensor) -> Tensor:
        kept, found = images, torch.zeros_like(aimed.targets, dtype=torch.bool)
        for _ in range(self.steps):
            gradient = pull(aimed, images, aimed.targets)
            images = self._moved(aimed, budget, inside, images, gradient)
            shown = budget.finished(images, aimed.images)
            reached = logits_of(aimed.model, shown).argmax(1) == aimed.targets
            found |= reached
            kept = torch.where((reached | ~found).view(-1, 1, 1, 1), shown, kept)
        return kept

    def _moved(
        self, aimed: Problem, budget: Budget, inside: Tensor, images: Tensor, gradient: Tensor
    ) -> Tensor:
        moved = images + self._length(budget) * budget.steepest(gradient)
        return torch.where(inside, moved.clamp(budget.lower, budget.upper), aimed.images)

    def _length(self, budget: Budget) -> float:
        return self.step_size or 2.5 * (budget.upper - budget.lower) / self.steps

    def _along(self) -> Ascent:
        """The same settings for the part of the gradient that comes from the map."""
        return Ascent(steps=self.steps, path=self.path, beta=self.beta, probe=self.probe,
                      step_size=self.step_size)  # fmt: skip
