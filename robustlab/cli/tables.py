"""What the commands print when they are done."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from robustlab.cli.console import escaped, failed, out, warn

if TYPE_CHECKING:
    from robustlab.lab.run import Outcome
    from robustlab.lab.units import Plan
    from robustlab.records import TrainingRecord
    from robustlab.reporting.versus import Versus


def listing(entries: Sequence[dict[str, Any]]) -> Table:
    """Components of any kind, a line each."""
    table = Table("section", "name", "what it is", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry["section"], entry["name"], escaped(entry["summary"]))
    return table


def comparison(entries: Sequence[dict[str, Any]]) -> Table:
    """The survey's comparison table; `show NAME` has the formulas."""
    table = Table(
        Column("name", no_wrap=True), "family", "year", "specific to", "explains", "detail",
        "differentiable", "attacked by", "passes", box=None, pad_edge=False,
    )  # fmt: skip
    for e in entries:
        specific = [k for k in ("class", "layer") if e[f"{k}_specific"]]
        table.add_row(
            e["name"], e["family"], str(e["year"]), ", ".join(specific) or "–",
            "an image" if e["scope"] == "local" else "the model", e["detail"],
            e["differentiable"], e["attacked_by"].split(":")[0],
            f"{e['passes']['forward']:g} + {e['passes']['backward']:g}",
        )  # fmt: skip
    return table


def planned(plan: "Plan") -> Table:
    """Cells and their cost by model, attack, what it attacks and budget."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for cell in plan.cells:
        against = cell.against.label if cell.against else ""
        epsilon = f"{cell.budget.norm} {cell.budget.epsilon:.4g}"
        groups.setdefault((cell.model.label, cell.waged.label, against, epsilon), []).append(
            cell.cost
        )
    for visual in plan.visuals:
        images = f"{len(visual.classes)} images"
        groups[visual.model.label, visual.measured.label, "the model", images] = [visual.cost]
    table = Table(
        "model", "attack", "against", "budget", "cells", "gradient passes", box=None, pad_edge=False
    )
    for row, costs in groups.items():
        table.add_row(*(escaped(r) for r in row), str(len(costs)), f"{sum(costs):.0f}")
    return table


def show_trainings(records: "Sequence[TrainingRecord]", folder: Path) -> None:
    """What each training did to the accuracy, and where its weights are."""
    table = Table(
        "model", "training", "against", "accuracy", "after", "agreement", "outcome", box=None
    )
    for one in records:
        shares = (one.accuracy_before, one.accuracy_after, one.agreement)
        numbers = ("–" if s is None else f"{s:.3f}" for s in shares)
        table.add_row(one.model, one.attack, one.against or "–", *numbers, one.outcome)
    out.print(table)
    for one in records:
        if one.outcome == "crashed":
            failed(one.attack, one.error)
        else:
            out.print(str(folder / "models" / f"{one.key}.safetensors"), soft_wrap=True)


def show_outcome(outcome: "Outcome") -> None:
    """The table of a run, what to be careful about, what failed, and where the pages are."""
    from robustlab.reporting import load, short_cautions, short_table

    run = load(outcome.folder)
    _show(short_table(run))
    for caution in short_cautions(run):
        out.print(f"[yellow]caution[/] {escaped(caution)}", soft_wrap=True)
    for path, reason in outcome.skipped:
        warn("skipped", f"{path}: {reason}")
    for what, reason in outcome.crashed:
        failed(what, reason)
    for name in ("results.csv", "summary.csv", "report.html", "gallery.html"):
        out.print(str(outcome.folder / name), soft_wrap=True)


def show_versus(found: "Versus") -> None:
    """Two runs beside each other: what failed, what to know, the table, and a last line."""
    from robustlab.reporting.versus_table import versus_notes, versus_summary, versus_table

    for side, failures in (("A", found.runs.failed_a), ("B", found.runs.failed_b)):
        for one in failures:
            failed(f"{side}, {one.what}", one.reason)
    for note in versus_notes(found):
        out.print(escaped(note), soft_wrap=True)
    _show(versus_table(found))
    out.print(escaped(versus_summary(found)), soft_wrap=True)


def _show(rows: Sequence[Sequence[str]]) -> None:
    """A table whose first row is the header; every cell is plain text."""
    header, *body = rows
    table = Table(*header, box=None, pad_edge=False)
    for row in body:
        table.add_row(*(escaped(cell) for cell in row))
    out.print(table, soft_wrap=True)
