"""The section on patches, against shares taken by hand."""

from dataclasses import replace

import numpy as np
import pytest

from robustlab.reporting.patches import patch_headlines, patched


@pytest.fixture(scope="module")
def records(run):
    """The fixture's records; those of its attacks say how much of the map a patch holds."""
    return [
        replace(
            record,
            images=tuple(
                replace(image, facts=dict.fromkeys(record.cell.explainers, facts(record, i)))
                for i, image in enumerate(record.images)
            ),
        )
        if record.cell.role == "attack" and record.outcome == "ok"
        else record
        for record in run.records
    ]


def facts(record, i):
    share = 0.01 if record.cell.against else 0.3
    return {"energy_in_patch_before": 0.02 * i, "energy_in_patch": share + 0.001 * i}


def counted(records):
    """Shares by (model, explainer, attack, against, budget): per image, seeds together."""
    found = {}
    for record in records:
        if record.cell.role != "attack" or record.outcome != "ok":
            continue
        cell = record.cell
        for explainer in cell.explainers:
            place = (cell.model, explainer, cell.attack, cell.against, cell.budget.epsilon)
            for image in record.images:
                if image.outcome in ("ok", "infeasible"):
                    shares = found.setdefault(place, {}).setdefault(image.id, [])
                    shares.append(image.facts[explainer]["energy_in_patch"])
    return found


def test_a_row_is_the_mean_over_images_that_count(records):
    rows = patched(records)
    expected = [np.mean([np.mean(s) for s in i.values()]) for i in counted(records).values()]
    assert rows
    assert [row.after.mean for row in rows] == pytest.approx(expected)
    assert [row.aimed for row in rows] == [place[3] == place[1] for place in counted(records)]


def test_a_sentence_sets_the_hidden_patch_beside_the_others(records):
    rows = patched(records)
    sentences = patch_headlines(rows)
    assert len(sentences) == sum(row.aimed for row in rows) > 0
    assert all("1\u202f% of" in sentence for sentence in sentences)
    assert any("under pgd 30\u202f%" in sentence for sentence in sentences)


def test_without_patches_there_is_no_section(run, folder):
    assert patched(run.records) == []
    assert 'id="patches"' not in (folder / "report.html").read_text(encoding="utf-8")
