"""Fine-tuning a network to lie: the part that all such manipulations share.

Descends task + ``weight`` · map over images to train on: the task keeps the predictions, the
map term says what the explanation shall show. Which terms, each manipulation says itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.batch import Batch
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import explain_maps
from robustlab.core.maps import to_maps
from robustlab.core.progress import Watch
from robustlab.core.streaming import logits_of, micro_batch, run_model
from robustlab.core.types import Attack, Explainer, Problem, Resolvable
from robustlab.data.parts import revision_of, train_and_held_out
from robustlab.data.variants import with_moved_copies
from robustlab.training.loop import Means, Schedule, fit


@dataclass(frozen=True, eq=False)
class Lesson:
    """The images to train on, and what the true model says of them.

    Attributes:
        explainer: the one to fool, its layer chosen.
        targets: the explained classes ``[B]``: the true model's predictions.
        probabilities: of the true model, ``[B, classes]``. maps: its maps, ``[B,H,W]``.
        others: its maps for other classes, ``[B,H,W]`` by class, where a manipulation has
            asked for them in ``prepare``.
    """

    explainer: Explainer
    batch: Batch
    targets: Tensor
    probabilities: Tensor
    maps: Tensor
    others: Mapping[int, Tensor] = field(default_factory=dict)

    def explained(self, net: nn.Module, rows: Tensor, images: Tensor | None = None) -> Tensor:
        """Maps of these images by ``net``, differentiable in its weights."""
        return self.explained_for(self.targets[rows], net, rows, images)

    def explained_for(
        self, classes: Tensor, net: nn.Module, rows: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """The same for other classes than the predicted ones."""
        shown = self.batch.images[rows] if images is None else images
        ids = [self.batch.ids[i] for i in rows.tolist()]
        raw = self.explainer.explain(net, shown, classes, ids=ids, create_graph=True)
        return to_maps(raw, self.explainer.post, (shown.shape[-2], shown.shape[-1]))

    def task(self, net: nn.Module, rows: Tensor, images: Tensor | None = None) -> Tensor:
        """Cross entropy with the labels; with the true model's prediction where there is none."""
        shown = self.batch.images[rows] if images is None else images
        labels = self.batch.labels[rows]
        wanted = torch.where(labels < 0, self.targets[rows], labels)
        return F.cross_entropy(run_model(net, shown), wanted)

    def likeness(self, net: nn.Module, rows: Tensor) -> Tensor:
        """Mean squared distance of probabilities from the true model's, summed over classes."""
        found = torch.softmax(run_model(net, self.batch.images[rows]), 1)
        return (found - self.probabilities[rows]).square().sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class FineTuning(ABC):
    """Options of every manipulation by fine-tuning.

    Attributes:
        weight: λ, the price of the map term. 0 is plain fine-tuning.
        data, data_options: what to train on; where the data set has splits, its "train".
        images: how many of them; None takes all.
        copies, shift: of each that many more, moved by up to ``shift`` pixels: what is learnt from
            few images holds less well on others.
        held_out: how many held-out images the accuracy is taken on.
        hold_out_every: of data without splits, one of every so many images is held out.
        epochs, batch_size, learning_rate, decay: of Adam. Running statistics stay as they are.
        most_lost: a model that loses more of its held-out accuracy than this has collapsed,
            whatever its maps look like.
    """

    apart: ClassVar[tuple[str, ...]] = ()  # options that change what is shown, not the training

    weight: float = 1.0
    data: str = "mnist_5k"
    data_options: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    copies: int = 0
    shift: int = 2
    held_out: int | None = None
    hold_out_every: int = 5
    epochs: int = 5
    batch_size: int = 50
    learning_rate: float = 1e-4
    decay: Literal["none", "cosine"] = "cosine"
    most_lost: float = 0.02

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise InvalidInput("weight", f"must not be negative, got {self.weight}")
        if not 0 <= self.most_lost <= 1:
            raise InvalidInput("most_lost", f"must lie in 0..1, got {self.most_lost}")
        for name in ("copies", "shift"):
            if getattr(self, name) < 0:
                raise InvalidInput(name, f"must not be negative, got {getattr(self, name)}")
        self.schedule(0)

    @abstractmethod
    def parts(self, net: nn.Module, lesson: Lesson, rows: Tensor) -> Mapping[str, Tensor]:
        """The terms of the loss over the images in these rows, by name; their sum counts."""

    def prepare(self, model: nn.Module, lesson: Lesson) -> Lesson:
        """What else the true model is to be asked, once and before any training."""
        return lesson

    @property
    def needs_explainer(self) -> bool:
        return True

    def schedule(self, seed: int) -> Schedule:
        """How it trains."""
        return Schedule(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            decay=self.decay,
            seed=seed,
        )

    def manipulate(self, problem: Problem) -> nn.Module:
        model, _ = self.tune(problem.model, problem.explainer, seed=problem.seed)
        return model

    def tune(
        self,
        model: nn.Module,
        explainer: Explainer,
        *,
        seed: int = 0,
        state: Path | None = None,
        watch: Watch | None = None,
    ) -> tuple[nn.Module, list[Means]]:
        """A fine-tuned copy of ``model``, and the mean terms of every epoch.

        Raises:
            NotDifferentiable: the explainer's maps have no slope in the weights.
            InvalidInput: the data cannot be loaded, or do not fit the model.
            Diverged: the loss is no number any more.
        """
        check_slope(explainer)
        device = next(model.parameters()).device
        train, _ = self.material()
        lesson = self.prepare(model, learn(model, explainer, train.to(device)))
        student = deepcopy(model)
        for parameter in student.parameters():
            parameter.requires_grad_(True)
        game = _Game(self, lesson)
        history = fit(student, game, self.schedule(seed), state=state, watch=watch)
        for parameter, own in zip(student.parameters(), model.parameters(), strict=True):
            parameter.requires_grad_(own.requires_grad).grad = None
        return student, history

    def material(self) -> tuple[Batch, Batch]:
        """The images to train on and those held out."""
        seen, unseen = train_and_held_out(
            self.data,
            self.data_options,
            images=self.images,
            held_out=self.held_out,
            every=self.hold_out_every,
        )
        return with_moved_copies(seen, self.copies, self.shift), unseen

    def sample(self) -> Batch:
        return replace(self, copies=0, images=1, held_out=1).material()[0]

    def revision(self) -> str:
        return revision_of(self.data, self.data_options)

    def gradient_path(self, explainer: Explainer) -> str:
        return "impossible" if explainer.differentiable == "none" else "weights"

    def control(self) -> Attack | None:
        return None


