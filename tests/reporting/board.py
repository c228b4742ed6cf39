"""What `robustlab run attributional_robustness` would leave, made up: four models, three seeds.

Of the twelve images two are wrong beforehand (one of them right again after PGD), one has no
label, and of two the attack is infeasible in one or all of its seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from robustlab.records import BudgetSpec, CellSpec, ImageRow, RunRecord, Store, TrainingRecord
from tests.reporting import fixture

MODELS = ("natural", "adversarial", "rar_norm", "rar_sum_norm")
SMALL = MODELS[:2]  # enough where a test asks what is missing
EXPLAINERS = ("integrated_gradients", "gradient", "fixed_map")
METRICS = ("top_100", "tau", "removal")
NAMES = {"top_100": "top_k_intersection", "tau": "kendall", "removal": "deletion"}
IDS = tuple(f"picture_{i}" for i in range(12))
CHUNKS = (IDS[:8], IDS[8:])
WRONG, WRONG_THEN_RIGHT, UNLABELLED = IDS[2], IDS[9], IDS[5]
STUCK, STUCK_ONCE = IDS[3], IDS[6]
BUDGETS = (0.1, 0.2)
SEEDS = (0, 1, 2)
EPSILON = BUDGETS[0]

PUBLISHED, STRICT, PGD, WEAK = "as published", "our worst", "forty steps", "plain top_k"
ATTACKS: dict[str, dict[str, Any]] = {
    "nothing": {"name": "none", "role": "none"},
    WEAK: {"name": "top_k", "options": {"k": 100, "select_by": "top_k"}},
    PGD: {"name": "pgd", "options": {"steps": 40}},
    PUBLISHED: {"name": "top_k", "options": {"k": 200, "select_by": "kendall", "steps": 100}},
    STRICT: {"name": "worst_case", "options": {"effort": "quick"}},
}
HARD = {"natural": 0.75, "adversarial": 0.5, "rar_norm": 0.3, "rar_sum_norm": 0.15}
REACH = {WEAK: 0.9, PUBLISHED: 0.55, STRICT: 1.0, PGD: 0.4}


def control(label: str) -> str:
    return f"random_sign ({label})"


def manifest(plan: Sequence[CellSpec], models: Sequence[str] = MODELS) -> dict[str, Any]:
    whole = fixture.manifest(plan)
    for line, cell in zip(whole["plan"], plan, strict=True):
        line["key"] = key_of(cell)
    known = dict(ATTACKS)
    for label in (WEAK, PUBLISHED, STRICT):
        sign = {"name": "random_sign", "role": "control", "control_of": label}
        known[control(label)] = {**sign, "options": {"tries": 100}}
    used = {cell.attack for cell in plan}
    metric = {"options": {}, "higher_is_more_stable": True, "bounds": [0.0, 1.0], "summary": "."}
    return {
        **whole,
        "name": "attributional_robustness",
        "question": "Whose maps stay?",
        "spec": {
            "data": {"name": "fashion_mnist", "label": "clothes"},
            "models": [{"name": "small_cnn", "label": label} for label in models],
        },
        "models": [{"name": label, "options": {}} for label in models],
        "metrics": {
            label: {
                **metric,
                "name": name,
                "options": {"k": 100} if name == "top_k_intersection" else {},
                "higher_is_more_stable": name != "deletion",
                "of_model": name == "deletion",
            }
            for label, name in NAMES.items()
        },
        "explainers": {
            name: {"name": name, "options": {}, "post": "abs_sum", "summary": "."}
            for name in EXPLAINERS
        },
        "attacks": {
            label: {
                "options": {},
                "role": "attack",
                "control_of": None,
                "against": None,
                "summary": ".",
                **card,
            }
            for label, card in known.items()
            if label in used
        },
        "primary_metric": "top_100",
        "trainings": [
            {"key": f"t_{m}", "model": m, "attack": m, "against": "", "seed": 0} for m in models
        ],
    }


def cells(
    models: Sequence[str] = MODELS, seeds: Sequence[int] = SEEDS, data: str = "clothes"
) -> list[CellSpec]:
    return list(_cells(models, seeds, data))


def _cells(models: Sequence[str], seeds: Sequence[int], data: str) -> Iterator[CellSpec]:
    for model in models:
        for seed in seeds:
            for label, card in ATTACKS.items():
                aims: tuple[str | None, ...] = (None,)
                if card["name"] in ("top_k", "worst_case"):
                    aims = {WEAK: EXPLAINERS[:1], PUBLISHED: EXPLAINERS[1::-1]}.get(
                        label, EXPLAINERS
                    )
                for against in aims:
                    waged: list[tuple[str, Any, str | None]] = [(label, "attack", None)]
                    if card.get("role") == "none":
                        waged = [(label, "none", None)]
                    if against:
                        waged.append((control(label), "control", label))
                    for name, role, control_of in waged:
                        for epsilon in _radii(label, role):
                            for ids in CHUNKS:
                                yield CellSpec(
                                    model=model,
                                    data=data,
                                    ids=ids,
                                    explainers=(against,) if against else EXPLAINERS,
                                    attack=name,
                                    role=role,
                                    control_of=control_of,
                                    against=against,
                                    budget=BudgetSpec(norm="linf", epsilon=epsilon),
                                    target="label",
                                    seed=seed,
                                    metrics=METRICS,
                                )


def _radii(label: str, role: str) -> tuple[float, ...]:
    """Two budgets where a test asks which one counts."""
    if role == "none":
        return (0.0,)
    return BUDGETS if label == PGD or (label, role) == (PUBLISHED, "attack") else BUDGETS[:1]


def key_of(cell: CellSpec) -> str:
    parts = (cell.data, cell.model, cell.attack, cell.against, cell.budget, cell.seed, cell.ids[0])
    return f"k{crc32(repr(parts).encode()):08x}"


def record(cell: CellSpec, **changes: Any) -> RunRecord:
    rows = tuple(_image(cell, name) for name in cell.ids)
    fields: dict[str, Any] = {"key": key_of(cell), "cell": cell, "outcome": "ok", "images": rows}
    provenance = {"python": "3.11", "commit": "0123abc"}
    return RunRecord(**{**fields, "provenance": provenance, **changes})


def _image(cell: CellSpec, name: str) -> ImageRow:
    wrong = name in (WRONG, WRONG_THEN_RIGHT)
    stuck = name == STUCK or (name == STUCK_ONCE and cell.seed == 1)
    infeasible = cell.attack in (PUBLISHED, STRICT) and stuck
    often = 3 if cell.budget.epsilon == EPSILON else 2
    flipped = cell.attack == PGD and crc32(f"{cell.model} {name} {cell.seed}".encode()) % often == 0
    before = 1 if wrong else 0
    after = 2 if flipped else before
    if cell.attack == PGD and name == WRONG_THEN_RIGHT:
        after = 0
    return ImageRow(
        id=name,
        label=-1 if name == UNLABELLED else 0,
        label_name="" if name == UNLABELLED else "shirt",
        prediction=before,
        prediction_name="coat" if wrong else "shirt",
        confidence=0.9,
        prediction_after=after,
        prediction_after_name=("shirt", "coat", "bag")[after],
        confidence_after=0.6,
        target=0,
        target_name="shirt",
        kept=before == after,
        radius=0.0 if infeasible else cell.budget.epsilon,
        outcome="infeasible" if infeasible else "ok",
        values={e: _values(cell, e, name, 0.0 if infeasible else None) for e in cell.explainers},
        chance={
            explainer: {"top_100": 100 / 784, "tau": 0.0, "removal": _random(cell, name)}
            for explainer in cell.explainers
        },
    )


def _values(
    cell: CellSpec, explainer: str, name: str, drift: float | None
) -> dict[str, float | None]:
    noise = np.random.default_rng(
        crc32(f"{cell.model} {cell.attack} {explainer} {name} {cell.seed}".encode())
    ).normal(0, 0.05)
    if drift is None:
        reach = 0.25 if cell.role == "control" else REACH.get(cell.attack, 0.0)
        reach *= 1.0 if cell.budget.epsilon <= EPSILON else 1.3
        reach *= HARD[cell.model] * (1.2 if explainer == "gradient" else 1.0)
        drift = float(np.clip(reach + noise, 0.01, 1)) if reach else 0.0
    if explainer == "fixed_map":
        drift = 0.0
    faithful = 0.45 if explainer == "fixed_map" else 0.2 + 0.1 * drift + 0.2 * abs(noise)
    return {"top_100": 1 - drift, "tau": 1 - 1.4 * drift, "removal": faithful}


def _random(cell: CellSpec, name: str) -> float:
    return (0.4 if cell.role == "none" else 0.35) + 0.01 * (
        crc32(f"{cell.model} {name}".encode()) % 10
    )


def training(model: str, **changes: Any) -> TrainingRecord:
    settings: dict[str, Any] = {"name": model, "label": None}
    if model != "natural":
        settings |= {"epsilon": 0.1, "steps": 7}
    fields: dict[str, Any] = {
        "key": f"t_{model}",
        "model": model,
        "attack": model,
        "against": "",
        "seed": 0,
        "outcome": "ok",
        "data": "fashion_mnist",
        "train_images": 40_000,
        "accuracy_after": 0.9,
        "options": {"objective": settings, "epochs": 4, "learning_rate": 0.001, "start": None},
        "sha256": f"{crc32(model.encode()):064x}",
        "seconds": 60.0 * (1 + MODELS.index(model)) if model in MODELS else 30.0,
    }
    return TrainingRecord(**{**fields, **changes})


def build(
    folder: Path,
    plan: Sequence[CellSpec] | None = None,
    *,
    pictures: bool = True,
    models: Sequence[str] = MODELS,
    **changes: Any,
) -> Store:
    """A whole results folder; the first chunk leaves pictures."""
    plan = cells(models) if plan is None else plan
    store = Store(folder)
    store.claim({**manifest(plan, models), **changes})
    for model in models:
        store.write_training(training(model))
    for cell in plan:
        store.write(record(cell))
        shown = cell.attack in (PUBLISHED, STRICT) and cell.seed == SEEDS[0]
        if pictures and shown and cell.ids == CHUNKS[0]:
            store.artefact_path(key_of(cell)).write_bytes(_pixels(cell))
    return store


def _pixels(cell: CellSpec) -> bytes:
    """The general fixture's pictures and maps, in grey and small."""
    like = replace(cell, attack="top_k", ids=cell.ids[:4], explainers=("gradient",))
    return fixture.artefact(like, size=28)
