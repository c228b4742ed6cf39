"""``python -m benchmarks.coverage``: do 95 % intervals hold the mean in 95 of 100 experiments?

And does a comparison of things that do not differ find a difference in 5 of 100? Both by
experiments on numbers whose truth is known: as many images as stated, drawn from distributions
such as metrics have. "Plain" are percentiles of the bootstrap as most papers take them. The last
columns are of ten comparisons at once, without and with Holm's correction.

    python -m benchmarks.coverage [--trials 2000] [--json FILE]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from robustlab.reporting.significance import holm, sign_flip
from robustlab.reporting.statistics import Floats, interval, resampled_means

IMAGES: Final = (5, 8, 10, 20, 50, 100, 500)
ROWS: Final = 10
LEVEL: Final = 0.05
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
# name -> (how to draw, the mean)
KINDS: Final[dict[str, tuple[Draw, float]]] = {
    "normal": (lambda g, size: g.normal(0.5, 0.1, size), 0.5),
    "skewed": (lambda g, size: g.beta(0.5, 2.0, size), 0.2),
    "long tail": (lambda g, size: g.exponential(1.0, size), 1.0),
    "yes or no": (lambda g, size: (g.random(size) < 0.3).astype(np.float64), 0.3),
}


def main() -> None:
    """Measure, print, and store where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    titles = [f"{kind}{part}" for kind in KINDS for part in ("", ", plain")]
    print(
        f"{'images':>6}", *(f"{title:>17}" for title in titles), f"{'false alarms':>14}{'Holm':>7}"
    )
    found = []
    for count in IMAGES:
        held = {kind: covered(kind, count, arguments.trials) for kind in KINDS}
        alarms = false_alarms(count, max(1, arguments.trials // 10))
        found.append({"images": count, "held": held, "false_alarms": alarms})
        shares = [share for pair in held.values() for share in pair]
        print(f"{count:>6}", *(f"{share:>17.3f}" for share in shares), end="")
        print(f"{alarms[0]:>14.3f}{alarms[1]:>7.3f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def covered(kind: str, count: int, trials: int) -> tuple[float, float]:
    """How often our interval holds the mean, and how often plain percentiles do."""
    draw, truth = KINDS[kind]
    ours = plain = 0
    for values in draw(np.random.default_rng(count), (trials, count)):
        made = interval(values)
        low, high = np.percentile(resampled_means(values), (2.5, 97.5))
        ours += made.low is not None and made.high is not None and made.low <= truth <= made.high
        plain += bool(low <= truth <= high)
    return ours / trials, plain / trials


def false_alarms(count: int, trials: int) -> tuple[float, float]:
    """Of experiments with ten comparisons of equals: how many "find" a difference in at least
    one, by uncorrected and by corrected p-values.
    """
    generator = np.random.default_rng(count)
    alarms = np.zeros(2)
    for _ in range(trials):
        first, second = (generator.beta(0.5, 2.0, (ROWS, count)) for _ in range(2))
        values = sign_flip(list(first - second))
        alarms += [min(values) < LEVEL, min(holm(values)) < LEVEL]
    return float(alarms[0] / trials), float(alarms[1] / trials)


if __name__ == "__main__":
    main()
