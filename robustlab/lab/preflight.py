"""Finding a user's mistake before any work is done: one image through everything cheap."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from attacks.explanation.climbing import check_search, climb_to
from robustlab.core.batch import Batch
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import check_labels, choose_targets
from robustlab.core.streaming import logits_of
from robustlab.core.types import (
    Explainer,
    ExplainerMetric,
    MapMetric,
    ModelAttack,
    ModelMetric,
    Problem,
    RegionMetric,
    Resolvable,
    Training,
)
from robustlab.data import Dataset
from robustlab.data.parts import train_and_held_out
from robustlab.lab.measuring import region_masks
from robustlab.lab.origins import load_model, model_of
from robustlab.lab.roar import order_of
from robustlab.lab.units import Cell, Plan, Trained, Unit
from robustlab.lab.waging import Measured, Waged, budgets_of
from robustlab.training.objective import Shaping

CHEAP: Final = 64  # passes of one image; a dearer explainer is tried when its turn comes


def preflight(plan: Plan, dataset: Dataset) -> None:
    """Load each model, run one image, and let every component refuse what cannot work.

    Raises:
        InvalidInput: wrong channel count, labels or targets out of range, a layer that does
            not exist, k larger than a map, a region metric without boxes, ...
    """
    batch = dataset.batch(1)
    zeros = torch.zeros(1, *batch.images.shape[-2:])
    for i, (label, metric) in enumerate(plan.metrics.items()):
        with located(f"metrics.{i}", label):
            if isinstance(metric, RegionMetric):
                metric.measure(zeros, region_masks(dataset, batch.ids, zeros))
            elif isinstance(metric, MapMetric):
                metric.describe(zeros)
            elif not isinstance(metric, ModelMetric | ExplainerMetric):  # which wait for a model
                metric(zeros, zeros)
    for cell in {c.model.label: c for c in plan.cells}.values():
        _check_model(cell, plan, dataset)


def check_courses(units: Sequence[Unit]) -> None:
    """Open the training images of the models that are about to be trained, one of each part.

    Raises:
        InvalidInput: files that are missing; images or labels that do not fit the model.
    """
    for unit in units:
        if isinstance(unit, Trained):
            data = unit.course.data
            with located("models", f"{unit.model.label}.train"):
                seen, _ = train_and_held_out(data.name, data.options, images=1, held_out=1)
                if unit.course.remove is not None:
                    order_of(seen, unit.course.remove, unit.device)
                net, images = load_model(model_of(unit), unit.device), seen.images.to(unit.device)
                logits = logits_of(net, images)
                check_labels(seen.labels, logits.shape[1])
                if isinstance(unit.objective, Shaping):
                    unit.objective.check(net, images)


def _check_model(cell: Cell, plan: Plan, dataset: Dataset) -> None:
    batch = dataset.batch(1).to(cell.device)
    with located("models", cell.model.label):
        net = load_model(model_of(cell), cell.device)
        logits = logits_of(net, batch.images)
    zeros = torch.zeros_like(batch.images[:, 0])
    for i, (label, metric) in enumerate(plan.metrics.items()):
        if isinstance(metric, ModelMetric):
            with located(f"metrics.{i}", label):
                metric.assess(net, batch.images, logits.argmax(1), zeros, batch.ids)
    count = len(dataset.ids[: plan.spec.images])
    labels = torch.tensor(dataset.labels[:count])
    with located("data", cell.data_label):
        check_labels(labels, logits.shape[1])
    for i, measured in enumerate(plan.measured):
        if measured.models is None or cell.model.label in measured.models:
            with located(f"explainers.{i}", measured.label):
                choose_targets(measured.target, labels, logits[:1].expand(len(labels), -1))
                _try(measured, net, batch, logits, plan.spec.classes)
    problem = _problem(cell, net, batch, logits, count)
    own = [m for m in plan.measured if m.models is None or cell.model.label in m.models]
    for i, (label, metric) in enumerate(plan.metrics.items()):
        if isinstance(metric, ExplainerMetric):
            for measured in own:
                with located(f"metrics.{i}", f"{label} of {measured.label}"):
                    _try_examining(metric, measured.explainer, problem)
    for waged in plan.waged:
        objective = getattr(waged.attack, "objective", None)
        with located("attacks", waged.label):
            if objective is not None:
                objective(problem)
            _try_norms(waged, problem, plan)
            if isinstance(waged.attack, Training):
                logits_of(net, waged.attack.sample().images.to(cell.device))
            if getattr(waged.attack, "against", None) == "label" and bool((labels < 0).any()):
                raise InvalidInput("against", "'label' was asked for but some images have none")


def _problem(cell: Cell, net: nn.Module, batch: Batch, logits: Tensor, count: int) -> Problem:
    """One image to try things on; nothing has explained it."""
    return Problem(
        model=net,
        explainer=cell.measured[0].explainer,
        images=batch.images,
        targets=logits.argmax(1),
        labels=batch.labels,
        predictions=logits.argmax(1),
        maps=torch.ones_like(batch.images[:, 0]),
        ids=batch.ids,
        target_maps=None if count == 1 else torch.ones_like(batch.images[:, 0]),
    )


def _try_examining(metric: ExplainerMetric, explainer: Explainer, problem: Problem) -> None:
    """Let a metric that asks explainers refuse this one, with a sample and a step of each kind."""
    if explainer.about.scope == "global":
        return
    check_search(getattr(metric, "search", "none"), explainer)
    asked = {f.name for f in fields(metric)} & {"samples", "steps", "stages"}  # type: ignore[arg-type]
    small = replace(metric, **dict.fromkeys(asked, 1))  # type: ignore[type-var]
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(problem.model, problem.images)
    if small.cost(explainer).gradient <= CHEAP:
        small.examine(replace(problem, explainer=explainer), climb_to)


def _try_norms(waged: Waged, problem: Problem, plan: Plan) -> None:
    """Let an attack refuse a kind of budget that it was not made for, at a radius of 0."""
    if waged.role != "attack" or isinstance(waged.attack, ModelAttack):
        return
    for budget in {b.norm: b for b in budgets_of(plan.spec, waged)}.values():
        with suppress(NotDifferentiable):  # of this explainer: others are aimed at
            waged.attack.propose(problem, replace(budget, epsilon=0.0))


def _try(
    measured: Measured, net: nn.Module, batch: Batch, logits: Tensor, classes: Sequence[int]
) -> None:
    """Let an explainer that is choosy about models see this one."""
    explainer = measured.explainer
    if explainer.about.scope == "global":
        worst = max(classes)
        if worst >= logits.shape[1]:
            known = f"the model has classes 0..{logits.shape[1] - 1}"
            raise InvalidInput("classes", f"class {worst} is out of range", known)
        return
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(net, batch.images)
    passes = explainer.cost()
    if explainer.about.needs and passes.forward + passes.backward <= CHEAP:
        explainer.explain(net, batch.images, logits.argmax(1), ids=batch.ids)


class located:
    """Names the place in the spec in front of a refusal from inside."""

    def __init__(self, place: str, label: str) -> None:
        self.place = f"{place} ({label})"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InvalidInput):
            raise InvalidInput(
                f"{self.place}: {error.field}", error.problem, error.remedy
            ) from None
