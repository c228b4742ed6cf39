"""A second experiment, with all that a record may hold beside drift.

Attacks made against one explainer and measured on all, made on one model and judged on
another, saved as files, timed, doubted by themselves, and certified.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from robustlab.records import BudgetSpec, CellSpec, ImageRow, RunRecord, SavedRow, Store
from tests.reporting import fixture
from tests.reporting.fixture import CHANCE, EPSILONS, EXPLAINERS

MODELS = ("small_cnn", "small_resnet")
METRICS = ("top_k_intersection", "spearman")
CHUNKS = (("photo_0", "photo_1", "photo_2", "photo_3"), ("photo_4", "photo_5"))
BALLS = tuple(BudgetSpec(norm="linf", epsilon=epsilon) for epsilon in EPSILONS)
L2 = BudgetSpec(norm="l2", epsilon=0.5)
DOUBT = "random sign is nearly as strong"

TOP_K = {"k": 1000, "steps": 20}
ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "none": {"name": "none", "strength": 0.0},
    "top_k on gradient": {"name": "top_k", "options": TOP_K, "against": "gradient"},
    "top_k on grad_cam": {"name": "top_k", "options": TOP_K, "against": "grad_cam"},
    "top_k from resnet": {
        "name": "top_k",
        "options": TOP_K,
        "against": "gradient",
        "made_on": "small_resnet",
        "alone": True,
    },
    "quick": {
        "name": "top_k",
        "options": {**TOP_K, "steps": 5},
        "against": "gradient",
        "alone": True,
        "strength": 0.6,
        "seconds": 0.31,
    },
    "thorough": {
        "name": "top_k",
        "options": {**TOP_K, "steps": 80},
        "against": "gradient",
        "alone": True,
        "strength": 0.98,
        "seconds": 4.9,
    },
    "search": {
        "name": "black_box",
        "options": {"queries": 200},
        "against": "gradient",
        "alone": True,
        "strength": 0.55,
        "seconds": 2.2,
        "path": "black_box",
    },
    "pgd": {"name": "pgd", "options": {"steps": 10}, "strength": 0.5, "path": ""},
    "pgd from resnet": {
        "name": "pgd",
        "options": {"steps": 10},
        "made_on": "small_resnet",
        "strength": 0.5,
        "path": "",
    },
    "random_sign": {"name": "random_sign", "strength": 0.2},
}
FRAGILITY = {"gradient": 1.0, "smooth_grad": 0.7, "grad_cam": 0.3}
FILES = {"png": (0.97, 0.004), "jpeg_95": (0.7, 0.03), "jpeg_75": (0.35, 0.09)}
"""What each format leaves of a movement, and how far it moves a map by itself."""


def manifest(plan: list[CellSpec], **changes: Any) -> dict[str, Any]:
    whole = fixture.manifest(plan)
    labels = dict.fromkeys(cell.attack for cell in plan)
    attacks = {label: _card(label) for label in labels}
    for line, cell in zip(whole["plan"], plan, strict=True):
        line["key"] = key_of(cell)
    question = "Does an attack on one explanation reach the others?"
    metrics = {name: whole["metrics"][name] for name in METRICS}
    own = {"name": "transfer", "question": question, "attacks": attacks, "metrics": metrics}
    return {**whole, **own, **changes}


def _card(label: str) -> dict[str, Any]:
    own = ATTACKS.get(label, {"name": "random_sign"})
    return {
        "name": own["name"],
        "options": own.get("options", {}),
        "role": role_of(label),
        "control_of": fixture.control_of(label),
        "against": own.get("against"),
        "summary": f"What {label} does.",
    }


def role_of(label: str) -> Any:
    return fixture.role_of(label)


def key_of(cell: CellSpec) -> str:
    ball = "" if cell.budget.norm == "linf" else f"-{cell.budget.norm}"
    return f"{fixture.key_of(cell)}{ball}-{cell.ids[0]}".replace("(", "_").replace(")", "_")


def cells(models: tuple[str, ...] = MODELS, seeds: tuple[int, ...] = (0,)) -> list[CellSpec]:
    """Every attack with its control at two L∞ budgets, and one at an L2 budget."""
    return list(_cells(models, seeds))


def _cells(models: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[CellSpec]:
    for model, seed, (label, attack) in product(models, seeds, ATTACKS.items()):
        against, made_on = attack.get("against"), attack.get("made_on")
        waged: list[tuple[str, str | None]] = [(label, fixture.control_of(label))]
        if against:
            waged.append((f"random_sign ({label})", label))
        balls = (BudgetSpec(norm="linf", epsilon=0.0),) if label == "none" else BALLS
        balls += (L2,) if (label, model) == ("top_k on gradient", MODELS[0]) else ()
        for (name, control_of), ball, ids in product(waged, balls, CHUNKS):
            yield CellSpec(
                model=model,
                data="photos",
                ids=ids,
                explainers=(against,) if attack.get("alone") else EXPLAINERS,
                attack=name,
                role=role_of(name),
                control_of=control_of,
                against=against,
                budget=ball,
                target="prediction",
                seed=seed,
                metrics=METRICS,
                made_on=None if made_on == model else made_on,
            )


def record(cell: CellSpec, **changes: Any) -> RunRecord:
    """A plausible result of ``cell``, the same every time."""
    attack = ATTACKS.get(cell.control_of or cell.attack, {})
    seconds = attack.get("seconds", 1.2) * (0.8 if cell.role == "control" else 1.0)
    images = tuple(_image(cell, i) for i in range(len(cell.ids)))
    path = attack.get("path", "hessian_vector")
    fields: dict[str, Any] = {
        "key": key_of(cell),
        "images": images,
        "path": path if cell.role == "attack" else "",
        "seconds": 2 * seconds * len(cell.ids),
        # the second chunk is quicker: only a mean over images gets the seconds right
        "attack_seconds": seconds * len(cell.ids) * (1.1 if len(cell.ids) > 2 else 0.8),
    }
    plain = replace(cell, attack="none", role="none", control_of=None, budget=BALLS[0])
    pattern = fixture.record(plain)
    return replace(pattern, **{**fields, "cell": cell, **changes})


def _image(cell: CellSpec, index: int) -> ImageRow:
    image = cell.ids[index]
    drift = {name: _drift(cell, name, image) for name in cell.explainers}
    values = {name: _metrics(moved) for name, moved in drift.items()}
    name = fixture.NAMES[int(image[-1]) % 4]
    kept = not (cell.attack.startswith("pgd") and image in ("photo_0", "photo_4"))
    facts: dict[str, dict[str, float]] = {name: {} for name in cell.explainers}
    if "smooth_grad" in cell.explainers:
        facts["smooth_grad"] = {"certified_overlap": 0.3 + 0.02 * index, "certified_radius": 0.5}
    doubted = cell.attack == "search" and index % 2 == 0
    return ImageRow(
        id=image,
        label=0,
        label_name=name,
        prediction=0,
        prediction_name=name,
        confidence=0.8,
        prediction_after=0 if kept else 1,
        prediction_after_name=name if kept else "something else",
        confidence_after=0.6,
        target=0,
        target_name=name,
        kept=kept,
        radius=cell.budget.epsilon,
        outcome="ok",
        values=values,
        chance=dict.fromkeys(cell.explainers, CHANCE),
        facts=facts,
        saved={} if cell.role == "control" else _saved(image, kept, drift),
        cautions=(DOUBT,) if doubted else (),
    )


def _drift(cell: CellSpec, explainer: str, image: str) -> float:
    """How far a map moves: less by transfer, at small budgets and under random signs."""
    if cell.role == "none":
        return 0.0
    attack = ATTACKS[cell.control_of or cell.attack]
    strength = 0.25 if cell.role == "control" else attack.get("strength", 0.9)
    reach = {EPSILONS[0]: 0.6, EPSILONS[1]: 1.0, L2.epsilon: 0.7}[cell.budget.epsilon]
    elsewhere = 0.45 if cell.against not in (None, explainer) else 1.0
    other_model = 0.3 if cell.made_on else 1.0
    seed = crc32(f"{cell.model} {cell.attack} {explainer} {image} {cell.seed}".encode())
    noise = np.random.default_rng(seed).normal(0, 0.04)
    drift = strength * reach * FRAGILITY[explainer] * elsewhere * other_model + noise
    return float(np.clip(drift, 0.01, 1))


def _metrics(drift: float) -> dict[str, float | None]:
    return {"top_k_intersection": 1 - drift, "spearman": 1 - 0.9 * drift}


def _saved(image: str, kept: bool, drift: Mapping[str, float]) -> dict[str, SavedRow]:
    found = {}
    for name, (left, floor) in FILES.items():
        again = {explainer: max(left * d, floor) for explainer, d in drift.items()}
        kept_again = kept and not (name == "jpeg_75" and image == "photo_1")
        survives = {
            explainer: (again[explainer] >= d / 2 if d else None) if kept == kept_again else False
            for explainer, d in drift.items()
        }
        values = {explainer: _metrics(d) for explainer, d in again.items()}
        found[name] = SavedRow(kept=kept_again, values=values, survives=survives)
    return found


def build(folder: Path, plan: list[CellSpec] | None = None, **changes: Any) -> Store:
    """A whole results folder; pictures for the first cells of the doubted attack only."""
    plan = cells() if plan is None else plan
    store = Store(folder)
    store.claim(manifest(plan, **changes))
    for cell in plan:
        store.write(record(cell))
        if cell.attack == "search":
            like_pgd = replace(cell, attack="pgd")
            store.artefact_path(key_of(cell)).write_bytes(fixture.artefact(like_pgd, 32))
    return store
