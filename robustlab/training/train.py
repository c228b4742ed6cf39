"""Training a network with an objective: the fit loop, fed with examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from robustlab.core.batch import UNLABELLED, Batch
from robustlab.core.errors import InvalidInput
from robustlab.core.progress import Watch
from robustlab.training.examples import Examples, Search
from robustlab.training.loop import Means, Schedule, fit
from robustlab.training.objective import Shaping, TrainingObjective


def train(
    net: nn.Module,
    objective: TrainingObjective,
    batch: Batch,
    schedule: Schedule,
    search: Search,
    *,
    state: Path | None = None,
    watch: Watch | None = None,
) -> list[Means]:
    """Train ``net`` in place and leave it in evaluation mode; each epoch's mean terms.

    Args:
        net: images in [0, 1] to logits.
        objective: from ``robustlab.training.build``.
        schedule: how long, how fast, in which order.
        batch: the training images with their labels, on the device of ``net``.
        search: the inner attack, ``attacks.inner.SignSearch()``; objectives without an inner
            maximisation leave it alone.
        state: a file that a killed training goes on from.
        watch: called after every step.

    Raises:
        InvalidInput: an image without a label, a network that the objective has no meaning
            for, or a ``state`` of another training.
        Diverged: the loss is no number any more.
    """
    if bool((batch.labels == UNLABELLED).any()):
        raise InvalidInput("data", "training needs labels and some images have none")
    if isinstance(objective, Shaping):
        objective.check(net, batch.images[:1])
    course = _Course(objective, batch, search, schedule.seed)
    return fit(net, course, schedule, state=state, watch=watch)


@dataclass(frozen=True, eq=False)
class _Course:
    """An objective and its images, as the fit loop wants them."""

    objective: TrainingObjective
    batch: Batch
    search: Search
    seed: int

    def __len__(self) -> int:
        return len(self.batch)

    def parts(self, net: nn.Module, rows: Tensor, step: int) -> Mapping[str, Tensor]:
        rows = rows.to(self.batch.labels.device)
        examples = Examples(
            images=self.batch.images[rows],
            labels=self.batch.labels[rows],
            ids=tuple(self.batch.ids[i] for i in rows.tolist()),
            search=self.search,
            seed=self.seed,
            step=step,
        )
        return self.objective.terms(net, examples)