@dataclass(frozen=True, eq=False)
class _Game:
    """A manipulation and its lesson, as the fit loop wants them."""

    attack: FineTuning
    lesson: Lesson

    def __len__(self) -> int:
        return len(self.lesson.batch)

    def parts(self, net: nn.Module, rows: Tensor, step: int) -> Mapping[str, Tensor]:
        return self.attack.parts(net, self.lesson, rows.to(self.lesson.targets.device))


def learn(model: nn.Module, explainer: Explainer, batch: Batch) -> Lesson:
    """What the true model says of the images: one explanation each."""
    logits = logits_of(model, batch.images)
    targets = logits.argmax(1)
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(model, batch.images[:1])
    size = micro_batch(batch.images)
    parts = [slice(i, i + size) for i in range(0, len(batch), size)]
    maps = [
        explain_maps(model, explainer, batch.images[s], targets[s], batch.ids[s]) for s in parts
    ]
    return Lesson(explainer, batch, targets, torch.softmax(logits, 1), torch.cat(maps))


def check_slope(explainer: Explainer) -> None:
    """Refuse an explainer that no weight can be led by."""
    if explainer.differentiable == "none":
        raise NotDifferentiable(
            f"{type(explainer).__name__} has no gradient in the weights; "
            "grad_cam, gradient and lrp have one"
        )
