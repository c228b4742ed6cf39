"""The section on hidden reasons, against means taken by hand."""

from dataclasses import replace

import numpy as np
import pytest

from robustlab.reporting.concealed import concealed, concealed_headlines

SHARES = {"gradient": (0.4, 0.05), "grad_cam": (0.3, 0.29)}  # one that is deceived, one not


@pytest.fixture(scope="module")
def records(run):
    """The fixture's records; its top_k says what a concealment would."""
    return [
        replace(
            record,
            images=tuple(
                replace(image, facts={e: facts(e, i) for e in record.cell.explainers})
                for i, image in enumerate(record.images)
            ),
        )
        if record.cell.attack == "top_k" and record.outcome == "ok"
        else record
        for record in run.records
    ]


def facts(explainer, i):
    before, after = SHARES.get(explainer, (0.2, 0.02))
    return {
        "energy_hidden_before": before,
        "energy_hidden": after + 0.001 * i,
        "changed_when_hidden_before": 1.0,
        "changed_when_hidden": float(i % 2),
        "right_when_hidden_before": 0.0,
        "right_when_hidden": 0.0,
    }


def test_a_row_is_the_mean_over_images_that_count(records):
    rows = concealed(records)
    groups = {}
    for record in records:
        cell = record.cell
        if cell.attack == "top_k" and record.outcome == "ok":
            for explainer in cell.explainers:
                place = (cell.model, explainer, cell.against, cell.budget.epsilon)
                for image in record.images:
                    if image.outcome in ("ok", "infeasible"):
                        value = image.facts[explainer]["energy_hidden"]
                        groups.setdefault(place, {}).setdefault(image.id, []).append(value)
    expected = [np.mean([np.mean(v) for v in images.values()]) for images in groups.values()]
    assert [row.after.mean for row in rows] == pytest.approx(expected)
    assert [row.aimed for row in rows] == [place[1] == place[2] for place in groups]
    for row in rows:
        before, after = SHARES.get(row.explainer, (0.2, 0.02))
        assert row.fooled == ("yes" if after < before / 2 else "no")


def test_a_sentence_names_who_is_deceived_and_who_is_not(records):
    rows = concealed(records)
    sentences = concealed_headlines(rows)
    assert len(sentences) == sum(row.aimed for row in rows) > 0
    assert all("yet hiding it changes" in sentence for sentence in sentences)


def test_without_concealment_there_is_no_section(run, folder):
    assert concealed(run.records) == []
    assert 'id="concealed"' not in (folder / "report.html").read_text(encoding="utf-8")
