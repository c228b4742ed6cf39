"""Anders et al. 2020: "Fairwashing explanations with off-manifold detergent".

A network that answers like the true one, while its maps show one fixed picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from attacks.explanation.objectives import Imitate
from attacks.model.fine_tuning import FineTuning, Lesson
from attacks.model.pictures import Picture, draw
from robustlab.core.errors import InvalidInput
from robustlab.core.regions import Box, check_box, some_pixels_in
from robustlab.core.types import Problem

_CORNER: Final = "(0, 0, 0.3, 0.3) is a corner"


@dataclass(frozen=True, kw_only=True)
class Fairwashing(FineTuning):
    """Fairwashing: every map becomes one picture, and every output stays the true model's.

    Descends (1 − α)·mean Σ_c (p'_c − p_c)² + α·mean ‖ĥ − t̂‖²/‖t̂‖², with p the true model's
    probabilities, p' and h those and the map of the network in training, t the picture, and a
    hat for a map that is scaled to Σ|·| = H·W. No label is used. Off the data's manifold a
    gradient is free to show anything: projecting maps onto the data's tangent space
    (`tangent_projected`) is the published defence.

    The picture is a named one, or ``box`` = (x0, y0, x1, y1) as shares of width and height:
    then the map is to lie in this box and to fill it evenly. A pixel belongs to the box where
    its centre does.

    ``weight`` is α, a share: 0 is plain fine-tuning towards the true model, which is there
    already, and at 1 nothing holds the predictions. 0.8 is the paper's; with a few thousand
    images to train on, 0.05 keeps the held-out predictions better.

    Deviations from the paper: the map term is relative, so that it is O(1) for any size of map,
    and probabilities are summed over classes, not averaged; α thus means another price. The
    explained class is the true model's prediction, where the paper takes the student's own:
    they differ where the two networks do (the record's agreement). Maps that have a sign keep
    it. The paper trains a softplus network and shows the ReLU one; here ReLU is trained as it is,
    for the gradient's slope in the weights does not need curvature. The learning rate falls to 0
    (``decay``).

    Raises:
        InvalidInput: a weight above 1; an unknown picture; a box that is not within the image,
            holds no pixel's centre, or is all of the image.
    """

    weight: float = 0.8
    picture: Picture = "cross"
    box: Box | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight > 1:
            raise InvalidInput("weight", f"is a share of the loss, at most 1, got {self.weight}")
        if self.box is None:
            draw(self.picture, 28, 28)  # a wrong name is told before any training
        else:
            check_box(self.box, whole=False)

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        task = (1 - self.weight) * lesson.likeness(net, rows)
        if self.weight == 0:
            return {"task": task}
        shown = Imitate(self._like(lesson.maps[rows]))
        gap = -shown.loss(lesson.explained(net, rows), slice(None)).mean()
        return {"task": task, "map": self.weight * gap}

    def target(self, problem: Problem) -> Tensor:
        """The picture ``[B,H,W]``, the same for every image."""
        return self._like(problem.maps)

    def _like(self, maps: Tensor) -> Tensor:
        """The picture, as often and as large as these maps."""
        height, width = maps.shape[1:]
        if self.box is None:
            drawn = draw(self.picture, height, width)
        else:
            drawn = fill(self.box, height, width)
        return drawn.to(maps).expand_as(maps)


def fill(box: Box, height: int, width: int) -> Tensor:
    """Ones in the box on zeros ``[height,width]``.

    Raises:
        InvalidInput: the box holds no pixel's centre, or all of them.
    """
    drawn = some_pixels_in(box, height, width)
    if drawn.all():
        raise InvalidInput("box", f"{box} holds every pixel of {height}x{width}", _CORNER)
    return drawn.double()
