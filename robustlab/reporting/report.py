"""The report: one page that says what was asked, what came out and how far to trust it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from robustlab.records import atomic_write
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
from robustlab.reporting.concealed import concealed, concealed_headlines
from robustlab.reporting.figures import (
    drift_figures,
    epsilon_figures,
    multiverse_figures,
    roar_figure,
    strength_figures,
    transfer_figures,
)
from robustlab.reporting.headline import headlines, verdict
from robustlab.reporting.imitation import imitation_headlines, imitations
from robustlab.reporting.largest import largest
from robustlab.reporting.loading import Run, load
from robustlab.reporting.manipulated import manipulated, manipulated_headlines
from robustlab.reporting.multiverse import multiverses
from robustlab.reporting.pages import render
from robustlab.reporting.patches import patch_headlines, patched
from robustlab.reporting.ranking import power_warning, rankings
from robustlab.reporting.results import measurements
from robustlab.reporting.roar import asked_of, retrained
from robustlab.reporting.samples import samples
from robustlab.reporting.sanity import sanity_headlines, sanity_tables
from robustlab.reporting.saved import saved
from robustlab.reporting.searched import twin_headlines, twins
from robustlab.reporting.strength import strengths
from robustlab.reporting.summary import SummaryRow, summarise
from robustlab.reporting.taught import fine_tuned, taught
from robustlab.reporting.transfer import matrices, sentences, transfer_headlines
from robustlab.reporting.verdicts import moved
from robustlab.reporting.visuals import strips

TOLD: Final = "prediction changed"
"""A flag that a column of its own says better."""


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
    every, groups = summarise(run), samples(measurements(run.records))
    table = [row for row in every if row.disturbs != "model"]
    sanity = sanity_tables(every, run.manifest)
    made, unreadable = strips(run)
    patches = patched(run.records)
    hidden = concealed(run.records)
    fooling = fine_tuned(run.trainings)
    imitated = imitations(run.records)
    transfer = matrices(table, run.manifest)
    searched = twins(measurements(run.records), run.manifest)
    shared = shared_flags(table)
    drifts = {label for label, info in run.manifest.metrics.items() if not info.of_one_map}
    idle = [r for r in table if r.role == "none" and r.mean is not None and r.metric in drifts]
    return render(
        "report",
        run=run,
        manifest=run.manifest,
        facts=views.overview(run, table),
        headlines=[
            *headlines([row for row in table if row.disturbs != "trained"], run.manifest),
            *manipulated_headlines(fooling, table, run.manifest),
            *imitation_headlines(imitated),
            *patch_headlines(patches),
            *concealed_headlines(hidden),
            *transfer_headlines(transfer),
            *twin_headlines(searched),
            *sanity_headlines(sanity, run.manifest),
        ],
        verdict=verdict(table, run.manifest),
        ranking=largest(rankings(groups, run.manifest)),
        multiverse=multiverse_figures(multiverses(groups, table, run.manifest)),
        multiverse_sentences=multiverse.sentences,
        power_warning=power_warning,
        sanity=sanity,
        strips=made,
        unreadable=unreadable,
        table=table,
        shown_flags=[[f for f in row.flags if kind(f) not in (*shared, TOLD)] for row in table],
        shared=shared,
        filters=_filters(table, run),
        drift=drift_figures(table, run.manifest),
        curves=epsilon_figures(table, run.manifest),
        certificates=certificates(run.records, run.manifest),
        imitations=imitated,
        patched=patches,
        concealed=hidden,
        roar=roar_figure(retrained(run)),
        roar_sentences=roar.sentences,
        taught=taught([one for one in run.trainings if one not in asked_of(run)]),
        manipulated=manipulated(fooling, table, run.manifest),
        saved=saved(run),
        twins=searched,
        transfer=transfer_figures(transfer),
        sentences=sentences,
        strength=strength_figures(strengths(table, run)),
        cautions=[*cautions(table), *below_a_level(table)],
        doubts=doubts(run),
        skipped=skipped(run),
        notes=notes(run),
        idle=idle,
        restless=[row for row in idle if moved(row.mean, run.manifest.metrics[row.metric])],
        metrics=views.metric_views(run, every),
        explainers=views.explainer_views(run),
        attacks=views.attack_views(run, every),
        models=[views.model_text(model) for model in run.manifest.models],
        budgets=views.budgets(run),
        images=list(dict.fromkeys(name for record in run.records for name in record.cell.ids)),
        seeds=sorted({cell.seed for cell in run.manifest.plan}),
        targets=sorted({record.cell.target for record in run.records}),
        provenance=views.provenance(run),
        spec=json.dumps(run.manifest.spec, indent=2, ensure_ascii=False),
        w=wording,
    )


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
