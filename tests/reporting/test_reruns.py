"""An explainer's own noise in the summary, against the records' own numbers."""

from collections.abc import Callable
from dataclasses import replace

from robustlab.records import RERUN, ImageRow, RunRecord
from robustlab.reporting import Run
from robustlab.reporting.results import measurements
from robustlab.reporting.summary import summarise

FLAG = "not clearly beyond its own draws"


def with_noise(run: Run, explainer: str, metric: str, value: Callable[[str], float]) -> Run:
    """The run as it were if every clean map of the explainer had this rerun, by image."""

    def told(record: RunRecord, image: ImageRow) -> ImageRow:
        if record.cell.role != "none" or explainer not in record.cell.explainers:
            return image
        own = {**image.facts.get(explainer, {}), RERUN + metric: value(image.id)}
        return replace(image, facts={**image.facts, explainer: own})

    records = [replace(r, images=tuple(told(r, i) for i in r.images)) for r in run.records]
    return replace(run, records=tuple(records))


def test_drift_is_held_against_the_noise_of_the_same_explainer_and_metric(run: Run) -> None:
    metric = run.manifest.primary_metric
    rows = [r for r in summarise(run) if r.metric == metric and r.role == "attack" and r.n > 1]
    explainer = rows[0].explainer
    assert run.manifest.metrics[metric].higher_is_more_stable
    for value in (-1.0, 1.0):
        noisy = summarise(with_noise(run, explainer, metric, lambda _, v=value: v))
        for row in noisy:
            meant = row.explainer == explainer and row.metric == metric
            assert row.rerun == (value if meant else None)
            if not meant or row.role != "attack":
                assert FLAG not in row.flags
            elif row.high is not None:
                assert (FLAG in row.flags) == (row.high >= value)
    assert all(row.rerun is None for row in summarise(run))


def test_noise_is_paired_by_image(run: Run) -> None:
    metric = run.manifest.primary_metric
    row = next(
        r for r in summarise(run) if r.metric == metric and r.role == "attack" and r.low != r.high
    )
    group = (row.explainer, row.attack, row.against, row.epsilon)
    drift = {
        item.image_id: item.value
        for item in measurements(run.records)
        if (item.explainer, item.attack, item.against, item.epsilon) == group
        and item.metric == metric
    }
    # a hair less noise than drift on every picture: far less than what the pictures differ by
    noisy = with_noise(run, row.explainer, metric, lambda name: (drift[name] or 0.0) + 0.001)
    (found,) = [
        r
        for r in summarise(noisy)
        if (r.explainer, r.attack, r.against, r.epsilon) == group and r.metric == metric
    ]
    assert found.rerun is not None
    assert found.high is not None
    assert FLAG not in found.flags
    assert found.high > found.rerun  # canary: by their means alone they could not be told apart
