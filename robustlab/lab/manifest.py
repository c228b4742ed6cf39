"""What `experiment.json` says of a plan: every label explained, every cell listed."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.core.tables import options_of
from robustlab.core.types import AnyMetric, ExplainerMetric, MapMetric, ModelMetric, RegionMetric
from robustlab.lab.units import Cell, FineTuned, Plan, Trained, Visual
from robustlab.lab.waging import Measured, Waged
from robustlab.records.record import SCHEMA


def manifest(plan: Plan, skipped: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """What `experiment.json` says: the plan, and a card for every label in it."""
    spec = plan.spec
    return {
        "schema": SCHEMA,
        "name": spec.name,
        "question": spec.question,
        "fingerprint": plan.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "skipped": [list(item) for item in skipped],
        "plan": [_cell(cell) for cell in plan.cells],
        "models": [{"name": m.shown, "options": m.options} for m in spec.models],
        "metrics": {label: _metric(metric) for label, metric in plan.metrics.items()},
        "explainers": {m.label: _explainer(m) for m in plan.measured},
        "attacks": {w.label: _attack(w) for w in plan.waged},
        "primary_metric": next(iter(plan.metrics)),
        "visuals": [_visual(visual) for visual in plan.visuals],
        "trainings": [_training(unit) for unit in plan.trainings],
        "universes": [
            {"choices": {k: _plain(v) for k, v in u.choices}, "members": dict(u.members)}
            for u in plan.universes
        ],
        "left_out": [list(pair) for pair in plan.left_out],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "key": cell.key,
        "attack": cell.waged.label,
        "role": cell.waged.role,
        "against": cell.against.label if cell.against else None,
        "epsilon": cell.budget.epsilon,
        "norm": cell.budget.norm,
        "model": cell.model.label,
        "images": len(cell.ids),
        "seed": cell.seed,
    }


def _metric(metric: AnyMetric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "higher_is_more_stable": metric.higher_is_more_stable,
        "bounds": [_finite(b) for b in metric.bounds],
        "summary": summary_of(type(metric)),
        "options": options_of(metric),
        "of_region": isinstance(metric, RegionMetric),
        "of_model": isinstance(metric, ModelMetric),
        "of_map_alone": isinstance(metric, MapMetric),
        "of_explainer": isinstance(metric, ExplainerMetric),
    }


def _explainer(measured: Measured) -> dict[str, Any]:
    options = _without(options_of(measured.explainer), "post")
    return {
        "name": measured.name,
        "options": {**options, "target": measured.target},
        "post": measured.explainer.post,
        "summary": summary_of(type(measured.explainer)),
    }


def _attack(waged: Waged) -> dict[str, Any]:
    return {
        "name": waged.name,
        "options": _without(options_of(waged.attack), "like"),
        "role": waged.role,
        "control_of": waged.control_of,
        "against": _joined(waged.against) or None,
        "disturbs": waged.disturbs,
        "keeps_maps": getattr(waged.attack, "keeps_maps", False),
        "summary": summary_of(type(waged.attack)),
    }


def _visual(visual: Visual) -> dict[str, Any]:
    return {
        "key": visual.key,
        "model": visual.model.label,
        "explainer": visual.measured.label,
        "classes": len(visual.classes),
    }


def _training(unit: Trained | FineTuned) -> dict[str, Any]:
    return {
        "key": unit.key,
        "model": unit.model.label,
        "attack": unit.lesson,
        "against": unit.aim,
        "seed": unit.seed,
    }


def summary_of(cls: type) -> str:
    """The first paragraph of a component's docstring, as one line."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value}"


def _joined(against: str | tuple[str, ...]) -> str:
    return against if isinstance(against, str) else ", ".join(against)


def _finite(bound: float) -> float | None:
    return bound if abs(bound) != float("inf") else None


def _without(options: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != key}
