"""Training a model of the experiment: once, whatever the number of cells that look at it."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attacks.inner import SignSearch
from robustlab import models
from robustlab.core.batch import UNLABELLED, Batch
from robustlab.core.files import sha256
from robustlab.core.progress import Watch
from robustlab.core.streaming import logits_of
from robustlab.core.threads import one_thread
from robustlab.data.parts import train_and_held_out
from robustlab.lab.provenance import provenance
from robustlab.lab.reasons import reason
from robustlab.lab.spec import Course
from robustlab.lab.units import Trained
from robustlab.models import Classifier
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
        options=plain(course.model_dump(mode="json")),
    )
    return recorded(base, store, trained.device, lambda: _train(base, trained, store, watch))


def recorded(
    base: TrainingRecord, store: Store, device: str, work: Callable[[], TrainingRecord]
) -> TrainingRecord:
    """Do the work on one thread and store its record, or ``base`` with the reason of a failure."""
    started, facts = time.perf_counter(), provenance(device)
    store.trainings.mkdir(parents=True, exist_ok=True)
    try:
        with one_thread():  # sums must not depend on the number of cores
            record = work()
    except Exception as error:  # a visible failure, never a missing row
        record = replace(base, outcome="crashed", error=reason(error))
    record = replace(record, seconds=time.perf_counter() - started, provenance=facts)
    store.write_training(record)
    return record


def _train(
    base: TrainingRecord, trained: Trained, store: Store, watch: Watch | None
) -> TrainingRecord:
    course, source = trained.course, trained.model
    model = models.load(source.name, **source.options)
    if trained.start:
        load_weights(bare(model), store.weights_path(trained.start))
    model.to(trained.device)
    seen, unseen = train_and_held_out(
        course.data.name, course.data.options, images=course.images, held_out=course.held_out
    )
    before = accuracy(model, unseen, trained.device)
    state = store.weights_path(trained.key).with_suffix(".state.safetensors")
    history = train(
        model,
        trained.objective,
        seen.to(trained.device),
        schedule_of(course),
        SignSearch(),
        state=state,
        watch=watch,
    )
    path = store.weights_path(trained.key)
    keep(model, path, course)
    state.unlink(missing_ok=True)  # three times the size of the weights, and of no more use
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


def accuracy(model: nn.Module, batch: Batch, device: str) -> float | None:
    """Share of labelled images whose label has the largest logit; None without any."""
    known = batch.labels != UNLABELLED
    if not bool(known.any()):
        return None
    found = logits_of(model, batch.images.to(device)).argmax(1).cpu()
    return share((found == batch.labels)[known])


def bare(model: nn.Module) -> nn.Module:
    """What a weights file holds: the network without the lab's normalisation around it."""
    return model.net if isinstance(model, Classifier) else model


def share(hits: torch.Tensor) -> float:
    """The mean of booleans."""
    return float(hits.to(torch.float64).mean())


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a record holds them: paths become text."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
