"""The short table: plain text cells of the primary metric."""

from pathlib import Path

from robustlab import reporting
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


def test_several_models_have_a_column(tmp_path: Path) -> None:
    fixture.build(tmp_path, fixture.cells(models=("plain", "robust")))
    header, *lines = reporting.short_table(tmp_path)
    assert header[0] == "model"
    assert {line[0] for line in lines} == {"plain", "robust"}
