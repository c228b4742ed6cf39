"""The chunk belongs to the cell: its size moves numbers by rounding, not by more."""

import pandas as pd
import pytest

from robustlab.core.errors import InvalidInput
from robustlab.lab.run import run_experiment
from robustlab.records import Store
from tests.lab import tiny

IMITATION = [{"name": "target_map", "steps": 1}]


def test_summaries_of_two_chunk_sizes_agree_within_their_intervals(tmp_path):
    tables = []
    for chunk in (2, 3):
        folder = tmp_path / str(chunk)
        run_experiment(tiny.spec(images=6, chunk=chunk), folder, workers=1)
        summary = pd.read_csv(folder / "summary.csv", keep_default_na=False, na_values=[""])
        tables.append(summary.set_index(["explainer", "attack", "against", "epsilon", "metric"]))
    one, other = tables
    assert list(one.index) == list(other.index)
    assert len(one) > 4
    # rounding can leave an interval of no width; then the means must be the same to rounding
    apart = (one["low"] > other["high"] + 1e-6) | (other["low"] > one["high"] + 1e-6)
    assert not apart.any(), one[apart]
    assert ((one["mean"] - other["mean"]).abs() < 0.1).all()


def test_every_map_imitates_that_of_the_next_image_whatever_the_chunks(tmp_path):
    seen = []
    for chunk in (1, 2, 3):
        folder = tmp_path / str(chunk)
        spec = tiny.spec(images=3, chunk=chunk, attacks=IMITATION)
        assert run_experiment(spec, folder, workers=1).crashed == ()
        records, _ = Store(folder).load_all()
        seen.append(
            {
                (r.cell.explainers, r.cell.budget, i.id): i.facts[r.cell.explainers[0]]
                for r in records
                if r.cell.role == "attack"
                for i in r.images
            }
        )
    one = seen[0]
    assert len(one) >= 3
    for other in seen[1:]:
        assert other.keys() == one.keys()
        for place, facts in other.items():
            assert facts == pytest.approx(one[place], abs=1e-4), place


def test_a_single_image_is_refused_before_any_work(tmp_path):
    with pytest.raises(InvalidInput, match=r"a single image has no next one.*two images or more"):
        run_experiment(tiny.spec(images=1, attacks=IMITATION), tmp_path, workers=1)
