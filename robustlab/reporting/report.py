"""The report: one page that says what was asked, what came out and how far to trust it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from robustlab.records import TrainingRecord, atomic_write
from robustlab.reporting import multiverse, roar, wording
from robustlab.reporting import report_views as views
from robustlab.reporting.cautions import (
    below_a_level,
    cautions,
    doubts,
    kind,
    notes,
    shared_flags,
    skipped,
)
from robustlab.reporting.certificates import certificates
from robustlab.reporting.concealed import Concealed, concealed, concealed_headlines
from robustlab.reporting.figures import (
    drift_figures,
    epsilon_figures,
    multiverse_figures,
    roar_figure,
    strength_figures,
    transfer_figures,
)
from robustlab.reporting.headline import headlines, verdict
from robustlab.reporting.imitation import Imitation, imitation_headlines, imitations
from robustlab.reporting.largest import largest
from robustlab.reporting.loading import Run, Source, load
from robustlab.reporting.manipulated import manipulated, manipulated_headlines
from robustlab.reporting.multiverse import Multiverse, multiverse_headlines, multiverses
from robustlab.reporting.pages import render
from robustlab.reporting.patches import Patched, patch_headlines, patched
from robustlab.reporting.ranking import power_warning, rankings
from robustlab.reporting.roar import asked_of, retrained
from robustlab.reporting.sanity import SanityTable, sanity_headlines, sanity_tables
from robustlab.reporting.saved import saved
from robustlab.reporting.searched import Twins, twin_headlines, twins
from robustlab.reporting.strength import strengths
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.taught import fine_tuned, taught
from robustlab.reporting.transfer import Matrix, matrices, sentences, transfer_headlines
from robustlab.reporting.verdicts import moved
from robustlab.reporting.visuals import strips

TOLD: Final = "prediction changed"
"""A flag that a column of its own says better."""

Part = dict[str, Any]
"""What the template is told, by the names that it uses."""


def write_report(source: Source) -> Path:
    """Write ``report.html``, a self-contained page, and return its path.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    path = run.folder / "report.html"
    atomic_write(path, report_html(run))
    return path


def report_html(run: Run) -> str:
    """The page as text; equal records give equal bytes."""
    found = _Findings.of(run)
    return render(
        "report",
        run=run,
        manifest=run.manifest,
        w=wording,
        **_opening(run, found),
        **_table(run, found),
        **_comparisons(run, found),
        **_networks(run, found),
        **_maps(run, found),
        **_figures(run, found),
        **_cautions(run, found),
        **_setting(run),
    )


@dataclass(frozen=True)
class _Findings:
    """What the opening sums up and a section shows in full, worked out once.

    ``table`` is what of the summary is not about disturbed models.
    """

    table: Sequence[SummaryRow]
    sanity: Sequence[SanityTable]
    fooling: Sequence[TrainingRecord]
    imitated: Sequence[Imitation]
    patches: Sequence[Patched]
    hidden: Sequence[Concealed]
    transfer: Sequence[Matrix]
    searched: Sequence[Twins]
    worlds: Sequence[Multiverse]

    @classmethod
    def of(cls, run: Run) -> "_Findings":
        table = [row for row in run.summary if row.disturbs != "model"]
        return cls(
            table=table,
            sanity=sanity_tables(run.summary, run.manifest),
            fooling=fine_tuned(run.trainings),
            imitated=imitations(run.records),
            patches=patched(run.records),
            hidden=concealed(run.records),
            transfer=matrices(table, run.manifest),
            searched=twins(run.measurements, run.manifest),
            worlds=multiverses(run.samples, table, run.manifest),
        )


def _opening(run: Run, found: _Findings) -> Part:
    """What was asked, and what came out in sentences."""
    untrained = [row for row in found.table if row.disturbs != "trained"]
    return {
        "facts": views.overview(run, found.table),
        "headlines": [
            *(multiverse_headlines(found.worlds) or headlines(untrained, run.manifest)),
            *manipulated_headlines(found.fooling, found.table, run.manifest),
            *imitation_headlines(found.imitated),
            *patch_headlines(found.patches),
            *concealed_headlines(found.hidden),
            *transfer_headlines(found.transfer),
            *twin_headlines(found.searched),
            *sanity_headlines(found.sanity, run.manifest),
        ],
        "verdict": verdict(found.table, run.manifest),
    }


