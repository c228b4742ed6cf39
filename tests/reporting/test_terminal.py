"""The short table: plain text cells of the primary metric."""

from dataclasses import replace
from html import escape
from pathlib import Path

from robustlab import reporting
from robustlab.records.manifest import Universe
from robustlab.reporting.multiverse import multiverses, sentences
from robustlab.reporting.report import report_html
from robustlab.reporting.wording import with_interval
from tests.reporting import fixture


def test_one_line_per_attack_of_the_primary_metric(folder: Path, run: reporting.Run) -> None:
    header, *lines = reporting.short_table(folder)
    expected = [
        row
        for row in reporting.summarise(run)
        if row.role == "attack" and row.metric == "top_k_intersection"
    ]
    assert header[:4] == ("explainer", "attack", "ε", "top_k_intersection")
    assert [line[3] for line in lines] == [with_interval(r.mean, r.low, r.high) for r in expected]
    assert {len(line) for line in lines} == {len(header)}


def test_without_an_attack_there_are_the_numbers_of_clean_maps(run: reporting.Run) -> None:
    known = run.manifest.metrics
    metrics = {**known, "spearman": replace(known["spearman"], of_model=True)}
    clean = tuple(record for record in run.records if record.cell.role == "none")
    alone = replace(run, records=clean, manifest=replace(run.manifest, metrics=metrics))
    header, *lines = reporting.short_table(alone)
    assert header == ("explainer", "metric", "mean")
    expected = [row for row in reporting.summarise(alone) if row.metric == "spearman"]
    assert len(expected) > 1
    assert lines == [
        (row.explainer, "spearman", with_interval(row.mean, row.low, row.high)) for row in expected
    ]


def test_of_a_multiverse_there_are_its_claims_first_in_the_report_too(run: reporting.Run) -> None:
    members = {name: name for name in run.manifest.explainers}
    universe = Universe(choices={"score": "logit"}, members=members)
    chosen = replace(run, manifest=replace(run.manifest, universes=(universe,)))
    (made,) = multiverses(chosen.samples, chosen.summary, chosen.manifest)
    header, *lines = reporting.short_table(chosen)
    assert header == ("claim", "true in", "surely true in", "surely false in")
    assert [line[0] for line in lines] == [claim.text for claim in made.claims]
    first = made.claims[0]
    assert lines[0][1] == f"{first.holds} of {len(made.worlds)} worlds"
    opening = report_html(chosen).split('id="h-headline"')[1].split("</section>")[0]
    assert all(escape(sentence) in opening for sentence in sentences(made))
    assert "attack leaves" not in opening


def test_several_models_have_a_column(tmp_path: Path) -> None:
    fixture.build(tmp_path, fixture.cells(models=("plain", "robust")))
    header, *lines = reporting.short_table(tmp_path)
    assert header[0] == "model"
    assert {line[0] for line in lines} == {"plain", "robust"}
