"""Training a model of the experiment: once, whatever the number of cells that look at it."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from attacks.inner import SignSearch
from robustlab import models
from robustlab.core.files import sha256
from robustlab.core.progress import Watch
from robustlab.lab.held_out import accuracy
from robustlab.lab.recording import bare, recorded, shown, weights_and_state
from robustlab.lab.roar import parts_of
from robustlab.lab.spec import Course
from robustlab.lab.units import Trained
from robustlab.models.weight_files import load_weights, save_weights
from robustlab.records import Store, TrainingRecord
from robustlab.training.loop import Schedule
from robustlab.training.train import train


def run_training(trained: Trained, folder: str, watch: Watch | None = None) -> TrainingRecord:
    """Train, measure on held-out images, and store; or a record that says why not.

    A killed training goes on from its last whole epoch.
    """
    store = Store(folder)
    course = trained.course
    base = TrainingRecord(
        key=trained.key,
        model=trained.model.label,
        attack=trained.lesson,
        against=trained.aim,
        seed=trained.seed,
        outcome="ok",
        options=shown(course.model_dump(mode="json")),
    )
    return recorded(base, store, trained.device, lambda: _train(base, trained, store, watch))


def _train(
    base: TrainingRecord, trained: Trained, store: Store, watch: Watch | None
) -> TrainingRecord:
    course, source = trained.course, trained.model
    model = models.load(source.name, **source.options)
    if trained.start:
        load_weights(bare(model), store.weights_path(trained.start))
    model.to(trained.device)
    seen, unseen = parts_of(course, trained.device)
    before = accuracy(model, unseen, trained.device)
    with weights_and_state(store, trained.key) as (path, state):
        history = train(
            model,
            trained.objective,
            seen.to(trained.device),
            schedule_of(course),
            SignSearch(),
            state=state,
            watch=watch,
        )
        keep(model, path, course)
    return replace(
        base,
        data=course.data.shown,
        train_images=len(seen),
        held_out=len(unseen),
        accuracy_before=before,
        accuracy_after=accuracy(model, unseen, trained.device),
        history=tuple(history),
        sha256=sha256(path),
    )


def schedule_of(course: Course) -> Schedule:
    """How it trains; layers that have a training mode are in it."""
    return Schedule(
        epochs=course.epochs,
        batch_size=course.batch_size,
        learning_rate=course.learning_rate,
        decay=course.decay,
        mode="train",
        seed=course.seed,
    )


def keep(model: nn.Module, path: Path, course: Course) -> None:
    """Write the weights, rounded first where they are kept in half the room."""
    net = bare(model)
    if course.weights == "float16":
        net.half()
        save_weights(net, path)
        net.float()
    else:
        save_weights(net, path)
