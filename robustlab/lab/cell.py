"""Running one cell: the only function of the lab that does work. Same cell, same numbers."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.judge import Trial, manipulate, pose, propose, reexplain, verify
from robustlab.core.randomness import generator
from robustlab.core.streaming import logits_of
from robustlab.core.types import Metric, ModelAttack, Problem, RegionMetric
from robustlab.data import Dataset
from robustlab.lab.accounts import account
from robustlab.lab.origins import Origin, data_of, load_batch, load_data, load_model, model_of
from robustlab.lab.plan import Cell
from robustlab.lab.provenance import provenance
from robustlab.lab.waging import Measured
from robustlab.models import Classifier
from robustlab.records import (
    BudgetSpec,
    CellSpec,
    ImageRow,
    PassCount,
    RunRecord,
    Store,
    atomic_write,
)


def run_cell(cell: Cell, folder: str) -> RunRecord:
    """Attack, judge, measure and store; a failure becomes a record that says so."""
    started = time.perf_counter()
    store = Store(folder)
    facts = provenance(cell.device)
    try:
        record, artefact = _measure(cell)
    except Exception as error:  # a failed cell is a visible row, never a missing one
        record = RunRecord.crashed(cell.key, _cell_spec(cell), reason(error), provenance=facts)
        artefact = None
    record = replace(record, seconds=time.perf_counter() - started, provenance=facts)
    if artefact is not None:
        store.cells.mkdir(parents=True, exist_ok=True)
        atomic_write(store.artefact_path(cell.key), artefact)
    store.write(record)
    return record


def _measure(cell: Cell) -> tuple[RunRecord, bytes | None]:
    clean = [_pose(cell, m) for m in cell.measured]
    aim = clean[0] if cell.against is None else _pose(cell, cell.against)
    problem = replace(aim, seed=cell.seed)
    attack = cell.waged.attack
    forwards = backwards = 0
    if isinstance(attack, ModelAttack):
        judged = manipulate(attack, problem)
        trial = verify(judged, cell.budget, problem.images, idle=True)
    else:
        judged = problem
        proposal, forwards, backwards = propose(attack, problem, cell.budget)
        trial = verify(problem, cell.budget, proposal, idle=cell.waged.role != "attack")
    after = [
        reexplain(replace(p, model=judged.model), trial, m.target)
        for p, m in zip(clean, cell.measured, strict=True)
    ]
    record = RunRecord(
        key=cell.key,
        cell=_cell_spec(cell),
        outcome="ok",
        images=tuple(_rows(cell, problem, trial, clean, after)),
        passes=PassCount(forward=forwards, backward=backwards),
        path=cell.waged.attack.gradient_path(problem.explainer) if cell.against else "",
        cautions=(),
    )
    return record, _artefact(cell, problem, trial, clean, after)


# --- clean facts, computed once per process ------------------------------------------------


def _pose(cell: Cell, measured: Measured) -> Problem:
    return _posed(model_of(cell), data_of(cell), cell.ids, measured, cell.device)


@lru_cache(maxsize=64)
def _posed(
    model: Origin, source: Origin, ids: tuple[str, ...], measured: Measured, device: str
) -> Problem:
    batch = load_batch(source, ids, device)
    net = load_model(model, device)
    target = "prediction" if measured.target == "current" else measured.target
    return pose(net, measured.explainer, batch, target=target)


# --- what is measured ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """One explainer's values, chance and facts, each metric → ``[B]``."""

    values: dict[str, list[float]]
    chance: dict[str, list[float]]
    facts: dict[str, list[float]]


def _rows(
    cell: Cell, problem: Problem, trial: Trial, clean: Sequence[Problem], after: Sequence[Tensor]
) -> list[ImageRow]:
    net = problem.model
    assert isinstance(net, Classifier)  # noqa: S101
    names = net.class_names
    confidence = torch.softmax(logits_of(net, problem.images), 1).amax(1)
    dataset = load_data(data_of(cell))
    label_names = dict(zip(dataset.ids, dataset.names, strict=True))
    measured = {
        m.label: _numbers(cell, m, p, trial, maps, dataset)
        for m, p, maps in zip(cell.measured, clean, after, strict=True)
    }
    rows = []
    for i, image_id in enumerate(cell.ids):
        before, now = int(problem.predictions[i]), int(trial.predictions[i])
        target = int(problem.targets[i])
        rows.append(
            ImageRow(
                id=image_id,
                label=int(problem.labels[i]),
                label_name=label_names[image_id],
                prediction=before,
                prediction_name=names[before],
                confidence=float(confidence[i]),
                prediction_after=now,
                prediction_after_name=names[now],
                confidence_after=float(trial.confidences[i]),
                target=target,
                target_name=names[target],
                kept=bool(trial.prediction_kept[i]),
                radius=float(trial.radius[i]),
                outcome=trial.outcomes[i],
                values={k: {m: v[i] for m, v in n.values.items()} for k, n in measured.items()},
                chance={k: {m: v[i] for m, v in n.chance.items()} for k, n in measured.items()},
                facts={k: {m: v[i] for m, v in n.facts.items()} for k, n in measured.items()},
            )
        )
    return rows