def _table(run: Run, found: _Findings) -> Part:
    """Every row, with the flags that not all rows share."""
    shared = shared_flags(found.table)
    silent = (*shared, TOLD)
    return {
        "table": found.table,
        "shared": shared,
        "shown_flags": [[f for f in row.flags if kind(f) not in silent] for row in found.table],
        "filters": _filters(found.table, run),
    }


def _comparisons(run: Run, found: _Findings) -> Part:
    """Explainers, attacks and metrics held against each other."""
    return {
        "ranking": largest(rankings(run.samples, run.manifest)),
        "power_warning": power_warning,
        "multiverse": multiverse_figures(found.worlds),
        "multiverse_sentences": multiverse.sentences,
        "transfer": transfer_figures(found.transfer),
        "sentences": sentences,
        "strength": strength_figures(strengths(found.table, run)),
        "twins": found.searched,
    }


def _networks(run: Run, found: _Findings) -> Part:
    """What is about models rather than pictures: disturbed, trained here, and looked into."""
    asked = {one.key for one in asked_of(run)}
    made, unreadable = strips(run)
    return {
        "sanity": found.sanity,
        "roar": roar_figure(retrained(run)),
        "roar_sentences": roar.sentences,
        "taught": taught([one for one in run.trainings if one.key not in asked]),
        "manipulated": manipulated(found.fooling, found.table, run.manifest),
        "strips": made,
        "unreadable": unreadable,
    }


def _maps(run: Run, found: _Findings) -> Part:
    """What maps were made to show, and what is left or certified of them."""
    return {
        "certificates": certificates(run.records, run.manifest),
        "imitations": found.imitated,
        "patched": found.patches,
        "concealed": found.hidden,
        "saved": saved(run),
    }


def _figures(run: Run, found: _Findings) -> Part:
    return {
        "drift": drift_figures(found.table, run.manifest),
        "curves": epsilon_figures(found.table, run.manifest),
    }


def _cautions(run: Run, found: _Findings) -> Part:
    """How far to trust it."""
    metrics = run.manifest.metrics
    idle = [
        row
        for row in found.table
        if row.role == "none" and row.mean is not None and not metrics[row.metric].of_one_map
    ]
    return {
        "cautions": [*cautions(found.table), *below_a_level(found.table)],
        "doubts": doubts(run),
        "skipped": skipped(run),
        "notes": notes(run),
        "idle": idle,
        "restless": [row for row in idle if moved(row.mean, metrics[row.metric])],
    }


def _setting(run: Run) -> Part:
    """By what means: everything that it takes to run it again, and to read it."""
    return {
        "metrics": views.metric_views(run, run.summary),
        "explainers": views.explainer_views(run),
        "attacks": views.attack_views(run, run.summary),
        "models": [views.model_text(model) for model in run.manifest.models],
        "budgets": views.budgets(run),
        "images": list(dict.fromkeys(name for record in run.records for name in record.cell.ids)),
        "seeds": sorted({cell.seed for cell in run.manifest.plan}),
        "targets": sorted({record.cell.target for record in run.records}),
        "provenance": views.provenance(run),
        "spec": json.dumps(run.manifest.spec, indent=2, ensure_ascii=False),
    }


def _filters(table: Sequence[SummaryRow], run: Run) -> list[tuple[str, list[str], str]]:
    """Name, choices and first choice of every filter that has something to choose."""
    choices = {
        "metric": [row.metric for row in table],
        "explainer": [row.explainer for row in table],
        "attack": [row.attack for row in table if row.role == "attack"],
        "model": [row.model for row in table],
        "data": [row.data for row in table],
    }
    return [
        (name, known, run.manifest.primary_metric if name == "metric" else "")
        for name, values in choices.items()
        if len(known := list(dict.fromkeys(values))) > 1
    ]
