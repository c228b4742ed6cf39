"""The report: one page that says what was asked, what came out and how far to trust it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab.records import AttackInfo, MetricInfo, atomic_write
from robustlab.reporting import wording
from robustlab.reporting.cautions import cautions, kind, notes, shared_flags, skipped
from robustlab.reporting.figures import drift_figures, epsilon_figures
from robustlab.reporting.headline import headlines, verdict
from robustlab.reporting.loading import Run, load
from robustlab.reporting.pages import render
from robustlab.reporting.summary import SummaryRow, summarise
from robustlab.reporting.verdicts import moved
from robustlab.reporting.wording import count


@dataclass(frozen=True)
class MetricView:
    """A metric as "how to read it" explains it."""

    label: str
    summary: str
    direction: str
    bounds: str
    chance: str


@dataclass(frozen=True)
class AttackView:
    """An attack, with what it cost and where its gradients came from."""

    label: str
    info: AttackInfo
    options: str
    paths: str
    cost: str


def write_report(folder: Path | str) -> Path:
    """Write ``report.html``, a self-contained page, and return its path.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(folder)
    path = run.folder / "report.html"
    atomic_write(path, report_html(run))
    return path


def report_html(run: Run) -> str:
    """The page as text; equal records give equal bytes."""
    table = summarise(run)
    shared = shared_flags(table)
    return render(
        "report",
        run=run,
        manifest=run.manifest,
        facts=_facts(run, table),
        headlines=headlines(table, run.manifest),
        verdict=verdict(table, run.manifest),
        table=table,
        shown_flags=[[flag for flag in row.flags if kind(flag) not in shared] for row in table],
        shared=shared,
        filters=_filters(table, run),
        drift=drift_figures(table, run.manifest),
        curves=epsilon_figures(table, run.manifest),
        cautions=cautions(table),
        skipped=skipped(run),
        notes=notes(run),
        idle=[row for row in table if row.role == "none" and row.mean is not None],
        restless=[row for row in table if row.role == "none" and _moved(row, run)],
        metrics=[_metric(label, info, table) for label, info in run.manifest.metrics.items()],
        attacks=[_attack(label, info, table) for label, info in run.manifest.attacks.items()],
        budgets=_budgets(run),
        images=list(dict.fromkeys(name for record in run.records for name in record.cell.ids)),
        seeds=sorted({cell.seed for cell in run.manifest.plan}),
        targets=sorted({record.cell.target for record in run.records}),
        provenance=_provenance(run),
        spec=json.dumps(run.manifest.spec, indent=2, ensure_ascii=False),
        options_text=options_text,
        name_of=name_of,
        w=wording,
    )


def options_text(options: Mapping[str, Any]) -> str:
    """``steps = 20, k = 1000``; "defaults" where nothing is said."""
    return ", ".join(f"{key} = {_short(value)}" for key, value in options.items()) or "defaults"


def name_of(model: Any) -> str:
    """A model's label, or its description in one line."""
    if isinstance(model, Mapping):
        rest = {key: value for key, value in model.items() if key not in ("label", "name")}
        label = str(model.get("label", model.get("name", "model")))
        return f"{label} ({options_text(rest)})" if rest else label
    return str(model)


def _facts(run: Run, table: Sequence[SummaryRow]) -> list[str]:
    attacks = {row.attack for row in table if row.role == "attack"}
    images = {name for record in run.records for name in record.cell.ids}
    budgets = {(row.norm, row.epsilon) for row in table if row.role == "attack"}
    seeds = {cell.seed for cell in run.manifest.plan}
    facts = [
        count(len(images), "image"),
        count(len({cell.model for cell in run.manifest.plan}), "model"),
        count(len(run.manifest.explainers), "explainer"),
        count(len(attacks), "attack"),
        count(len(budgets), "budget"),
        count(len(seeds), "seed"),
    ]
    failed = len(run.crashed)
    facts += [f"{count(failed, 'cell')} failed"] if failed else []
    facts += [f"{count(len(run.missing), 'cell')} not run"] if run.missing else []
    return facts


def _filters(table: Sequence[SummaryRow], run: Run) -> list[tuple[str, list[str], str]]:
    """Name, choices and first choice of every filter that has something to choose."""
    primary = run.manifest.primary_metric
    choices = {
        name: list(dict.fromkeys(str(getattr(row, name)) for row in table))
        for name in ("metric", "explainer", "attack", "model", "data")
    }
    choices["attack"] = list(dict.fromkeys(row.attack for row in table if row.role == "attack"))
    return [
        (name, known, primary if name == "metric" else "")
        for name, known in choices.items()
        if len(known) > 1
    ]


def _metric(label: str, info: MetricInfo, table: Sequence[SummaryRow]) -> MetricView:
    chances = sorted(
        {row.chance for row in table if row.metric == label and row.chance is not None}
    )
    low, high = (wording.MISSING if end is None else f"{end:g}" for end in info.bounds)
    low = "no lower bound" if info.bounds[0] is None else f"from {low}"
    high = "without an upper bound" if info.bounds[1] is None else f"to {high}"
    floor = " to ".join(
        wording.number(value) for value in dict.fromkeys((*chances[:1], *chances[-1:]))
    )
    return MetricView(
        label=label,
        summary=info.summary,
        direction="higher" if info.higher_is_more_stable else "lower",
        bounds=f"{low} {high}",
        chance=f"two unrelated maps score {floor}" if chances else "no closed form for chance",
    )


def _attack(label: str, info: AttackInfo, table: Sequence[SummaryRow]) -> AttackView:
    rows = [row for row in table if row.attack == label and row.forwards_per_image is not None]
    forwards = [row.forwards_per_image or 0.0 for row in rows]
    backwards = [row.backwards_per_image or 0.0 for row in rows]
    cost = f"{_span(forwards)} forward, {_span(backwards)} backward" if rows else wording.MISSING
    paths = dict.fromkeys(path for row in rows for path in row.path.split("; ") if path)
    return AttackView(label, info, options_text(info.options), ", ".join(paths), cost)


def _moved(row: SummaryRow, run: Run) -> bool:
    return moved(row.mean, run.manifest.metrics[row.metric])


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f}–{high:,.0f}"


def _budgets(run: Run) -> list[str]:
    found: dict[str, None] = {}
    for record in run.records:
        budget = record.cell.budget
        text = f"{wording.norm_name(budget.norm)} ε = {wording.budget(budget.norm, budget.epsilon)}"
        found[f"{text}, pixels in [{budget.lower:g}, {budget.upper:g}]"] = None
    return list(found)


def _provenance(run: Run) -> list[tuple[str, str]]:
    """Every fact once; where cells differ, all that was said."""
    said: dict[str, dict[str, None]] = {}
    for record in run.records:
        for key, value in record.provenance.items():
            said.setdefault(key, {})[_short(value)] = None
    return [(key, ", ".join(values)) for key, values in said.items()]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
