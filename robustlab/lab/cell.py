"""Running one cell: the only function of the lab that does work. Same cell, same numbers."""

import time
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab.core.judge import (
    Proposal,
    Trial,
    manipulate,
    manipulated,
    propose,
    undisturbed,
    verify,
)
from robustlab.core.types import ModelAttack, Problem, Training
from robustlab.lab.facts import target_of
from robustlab.lab.fine_tuning import trained_model
from robustlab.lab.learnt import with_weights
from robustlab.lab.measuring import explained, rows_of
from robustlab.lab.origins import origin_of
from robustlab.lab.posing import pose_cell
from robustlab.lab.provenance import provenance
from robustlab.lab.reasons import reason
from robustlab.lab.saved import saved_rows
from robustlab.lab.units import Cell
from robustlab.records import BudgetSpec, CellSpec, PassCount, RunRecord, Store, atomic_write


def run_cell(cell: Cell, folder: str) -> RunRecord:
    """Attack, judge, measure and store; a failure becomes a record that says so."""
    started = time.perf_counter()
    store = Store(folder)
    facts = provenance(cell.device)
    try:
        record, artefact = _measure(with_weights(cell, store), store)
    except Exception as error:  # a failed cell is a visible row, never a missing one
        record = RunRecord.crashed(cell.key, _cell_spec(cell), reason(error), provenance=facts)
        artefact = None
    record = replace(record, seconds=time.perf_counter() - started, provenance=facts)
    if artefact is not None:
        store.cells.mkdir(parents=True, exist_ok=True)
        atomic_write(store.artefact_path(cell.key), artefact)
    store.write(record)
    return record


def _measure(cell: Cell, store: Store) -> tuple[RunRecord, bytes | None]:
    clean = [pose_cell(cell, m) for m in cell.measured]
    aim = clean[0] if cell.against is None else pose_cell(cell, cell.against)
    problem = replace(aim, seed=cell.seed)
    attack = cell.waged.attack
    proposal, seconds = Proposal(problem.images, 0, 0, ((),) * len(cell.ids)), 0.0
    collapsed = False
    if isinstance(attack, Training):
        net, training = trained_model(cell, problem.model, store)
        judged = manipulated(attack, problem, net)
        trial, collapsed = undisturbed(judged), training.outcome == "collapsed"
    elif isinstance(attack, ModelAttack):
        judged = manipulate(attack, problem)
        trial = undisturbed(judged)
    else:
        judged = problem
        looked_at = _looked_at(cell, problem)
        started = time.perf_counter()
        proposal = propose(attack, looked_at, cell.budget)
        seconds = time.perf_counter() - started
        trial = verify(problem, cell.budget, proposal.images, idle=cell.waged.role != "attack")
    after = explained(cell, judged, clean, trial)
    rows = rows_of(cell, problem, judged, trial, clean, after)
    if collapsed:  # whatever its maps show, it is no model of the task any more
        rows = [replace(row, outcome="collapsed") for row in rows]
    files = saved_rows(cell, judged, clean, trial, rows)
    record = RunRecord(
        key=cell.key,
        cell=_cell_spec(cell),
        outcome="ok",
        images=tuple(
            replace(row, saved=saved, cautions=cautions)
            for row, saved, cautions in zip(rows, files, proposal.cautions, strict=True)
        ),
        passes=PassCount(forward=proposal.forwards, backward=proposal.backwards),
        path=cell.waged.attack.gradient_path(problem.explainer) if cell.against else "",
        attack_seconds=seconds,
    )
    return record, _artefact(cell, problem, trial, clean, after)


def _looked_at(cell: Cell, problem: Problem) -> Problem:
    """The problem as the attack sees it: of another model, where it is made on one."""
    if cell.made_on is None:
        return problem
    aimed = cell.against or cell.measured[0]
    other = pose_cell(cell, aimed, origin_of(cell.made_on))
    return replace(other, seed=cell.seed)


# --- what is stored ------------------------------------------------------------------------


def _cell_spec(cell: Cell) -> CellSpec:
    budget = cell.budget
    return CellSpec(
        model=cell.model.label,
        data=cell.data_label,
        ids=cell.ids,
        explainers=tuple(m.label for m in cell.measured),
        attack=cell.waged.label,
        role=cell.waged.role,
        control_of=cell.waged.control_of,
        against=cell.against.label if cell.against else None,
        budget=BudgetSpec(
            norm=budget.norm,
            epsilon=budget.epsilon,
            lower=budget.lower,
            upper=budget.upper,
            bits=budget.bits,
        ),
        target=str(cell.measured[0].target),
        seed=cell.seed,
        metrics=tuple(cell.metrics),
        made_on=cell.made_on.label if cell.made_on else None,
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
        **_targets(cell, clean, kept),
    )
    return stored.getvalue()


def _targets(cell: Cell, clean: Sequence[Problem], kept: slice) -> dict[str, Any]:
    """The maps that an imitation was after, if it is one."""
    targets = [target_of(cell, p) for p in clean]
    found = [t[kept] for t in targets if t is not None]
    return {"maps_target": _scaled(found)} if found else {}


def _bytes(images: Tensor) -> Any:
    return _numpy((images.clamp(0, 1) * 255).round().movedim(1, -1), np.uint8)


def _scaled(maps: Sequence[Tensor]) -> Any:
    stack = torch.stack([m.float() for m in maps], 1)
    largest = stack.abs().amax((2, 3), keepdim=True).clamp(min=1e-30)
    return _numpy(stack / largest, np.float16)


def _numpy(value: Tensor, kind: Any) -> Any:
    return value.detach().cpu().numpy().astype(kind)
