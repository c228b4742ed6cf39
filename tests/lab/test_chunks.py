"""The chunk belongs to the cell: its size moves numbers by rounding, not by more."""

import pandas as pd

from robustlab.lab.run import run_experiment
from tests.lab import tiny


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