def _numbers(
    cell: Cell, measured: Measured, clean: Problem, trial: Trial, maps: Tensor, dataset: Dataset
) -> _Numbers:
    numbers = _Numbers({}, {}, {})
    unrelated = _shuffled(clean.maps, cell.ids)
    for label, metric in cell.metrics.items():
        if isinstance(metric, RegionMetric):
            regions = region_masks(dataset, cell.ids, clean.maps)
            numbers.values[label] = metric.measure(maps, regions).tolist()
            numbers.chance[label] = metric.chance_in(regions).tolist()
            continue
        numbers.values[label] = metric(clean.maps, maps).tolist()
        numbers.chance[label] = _chance(metric, clean.maps, unrelated)
    model, source = model_of(cell), data_of(cell)
    numbers.facts.update(_own_check(model, source, cell.ids, measured, cell.device))
    return numbers


def _chance(metric: Metric, maps: Tensor, unrelated: Tensor) -> list[float]:
    """Closed form where there is one; else the value for the map's own pixels, shuffled."""
    known = metric.chance(maps[0].numel())
    return metric(maps, unrelated).tolist() if known is None else [known] * len(maps)


def _shuffled(maps: Tensor, ids: Sequence[str]) -> Tensor:
    """The same values in random places: a map that knows nothing of the image."""
    flat = maps.flatten(1)
    orders = [torch.randperm(flat.shape[1], generator=generator(0, i, "chance")) for i in ids]
    return flat.gather(1, torch.stack(orders).to(flat.device)).view_as(maps)


def region_masks(dataset: Dataset, ids: Sequence[str], maps: Tensor) -> Tensor:
    """Boolean ``[B,H,W]``: pixels whose centre lies in the image's box."""
    height, width = maps.shape[1:]
    rows = (torch.arange(height, device=maps.device) + 0.5) / height
    columns = (torch.arange(width, device=maps.device) + 0.5) / width
    masks = []
    for image_id in ids:
        x0, y0, x1, y1 = dataset.box(image_id)
        masks.append(((rows > y0) & (rows < y1))[:, None] & ((columns > x0) & (columns < x1))[None])
    return torch.stack(masks)


@lru_cache(maxsize=64)
def _own_check(
    model: Origin, source: Origin, ids: tuple[str, ...], measured: Measured, device: str
) -> dict[str, list[float]]:
    """What an explainer promises of its own sum, once per process."""
    clean = _posed(model, source, ids, measured, device)
    return {name: values.tolist() for name, values in account(clean).items()}


# --- what is stored ------------------------------------------------------------------------


def _cell_spec(cell: Cell) -> CellSpec:
    budget = cell.budget
    return CellSpec(
        model=cell.model_label,
        data=cell.data_label,
        ids=cell.ids,
        explainers=tuple(m.label for m in cell.measured),
        attack=cell.waged.label,
        role=cell.waged.role,
        control_of=cell.waged.control_of,
        against=cell.against.label if cell.against else None,
        budget=BudgetSpec(
            norm=budget.norm, epsilon=budget.epsilon, lower=budget.lower, upper=budget.upper
        ),
        target=str(cell.measured[0].target),
        seed=cell.seed,
        metrics=tuple(cell.metrics),
    )


def _artefact(
    cell: Cell, problem: Problem, trial: Trial, clean: Sequence[Problem], after: Sequence[Tensor]
) -> bytes | None:
    """Pictures and maps of the first images, compressed, for the gallery."""
    if not cell.keep:
        return None
    kept = slice(0, cell.keep)
    stored = BytesIO()
    np.savez_compressed(
        stored,
        clean=_bytes(problem.images[kept]),
        attacked=_bytes(trial.images[kept]),
        difference=_numpy((trial.images - problem.images)[kept].movedim(1, -1), np.float16),
        maps_before=_scaled([p.maps[kept] for p in clean]),
        maps_after=_scaled([maps[kept] for maps in after]),
    )
    return stored.getvalue()


def _bytes(images: Tensor) -> Any:
    return _numpy((images * 255).round().movedim(1, -1), np.uint8)


def _scaled(maps: Sequence[Tensor]) -> Any:
    stack = torch.stack([m.float() for m in maps], 1)
    largest = stack.abs().amax((2, 3), keepdim=True).clamp(min=1e-30)
    return _numpy(stack / largest, np.float16)


def _numpy(value: Tensor, kind: Any) -> Any:
    return value.detach().cpu().numpy().astype(kind)


def reason(error: Exception) -> str:
    """A sentence for a mistake; for anything unforeseen, where it happened as well."""
    if isinstance(error, RobustlabError | InvalidInput):
        return f"{type(error).__name__}: {error}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno} in {where.name})"
