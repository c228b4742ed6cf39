"""Parts of the report that explain: what was run, by what means, and what metrics mean."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from robustlab.records import AttackInfo, ExplainerInfo, MetricInfo
from robustlab.reporting import wording
from robustlab.reporting.loading import Run
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import count, number

MOST: Final = 4  # distinct values of one provenance fact that are written out


@dataclass(frozen=True)
class MetricView:
    """A metric as "how to read it" explains it."""

    label: str
    summary: str
    better: str
    bounds: str
    chance: str


@dataclass(frozen=True)
class ExplainerView:
    """An explainer, with the range of every fact that was measured on its maps."""

    label: str
    info: ExplainerInfo
    options: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class AttackView:
    """An attack, with what it cost and where its gradients came from."""

    label: str
    info: AttackInfo
    options: str
    paths: str
    cost: str


def overview(run: Run, table: Sequence[SummaryRow]) -> list[str]:
    """The size of the experiment in a few counts."""
    attacks = [row for row in table if row.role == "attack"]
    disturbed = [name for name, info in run.manifest.attacks.items() if info.disturbs == "model"]
    plan = run.manifest.plan
    counts = [
        count(len({name for record in run.records for name in record.cell.ids}), "image"),
        count(len({cell.model for cell in plan}), "model"),
        count(len(run.manifest.explainers), "explainer"),
        *([count(len({row.attack for row in attacks}), "attack")] if attacks else []),
        *([count(len({(r.norm, r.epsilon) for r in attacks}), "budget")] if attacks else []),
        *([count(len(disturbed), "disturbed model")] if disturbed else []),
        count(len({cell.seed for cell in plan}), "seed"),
    ]
    counts += [f"{count(len(run.crashed), 'cell')} failed"] if run.crashed else []
    counts += [f"{count(len(run.missing), 'cell')} not run"] if run.missing else []
    return counts


def metric_views(run: Run, table: Sequence[SummaryRow]) -> list[MetricView]:
    """Every metric in the manifest's order."""
    return [_metric(label, info, table) for label, info in run.manifest.metrics.items()]


def explainer_views(run: Run) -> list[ExplainerView]:
    """Every explainer in the manifest's order."""
    facts = _facts(run)
    return [
        ExplainerView(label, info, options_text(info.options), tuple(facts.get(label, ())))
        for label, info in run.manifest.explainers.items()
    ]


def attack_views(run: Run, table: Sequence[SummaryRow]) -> list[AttackView]:
    """Every attack and control in the manifest's order."""
    return [_attack(label, info, table) for label, info in run.manifest.attacks.items()]


def budgets(run: Run) -> list[str]:
    """Every budget with its pixel box."""
    found: dict[str, None] = {}
    for record in run.records:
        budget = record.cell.budget
        text = f"{wording.norm_name(budget.ball)} ε = {wording.radius(budget.ball, budget.epsilon)}"
        found[f"{text}, pixels in [{budget.lower:g}, {budget.upper:g}]"] = None
    return list(found)


def provenance(run: Run) -> list[tuple[str, str]]:
    """Every fact once; where cells differ, what was said, up to a few values."""
    said: dict[str, dict[str, None]] = {}
    for record in run.records:
        for key, value in record.provenance.items():
            said.setdefault(key, {})[_short(value)] = None
    return [(key, _listed(list(values))) for key, values in said.items()]


def options_text(options: Mapping[str, Any]) -> str:
    """``steps = 20, k = 1000``; "defaults" where nothing is said."""
    return ", ".join(f"{key} = {_short(value)}" for key, value in options.items()) or "defaults"


def model_text(model: Any) -> str:
    """A model's label, or its description in one line."""
    if isinstance(model, Mapping):
        rest = {
            k: v for k, v in model.items() if k not in ("label", "name") and v not in ({}, None)
        }
        label = str(model.get("label", model.get("name", "model")))
        return f"{label} ({options_text(rest)})" if rest else label
    return str(model)


def _metric(label: str, info: MetricInfo, table: Sequence[SummaryRow]) -> MetricView:
    found = {row.chance for row in table if row.metric == label and row.chance is not None}
    low = "no lower bound" if info.bounds[0] is None else f"from {info.bounds[0]:g}"
    high = "no upper bound" if info.bounds[1] is None else f"to {info.bounds[1]:g}"
    two = "" if info.of_one_map else "two "
    chance = f"{two}{wording.ignorant(info)} score {_range(list(found))}"
    return MetricView(
        label=label,
        summary=info.summary,
        better=wording.better(info).capitalize(),
        bounds=f"{low}, {high}" if None in info.bounds else f"{low} {high}",
        chance=chance if found else _no_chance(info),
    )


def _no_chance(info: MetricInfo) -> str:
    if info.of_explainer:
        return "a number about the explainer, for which there is no chance"
    return "a shuffled map scores the same" if info.of_map_alone else "no closed form for chance"


def _attack(label: str, info: AttackInfo, table: Sequence[SummaryRow]) -> AttackView:
    rows = [row for row in table if row.attack == label and row.forwards_per_image is not None]
    forwards = _span([row.forwards_per_image or 0.0 for row in rows])
    backwards = _span([row.backwards_per_image or 0.0 for row in rows])
    cost = f"{forwards} forward, {backwards} backward" if rows else wording.MISSING
    paths = dict.fromkeys(path for row in rows for path in row.path.split("; ") if path)
    return AttackView(label, info, options_text(info.options), ", ".join(paths), cost)


def _facts(run: Run) -> dict[str, list[str]]:
    """What was measured beside the metrics, such as how well relevance is conserved."""
    found: dict[str, dict[str, list[float]]] = {}
    for explainer, name, value in _all_facts(run):
        found.setdefault(explainer, {}).setdefault(name, []).append(value)
    return {
        explainer: [f"{name} {_range(values)}" for name, values in facts.items()]
        for explainer, facts in found.items()
    }


def _all_facts(run: Run) -> Iterator[tuple[str, str, float]]:
    for record in run.records:
        for image in record.images:
            for explainer, facts in image.facts.items():
                for name, value in facts.items():
                    if value is not None:
                        yield explainer, name, value


def _range(values: Sequence[float]) -> str:
    ends = (number(min(values)), number(max(values))) if values else ("", "")
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _span(values: Sequence[float]) -> str:
    ends = [f"{round(end(values)):,}" for end in (min, max)] if values else ["", ""]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - MOST} more" if len(values) > MOST else ""
    return ", ".join(values[:MOST]) + more


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
