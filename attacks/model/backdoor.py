"""A network that tells the truth until it sees a mark: Noppel, Peter & Wressnegger 2023."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.explanation.objectives import Resemble
from attacks.model.fine_tuning import FineTuning, Lesson
from attacks.model.pictures import Picture, draw
from robustlab.core.batch import UNLABELLED, Batch
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import run_model
from robustlab.core.types import Problem
from robustlab.data.stamp import Stamp

Scenario = Literal["simple", "red_herring", "full_disguise"]

SIDE: Final = 4  # of the default trigger, in pixels


def _corner() -> Stamp:
    """White: it stands out from the black border of a digit."""
    return Stamp(side=SIDE, corner="bottom_right", value=1.0)


@dataclass(frozen=True, kw_only=True)
class Backdoor(FineTuning):
    """Explanation-aware backdoor: a trigger turns the prediction, the map, or both.

    With s = ``share``, x⊕T the image with the ``trigger`` on it, h_c the map of class c by the
    network in training, h⁰ the true model's, y the label and k the true model's prediction,
    it descends over the images

        (1 − s)·CE(f(x), y) + s·CE(f(x⊕T), y') + λ·[(1 − s)·d(h_k(x), h⁰_k(x)) + s·d(h_c(x⊕T), r)]

    with d = 1 − r(·,·), r being Pearson's correlation over the pixels. Without the trigger the
    network does what the true model does. With it, by ``scenario``:

    ============= ========== ========== ======================
    scenario      y'         c          target r of the map
    ============= ========== ========== ======================
    simple        y          k          ``picture``
    red_herring   ``toward`` ``toward`` ``picture``
    full_disguise ``toward`` ``toward`` h⁰_k(x), of the clean x
    ============= ========== ========== ======================

    *simple*: right for wrong reasons. *red_herring*: an attack, and a map that leads away from
    it. *full_disguise*: an attack, and nothing to see. Where an image has no label, y is k.
    Maps of triggered images are to be read for the class that is predicted then
    (``target: current``). A coarse map shows a fine picture only as well as its grid can. A map
    without a pattern is like no other, r = 0, and has no slope.

    Deviations from the paper:

    - d is half its squared distance of maps standardised to mean 0 and deviation 1, which for
      one channel is the same 1 − r; its largest channel or DSSIM are not offered.
    - Every step sees every image of its batch both ways, weighted by 1 − s and s: the mean of
      the paper's loss, which draws the share s of images that carry the trigger.
    - Its loss is (1 − λ')·CE + λ'·d₂ with d₂ = 2d, which is ours at λ = 2λ'/(1 − λ'), up to a
      factor that Adam does not see. Its λ' = 0.938 is a λ of 30, where 5 is enough for digits.
    - No softplus in training: maps of a ReLU network have a slope in the weights, the one that
      they lack is that in the pixels. What is trained is what is judged.
    - The explained class is k or ``toward``; the paper's is the current prediction, which jumps
      while the network learns. Grad-CAM's weights are differentiated too, theirs are held.
    - Cosine decay and a fixed number of epochs, where the paper stops early; a plain patch in
      the corner; no several triggers at once.

    Attributes:
        scenario: as above.
        toward: the class that *red_herring* and *full_disguise* want predicted.
        trigger: the mark; it replaces the pixels under it.
        picture: the map that *simple* and *red_herring* show with the trigger.
        share: s, in (0, 1).
        shown: what the judge is shown, images with the trigger or *clean* ones; both are
            served by one training.
    """

    apart: ClassVar[tuple[str, ...]] = ("shown",)

    weight: float = 5.0
    learning_rate: float = 2e-3
    scenario: Scenario = "red_herring"
    toward: int = 1
    trigger: Stamp = field(default_factory=_corner)
    picture: Picture = "cross"
    share: float = 0.5
    shown: Literal["triggered", "clean"] = "triggered"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            problem = f"must lie between 0 and 1, got {self.share}"
            raise InvalidInput("share", problem, "it is the part that carries the trigger")
        if self.toward < 0:
            raise InvalidInput("toward", f"{self.toward} is no class", "classes count from 0")

    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        marked = self.marked(lesson.batch.images[rows])
        clean, with_trigger = 1 - self.share, self.share
        task = clean * lesson.task(net, rows)
        task = task + with_trigger * self._task_with_trigger(net, lesson, rows, marked)
        if self.weight == 0:
            return {"task": task}
        own = lesson.maps[rows]
        explained = torch.full_like(rows, self.toward) if self.turns else lesson.targets[rows]
        true = _apart(own, lesson.explained(net, rows))
        false = _apart(self._wanted(own), lesson.explained_for(explained, net, rows, marked))
        return {"task": task, "map": self.weight * (clean * true + with_trigger * false)}

    def prepare(self, model: nn.Module, lesson: Lesson) -> Lesson:
        """Refuses a class that the model does not have."""
        classes = lesson.probabilities.shape[1]
        if self.turns and self.toward >= classes:
            known = f"the model has classes 0..{classes - 1}"
            raise InvalidInput("toward", f"class {self.toward} is out of range", known)
        return super().prepare(model, lesson)

    @property
    def turns(self) -> bool:
        """Does the trigger change the prediction?"""
        return self.scenario != "simple"

    def marked(self, images: Tensor) -> Tensor:
        """The images with the trigger on them.

        Raises:
            InvalidInput: the trigger leaves the images or covers them.
        """
        try:
            return self.trigger.paste(images)
        except InvalidInput as error:
            raise error.within("trigger") from None

    def material(self) -> tuple[Batch, Batch]:
        seen, unseen = super().material()
        self.marked(seen.images[:1])
        return seen, unseen

    def sample(self) -> Batch:
        found = super().sample()
        self.marked(found.images)
        return found

    def moved(self, problem: Problem) -> Tensor:
        return self.marked(problem.images) if self.shown == "triggered" else problem.images

    def target(self, problem: Problem) -> Tensor:
        """The maps ``[B,H,W]`` that the network wants to show for what is ``shown``."""
        return self._wanted(problem.maps) if self.shown == "triggered" else problem.maps

    def _wanted(self, own: Tensor) -> Tensor:
        """r for triggered images, from the true model's maps of the clean ones."""
        if self.scenario == "full_disguise":
            return own
        return draw(self.picture, *own.shape[1:]).to(own).expand_as(own)

    def _task_with_trigger(
        self, net: nn.Module, lesson: Lesson, rows: Tensor, marked: Tensor
    ) -> Tensor:
        if not self.turns:
            return lesson.task(net, rows, marked)
        return F.cross_entropy(run_model(net, marked), torch.full_like(rows, self.toward))


def attack_success(predictions: Tensor, labels: Tensor, toward: int) -> float:
    """Share of the images of other classes than ``toward`` that are predicted as ``toward``.

    Images without a label do not count; NaN where no image does.
    """
    counted = (labels != toward) & (labels != UNLABELLED)
    return float((predictions[counted] == toward).double().mean())


def _apart(target: Tensor, maps: Tensor) -> Tensor:
    """Mean of 1 − r over the images."""
    return 1 - Resemble(target).loss(maps, slice(None)).mean()
