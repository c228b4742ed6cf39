"""A small experiment as a run would leave it: numbers made up, shapes and oddities real."""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustlab.records import (
    BudgetSpec,
    CellSpec,
    ImageRow,
    PassCount,
    RunRecord,
    Store,
    atomic_write,
)

EXPLAINERS = ("gradient", "smooth_grad", "grad_cam")
EPSILONS = (0.5 / 255, 2 / 255)
METRICS = ("top_k_intersection", "spearman", "center_shift")
CHANCE = {"top_k_intersection": 0.1, "spearman": 0.0}
NAMES = ("tripod", "espresso", "Egyptian cat", "daisy")

Array = NDArray[np.float64]

STRENGTH = {
    "none": 0.0,
    "random_sign (top_k)": 0.35,
    "random_sign (pgd)": 0.2,
    "pgd": 0.6,
    "top_k": 0.95,
}
FRAGILITY = {"gradient": 1.0, "smooth_grad": 0.6, "grad_cam": 0.25}


def manifest(cells: Sequence[CellSpec], **changes: Any) -> dict[str, Any]:
    """The manifest of a plan made of ``cells``."""
    plan = [
        {
            "key": key_of(cell),
            "attack": cell.attack,
            "role": cell.role,
            "against": cell.against,
            "epsilon": cell.budget.epsilon,
            "norm": cell.budget.norm,
            "model": cell.model,
            "images": len(cell.ids),
            "seed": cell.seed,
        }
        for cell in cells
    ]
    whole = {
        "schema": 1,
        "name": "fragile_maps",
        "question": "How much of an explanation survives when the prediction does not change?",
        "fingerprint": "f00d",
        "spec": {"model": "small_cnn", "data": "photos", "seeds": [0]},
        "plan": plan,
        "models": sorted({cell.model for cell in cells}),
        "metrics": {
            "top_k_intersection": {
                "name": "top_k_intersection",
                "options": {"k": 1000},
                "higher_is_more_stable": True,
                "bounds": [0.0, 1.0],
                "summary": "Share of the k most important pixels that stay among the top k.",
            },
            "spearman": {
                "name": "spearman",
                "options": {},
                "higher_is_more_stable": True,
                "bounds": [-1.0, 1.0],
                "summary": "Correlation of pixel ranks.",
            },
            "center_shift": {
                "name": "center_shift",
                "options": {},
                "higher_is_more_stable": False,
                "bounds": [0.0, float("inf")],
                "summary": "Distance in pixels that the map's centre of mass moved.",
            },
        },
        "explainers": {
            name: {
                "name": name,
                "options": {"samples": 16, "noise": 0.15} if name == "smooth_grad" else {},
                "post": "positive" if name == "grad_cam" else "abs_sum",
                "summary": f"The {name} map.",
            }
            for name in EXPLAINERS
        },
        "attacks": {
            name: {
                "name": name.split(" ")[0],
                "options": {"steps": 20, "k": 1000} if name == "top_k" else {},
                "role": role_of(name),
                "control_of": control_of(name),
                "against": None,
                "summary": f"What {name} does.",
            }
            for name in STRENGTH
        },
        "primary_metric": "top_k_intersection",
    }
    return {**whole, **changes}


def role_of(attack: str) -> Any:
    return "none" if attack == "none" else "control" if "random" in attack else "attack"


def control_of(attack: str) -> str | None:
    return attack.partition("(")[2].rstrip(")") or None


def key_of(cell: CellSpec) -> str:
    parts = (cell.model, cell.attack, cell.against, f"{cell.budget.epsilon:.5f}", cell.seed)
    text = "-".join(str(part) for part in parts)
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in text)


def cells(
    images: int = 4, seeds: Sequence[int] = (0,), models: Sequence[str] = ("small_cnn",)
) -> list[CellSpec]:
    """A plan: no-op, two attacks and their controls, at two budgets."""
    return list(_cells(images, seeds, models))


def _cells(images: int, seeds: Sequence[int], models: Sequence[str]) -> Iterator[CellSpec]:
    ids = tuple(f"photo_{i}" for i in range(images))
    for model, attack, epsilon, seed in product(models, STRENGTH, EPSILONS, seeds):
        aimed = EXPLAINERS if "top_k" in attack else (None,)
        for against in aimed:
            yield CellSpec(
                model=model,
                data="photos",
                ids=ids,
                explainers=(against,) if against else EXPLAINERS,
                attack=attack,
                role=role_of(attack),
                control_of=control_of(attack),
                against=against,
                budget=BudgetSpec(norm="linf", epsilon=epsilon),
                target="label",
                seed=seed,
                metrics=METRICS,
            )


def record(cell: CellSpec, **changes: Any) -> RunRecord:
    """A plausible result of ``cell``, the same every time."""
    fields: dict[str, Any] = {
        "key": key_of(cell),
        "cell": cell,
        "outcome": "ok",
        "images": tuple(_image(cell, i) for i in range(len(cell.ids))),
        "passes": PassCount(forward=21 * len(cell.ids), backward=20 * len(cell.ids)),
        "path": "" if cell.role != "attack" else "hessian-vector product",
        "seconds": 1.5,
        "cautions": (),
        "provenance": {"python": "3.11", "device": "cpu", "commit": "0123abc"},
    }
    return RunRecord(**{**fields, **changes})


