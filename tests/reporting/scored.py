"""Scorecards as tests of the leaderboard read them."""

import json
from pathlib import Path

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate, Robustness, Stability


def read_cards(folder: Path) -> list[Scorecard]:
    """What ``write_leaderboard`` left in the folder, by file name."""
    files = sorted((folder / "leaderboard").glob("*.json"))
    return [Scorecard.from_dict(json.loads(path.read_text())) for path in files]


def metric_of(found: Robustness | None, metric: str) -> Stability:
    """By the metric's label in the made-up run."""
    assert found is not None
    stability = {"top_100": found.intersection, "tau": found.kendall}[metric]
    assert stability is not None
    return stability


def around(mean: float, reach: float = 0.01) -> Estimate:
    """An estimate with an interval of ±``reach``."""
    return Estimate(n=9, mean=mean, low=mean - reach, high=mean + reach)
