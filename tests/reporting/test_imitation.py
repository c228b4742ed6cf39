"""The section on imitated maps, against means taken by hand."""

from dataclasses import replace

import numpy as np
import pytest

from robustlab.reporting.imitation import imitation_headlines, imitations


@pytest.fixture(scope="module")
def records(run):
    """The fixture's records; those of top_k say how well they imitated."""
    made = []
    for record in run.records:
        if record.cell.attack != "top_k" or record.outcome != "ok":
            made.append(record)
            continue
        images = tuple(
            replace(
                image,
                facts={
                    e: {
                        "pearson_to_target_before": 0.1 * i,
                        "pearson_to_target": 0.5 + 0.1 * i,
                        "pearson_to_original": 0.3,
                        "image_ssim": None if i else 0.9,
                        "output_change": 0.01 * i,
                    }
                    for e in record.cell.explainers
                },
            )
            for i, image in enumerate(record.images)
        )
        made.append(replace(record, images=images))
    return made


def test_a_row_is_the_mean_over_images_that_count(records):
    rows = imitations(records)
    assert rows
    groups = {}
    for record in records:
        if record.cell.attack == "top_k" and record.outcome == "ok":
            for explainer in record.cell.explainers:
                key = (record.cell.model, explainer, record.cell.budget.epsilon)
                for image in record.images:
                    if image.outcome in ("ok", "infeasible"):
                        facts = image.facts[explainer]
                        groups.setdefault(key, {}).setdefault(image.id, []).append(facts)
    means = [
        np.mean([np.mean([f["pearson_to_target"] for f in facts]) for facts in images.values()])
        for images in groups.values()
    ]
    assert [float(row.after.split()[0]) for row in rows] == pytest.approx(means, abs=6e-4)
    assert {row.role for row in rows} == {"attack"}
    assert all(row.picture.startswith("0.9") for row in rows)


def test_sentences_are_of_the_explainers_that_were_aimed_at(records):
    rows = imitations(records)
    aimed = [row for row in rows if row.aimed]
    said = imitation_headlines(rows)
    assert 0 < len(said) == min(4, len(aimed)) < len(rows)
    assert aimed[0].after in said[0] and aimed[0].explainer in said[0]


def test_without_imitations_there_is_no_section(run, folder):
    assert imitations(run.records) == []
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="imitation"' not in page