def _image(cell: CellSpec, index: int) -> ImageRow:
    changed = cell.attack == "pgd" and index % 2 == 0
    label = 10 * (index % 4)
    return ImageRow(
        id=cell.ids[index],
        label=label,
        label_name=NAMES[index % 4],
        prediction=label,
        prediction_name=NAMES[index % 4],
        confidence=0.9 - 0.1 * (index % 4),
        prediction_after=label + 1 if changed else label,
        prediction_after_name="something else" if changed else NAMES[index % 4],
        confidence_after=0.55,
        target=label,
        target_name=NAMES[index % 4],
        kept=not changed,
        radius=cell.budget.epsilon * (cell.role != "none"),
        outcome="ok",
        values={name: _values(cell, name, index) for name in cell.explainers},
        chance=dict.fromkeys(cell.explainers, CHANCE),
        facts={name: {"conservation": 1.0} for name in cell.explainers},
    )


def _values(cell: CellSpec, explainer: str, index: int) -> dict[str, float | None]:
    seed = [EXPLAINERS.index(explainer), list(STRENGTH).index(cell.attack), index, cell.seed]
    noise = np.random.default_rng(seed).normal(0, 0.04)
    reach = {EPSILONS[0]: 0.6, EPSILONS[1]: 1.0}[cell.budget.epsilon]
    drift = STRENGTH[cell.attack] * FRAGILITY[explainer] * reach
    drift = float(np.clip(drift + noise * (drift > 0), 0, 1))
    return {
        "top_k_intersection": 1 - drift,
        "spearman": 1 - 0.9 * drift,
        "center_shift": 40 * drift,
    }


def build(folder: Path, plan: Sequence[CellSpec] | None = None, **changes: Any) -> Store:
    """A whole results folder with oddities: a crash, an infeasible and a diverged image."""
    plan = cells() if plan is None else plan
    store = Store(folder)
    store.claim(manifest(plan, **changes))
    for cell in plan:
        store.write(_odd(record(cell)))
        if cell.seed == 0:
            atomic_write(store.artefact_path(key_of(cell)), artefact(cell))
    return store


def _odd(whole: RunRecord) -> RunRecord:
    cell = whole.cell
    if cell.attack == "top_k" and cell.against == "smooth_grad" and cell.budget.epsilon > 0.005:
        return RunRecord.crashed(whole.key, cell, "RuntimeError: out of memory <b>here</b>")
    if cell.attack == "top_k" and cell.against == "grad_cam":
        return record(cell, images=_unmoved(whole.images), cautions=("step 1 left the ball",))
    return whole


def _unmoved(images: tuple[ImageRow, ...]) -> tuple[ImageRow, ...]:
    still = {"top_k_intersection": 1.0, "spearman": 1.0, "center_shift": 0.0}
    empty = dict.fromkeys(METRICS)
    first = _changed(images[0], outcome="infeasible", values={"grad_cam": still}, radius=0.0)
    second = _changed(images[1], outcome="diverged", values={"grad_cam": empty})
    return (first, second, *images[2:])


def _changed(image: ImageRow, **changes: Any) -> ImageRow:
    return ImageRow(**{**vars(image), **changes})


def artefact(cell: CellSpec, size: int = 48, pictures: Mapping[str, Array] | None = None) -> bytes:
    """Pictures and maps of a cell as the ``.npz`` that a run leaves beside its record."""
    shown = pictures or {name: _picture(name, size) for name in cell.ids}
    clean = np.stack([shown[name] for name in cell.ids])
    signs = np.random.default_rng(cell.seed).choice([-1.0, 1.0], clean.shape)
    moved = np.clip(clean + cell.budget.epsilon * signs * (cell.role != "none"), 0, 1)
    before = np.stack([_maps(picture, cell.explainers, 0.0) for picture in clean])
    after = np.stack([_maps(picture, cell.explainers, STRENGTH[cell.attack]) for picture in clean])
    file = BytesIO()
    np.savez(
        file,
        clean=np.uint8(np.round(255 * clean)),
        attacked=np.uint8(np.round(255 * moved)),
        difference=np.float16(moved - clean),
        maps_before=np.float16(before),
        maps_after=np.float16(after),
    )
    return file.getvalue()


def _picture(name: str, size: int) -> Array:
    seed = int(name.rpartition("_")[2])
    row, column = np.mgrid[0:size, 0:size] / size
    waves = [np.sin((3 + seed + c) * row + (2 + c) * column + seed) for c in range(3)]
    picture = 0.5 + 0.3 * np.stack(waves, axis=-1)
    disc = (row - 0.5) ** 2 + (column - 0.4 - 0.05 * seed) ** 2 < 0.06
    picture[disc] = 0.9 - 0.2 * (seed % 3)
    return picture


def _maps(picture: Array, explainers: Sequence[str], moved: float) -> Array:
    grey = picture.mean(axis=-1)
    edges = np.hypot(*np.gradient(grey))
    size = len(grey)
    row, column = np.mgrid[0:size, 0:size] / size
    made = []
    for name in explainers:
        shift = 0.3 * moved * FRAGILITY[name]
        blob = np.exp(-((row - 0.5 + shift) ** 2 + (column - 0.45 - shift) ** 2) / 0.03)
        texture = np.roll(edges, int(size * shift), axis=(0, 1)) * (0.3 + blob)
        shown = {"gradient": texture, "smooth_grad": texture * np.sign(grey - 0.5)}.get(name, blob)
        made.append(shown / np.abs(shown).max())
    return np.stack(made)
