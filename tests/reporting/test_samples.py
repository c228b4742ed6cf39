"""Groups of measurements, against pandas."""

from collections.abc import Iterable
from itertools import cycle

import pandas as pd
import pytest

from robustlab.records.record import IMAGE_OUTCOMES
from robustlab.reporting import Run
from robustlab.reporting.results import COLUMNS, Measurement
from robustlab.reporting.samples import COUNTED, Group, Place, per_image, samples


def frame(found: Iterable[Measurement]) -> pd.DataFrame:
    return pd.DataFrame(list(found), columns=list(COLUMNS))


def mixed(run: Run) -> list[Measurement]:
    """The run's values with every outcome in turn: values that do not count are there as well."""
    turns = cycle(IMAGE_OUTCOMES)
    return [item._replace(outcome=next(turns)) for item in run.measurements]


def test_groups_stand_in_the_order_of_the_plan_and_lose_nothing(run: Run) -> None:
    groups = frame(run.measurements).groupby(list(Group._fields), sort=False, dropna=False)
    assert [sample.group for sample in run.samples] == [Group(*key) for key, _ in groups]
    assert [len(sample.items) for sample in run.samples] == [len(rows) for _, rows in groups]


def test_what_counts_per_image_and_outcome(run: Run) -> None:
    found = mixed(run)
    groups = frame(found).groupby(list(Group._fields), sort=False, dropna=False)
    for sample, (_, rows) in zip(samples(found), groups, strict=True):
        counted = rows[rows.outcome.isin(COUNTED) & rows.value.notna()]
        means = counted.groupby("image_id", sort=False).value.mean()
        assert dict(sample.by_image) == pytest.approx(means.astype(float).to_dict())
        assert list(sample.by_image) == list(means.index)
        assert sample.seeds == set(rows.seed)
        assert {o: sample.count(o) for o in IMAGE_OUTCOMES} == {
            o: int((rows.outcome == o).sum()) for o in IMAGE_OUTCOMES
        }
        for kept in (True, False):
            of_kind = [item for item in sample.counted() if item.prediction_kept is kept]
            assert sample.counted(kept=kept) == of_kind
    # canary: what does not count, counted
    assert any(per_image(sample.items) != sample.by_image for sample in samples(found))


def test_a_place_is_all_but_image_seed_and_metric(run: Run) -> None:
    item = run.measurements[0]
    same = item._replace(image_id="another", seed=99, metric="another", value=0.5)
    assert Place.of(item) == Place.of(same)
    for field in Place._fields:
        assert Place.of(item) != Place.of(item._replace(**{field: "another"})), field
