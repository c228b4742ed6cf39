"""The units of work of an experiment, each with all that another process needs to do it.

A unit's key is a hash of everything that its numbers depend on, the contents of the user's own
files included. Its ``place`` is the same without those contents: what the experiment calls it,
whatever its pictures and weights have become.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustlab.core.budget import Budget
from robustlab.core.saving import FileFormat
from robustlab.core.types import AnyMetric
from robustlab.lab.spec import Course, ExperimentSpec
from robustlab.lab.universes import Universe
from robustlab.lab.waging import Measured, Waged
from robustlab.training.objective import TrainingObjective


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, under its label.

    Attributes:
        revision: hash of the user's weights file that its options name, or "".
        learnt: key of the training that gives it its weights, or "". place: of that training.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    revision: str = ""
    learnt: str = ""
    place: str = ""

    def card(self) -> list[Any]:
        """What numbers depend on, contents of files left out."""
        return [self.label, self.name, self.options, *([self.place] if self.place else [])]

    def contents(self) -> dict[str, str]:
        """Hashes of the user's own files behind it."""
        return {"model": self.revision, "learnt": self.learnt if self.learnt != self.place else ""}


@dataclass(frozen=True)
class Cell:
    """One (model, chunk of images, attack against one explainer, budget, seed).

    ``data_revision`` is that of all planned pictures; "" where none is the user's own.
    """

    key: str
    place: str
    model: ModelSource
    data: str
    data_options: Mapping[str, Any]
    data_label: str
    data_revision: str
    ids: tuple[str, ...]
    follower: str | None  # the image after the last, whose map an imitation gives to the last
    waged: Waged
    against: Measured | None
    made_on: ModelSource | None  # the model that the attack looks at, if it is another one
    measured: tuple[Measured, ...]
    budget: Budget
    seed: int
    metrics: Mapping[str, AnyMetric]
    device: str
    saving: tuple[FileFormat, ...]
    tuned: str  # key of the fine-tuned network that it looks at; "" for the model itself
    keep: int  # how many of its first images leave pictures for the gallery
    cost: float  # estimated gradient passes, for the progress bar

    @property
    def title(self) -> str:
        return f"{self.waged.label} on {', '.join(self.ids)}"


@dataclass(frozen=True)
class Trained:
    """A model of the experiment that is trained before anything looks at it.

    Attributes:
        start: key of the trained network that it goes on from, or "".
        for_itself: is it trained whether or not anything looks at it?
    """

    key: str
    place: str
    model: ModelSource
    course: Course
    objective: TrainingObjective
    start: str
    device: str
    cost: float
    for_itself: bool = False

    @property
    def lesson(self) -> str:
        """What it is taught, by label."""
        return self.course.objective.shown

    @property
    def aim(self) -> str:
        """The explainer that is to be fooled: none."""
        return ""

    @property
    def seed(self) -> int:
        return self.course.seed

    @property
    def title(self) -> str:
        return f"training of {self.model.label}"


@dataclass(frozen=True)
class FineTuned:
    """A network that an attack trains before the cells that look at it."""

    key: str
    place: str
    model: ModelSource
    waged: Waged
    against: Measured
    seed: int
    device: str
    cost: float

    @property
    def lesson(self) -> str:
        """What it is taught, by label."""
        return self.waged.label

    @property
    def aim(self) -> str:
        """The explainer that is to be fooled, by label."""
        return self.against.label

    @property
    def title(self) -> str:
        return f"training of {self.lesson} against {self.aim}"


@dataclass(frozen=True)
class Visual:
    """What an explainer of whole models makes: images of some classes of one model.

    Of the data only the shape of an image is used.
    """

    key: str
    place: str
    model: ModelSource
    data: str
    data_options: Mapping[str, Any]
    data_revision: str
    shaped_like: str  # id of an image; only its shape counts
    measured: Measured
    classes: tuple[int, ...]
    device: str
    cost: float

    @property
    def title(self) -> str:
        return f"{self.measured.label} of {self.model.label}"


Unit = Cell | Visual | Trained | FineTuned


@dataclass(frozen=True)
class Plan:
    """All units of an experiment, with the parts that its manifest describes.

    ``fingerprint`` says which experiment it is. Contents of files are no part of it: a folder
    of results goes on with a changed picture, and only the cells that show it are new.
    ``left_out`` holds (attack, explainer) where "each" found no gradient to follow.
    ``trainings`` come in an order in which each finds what it goes on from. ``universes``: who
    stands for whom in each combination of choices, of a multiverse.
    """

    spec: ExperimentSpec
    trainings: tuple[Trained | FineTuned, ...]
    cells: tuple[Cell, ...]
    visuals: tuple[Visual, ...]
    left_out: tuple[tuple[str, str], ...]
    measured: tuple[Measured, ...]
    waged: tuple[Waged, ...]
    metrics: Mapping[str, AnyMetric]
    universes: tuple[Universe, ...]
    fingerprint: str
