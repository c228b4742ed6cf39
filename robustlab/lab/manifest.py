"""What `experiment.json` says of a plan: every label explained, every cell listed."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.core.tables import options_of
from robustlab.core.types import ModelMetric, RegionMetric
from robustlab.lab.units import Plan


def manifest(plan: Plan, skipped: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """What `experiment.json` says: the plan, and a card for every label in it."""
    spec = plan.spec
    return {
        "schema": 1,
        "name": spec.name,
        "question": spec.question,
        "fingerprint": plan.fingerprint,
        "spec": spec.model_dump(mode="json"),
        "skipped": [list(item) for item in skipped],
        "plan": [
            {
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
            for cell in plan.cells
        ],
        "models": [{"name": m.shown, "options": m.options} for m in spec.models],
        "metrics": {
            label: {
                "name": metric.name,
                "higher_is_more_stable": metric.higher_is_more_stable,
                "bounds": [_finite(b) for b in metric.bounds],
                "summary": summary_of(type(metric)),
                "options": options_of(metric),
                "of_region": isinstance(metric, RegionMetric),
                "of_model": isinstance(metric, ModelMetric),
            }
            for label, metric in plan.metrics.items()
        },
        "explainers": {
            m.label: {
                "name": m.name,
                "options": {**_without(options_of(m.explainer), "post"), "target": m.target},
                "post": m.explainer.post,
                "summary": summary_of(type(m.explainer)),
            }
            for m in plan.measured
        },
        "attacks": {
            w.label: {
                "name": w.name,
                "options": _without(options_of(w.attack), "like"),
                "role": w.role,
                "control_of": w.control_of,
                "against": _joined(w.against) or None,
                "disturbs": w.disturbs,
                "keeps_maps": getattr(w.attack, "keeps_maps", False),
                "summary": summary_of(type(w.attack)),
            }
            for w in plan.waged
        },
        "primary_metric": next(iter(plan.metrics)),
        "visuals": [
            {
                "key": visual.key,
                "model": visual.model.label,
                "explainer": visual.measured.label,
                "classes": len(visual.classes),
            }
            for visual in plan.visuals
        ],
        "trainings": [
            {
                "key": trained.key,
                "model": trained.model.label,
                "attack": trained.lesson,
                "against": trained.aim,
                "seed": trained.seed,
            }
            for trained in plan.trainings
        ],
        "left_out": [list(pair) for pair in plan.left_out],
    }


def summary_of(cls: type) -> str:
    """The first paragraph of a component's docstring, as one line."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def _joined(against: str | tuple[str, ...]) -> str:
    return against if isinstance(against, str) else ", ".join(against)


def _finite(bound: float) -> float | None:
    return bound if abs(bound) != float("inf") else None


def _without(options: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != key}
