"""Sampled and searched: pairs of metrics, and means taken by hand."""

from dataclasses import replace

import pytest

from robustlab.records import MetricInfo
from robustlab.reporting import wording
from robustlab.reporting.report import report_html
from robustlab.reporting.results import measurements
from robustlab.reporting.searched import twin_headlines, twins
from tests.reporting import fixture

SAMPLED = {"photo_0": 1.0, "photo_1": 2.0, "photo_2": 3.0, "photo_3": 4.0}
SEARCHED = {"photo_0": 4.0, "photo_1": 2.0, "photo_2": 6.0, "photo_3": 8.0}


def info(name="max_sensitivity", search="none", **options) -> MetricInfo:
    return MetricInfo(
        name=name, higher_is_more_stable=False, bounds=(0.0, None), summary="How far it moves.",
        options={"radius": 0.02, "samples": 50, "search": search, **options}, of_explainer=True,
    )  # fmt: skip


@pytest.fixture
def examined(run):
    """The run of the fixture: spearman stands for the sampled metric, center_shift the other."""
    metrics = {
        **run.manifest.metrics,
        "spearman": info(),
        "center_shift": info(search="gradient", steps=30),
    }
    records = []
    for record in run.records:
        images = tuple(
            replace(
                image,
                values={
                    e: {
                        **image.values[e],
                        "spearman": SAMPLED[image.id],
                        "center_shift": SEARCHED[image.id],
                    }
                    for e in image.values
                },
            )
            for image in record.images
        )
        records.append(replace(record, images=images))
    manifest = replace(run.manifest, metrics=metrics)
    return replace(run, records=tuple(records), manifest=manifest)


def found(run, **metrics):
    manifest = replace(run.manifest, metrics={**run.manifest.metrics, **metrics})
    return twins(measurements(run.records), manifest)


def test_a_line_is_the_mean_of_images_that_have_both(examined):
    (table,) = found(examined)
    assert (table.name, table.sampled, table.searched) == (
        "max_sensitivity",
        "spearman",
        "center_shift",
    )
    assert (table.how, table.samples, table.radius) == (
        "gradient, 30 steps",
        "50 random copies",
        "0.02",
    )
    lines = {(line.explainer, line.picture): line for line in table.lines}
    line = lines["gradient", "untouched"]
    assert [text.split()[0] for text in (line.sampled, line.searched, line.gap)] == [
        "2.500",
        "5.000",
        "2.500",
    ]
    assert (line.times, line.higher, line.images) == (2.0, 3, 4)
    assert {line.explainer for line in table.lines} == {*fixture.EXPLAINERS}
    pictures = {line.picture for line in table.lines}
    assert "untouched" in pictures and any("pgd, ε = 2/255" in p for p in pictures)
    assert not any("random_sign" in p for p in pictures)


def test_an_image_with_one_of_the_two_counts_for_neither(examined):
    first, *others = examined.records
    gone = replace(first.images[0], values={e: {"spearman": 99.0} for e in fixture.EXPLAINERS})
    lacking = replace(examined, records=(replace(first, images=(gone, *first.images[1:])), *others))
    (table,) = found(lacking)
    line = next(x for x in table.lines if x.picture == "untouched" and x.images == 3)
    assert line.sampled.split()[0] == "3.000" and line.higher == 2


@pytest.mark.parametrize(
    "twin",
    [
        info(search="gradient", radius=0.1),
        info(search="gradient", samples=10),
        info(search="none"),
        info(name="ris", search="gradient"),
    ],
    ids=["radius", "samples", "no search", "another metric"],
)
def test_what_differs_in_more_than_the_search_is_no_pair(examined, twin):
    assert found(examined, center_shift=twin) == []
    assert found(examined, center_shift=info(search="evolution"))  # canary


def test_it_has_words_of_its_own():
    kind = info()
    assert kind.of_one_map and kind.perfect == 0.0
    assert wording.better(kind) == "lower is better"
    assert wording.better(replace(kind, of_explainer=False)) == "lower is more stable"  # canary


def test_a_headline_names_the_largest_factor(examined):
    (sentence,) = twin_headlines(found(examined))
    assert "max_sensitivity of gradient on small_cnn is 2.500" in sentence
    assert "by 50 random copies" in sentence and "2.000 times as much" in sentence


def test_the_page_says_what_sampling_is(examined, folder):
    page = report_html(examined)
    assert 'id="searched"' in page and "is a lower bound" in page and "on 3 of 4 images" in page
    assert 'id="searched"' not in (folder / "report.html").read_text(encoding="utf-8")
