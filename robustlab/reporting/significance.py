"""Is a paired difference more than chance, once all rows of a table are asked about at once?

**Test of one row.** Paired, two-sided sign flips of the images' differences ``d_1 … d_n``:

    p = share of sign patterns s ∈ {−1, +1}ⁿ with |Σ s_i d_i| ≥ |Σ d_i|

If the two runs were exchangeable, every image's difference would be as likely with the other
sign, and then p is exact for any distribution and any n (Fisher 1935, §21). It is preferred to
Wilcoxon's signed ranks because its statistic is the mean difference, the very number that the
table shows with its interval; ranks ask about another number, drop zeros and need an
approximation under ties, which shares of top pixels have many of.

Up to ``EXACT`` images that differ, all 2ⁿ patterns are counted; images that do not differ
change no sum and are left out. Above, ``FLIPS`` patterns are drawn with a fixed seed and
``p = (1 + hits) / (1 + FLIPS)``, which never is too small (Phipson and Smyth 2010).

**All rows.** Holm's step-down correction (Holm 1979): with p sorted ascending,

    adjusted_i = max_{j ≤ i} min(1, (m − j + 1) · p_j)

The chance of one or more false alarms among m rows stays below the level, however the rows
depend on each other; rows of one run share their images, so they do.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from robustlab.reporting.statistics import SEED

EXACT: Final = 15
FLIPS: Final = 49_999  # the smallest p is 2e-5, which stays below 0.05 among 2500 rows
_CHUNK: Final = 1024  # patterns at a time, which bounds memory
_ROUNDING: Final = 1e-9  # relative: sums in another order that tie must count as tied

Floats = NDArray[np.float64]


def sign_flip(differences: Sequence[Floats]) -> list[float]:
    """One p-value per row; each row holds one difference per image, in an order that is fixed.

    Rows may have different lengths. A row without any difference has p = 1.
    """
    found = [1.0] * len(differences)
    moved = [row[row != 0] for row in differences]
    for count in sorted({len(row) for row in moved}):
        places = [i for i, row in enumerate(moved) if len(row) == count]
        values = _p_values(np.stack([moved[i] for i in places], axis=1))
        for i, value in zip(places, values, strict=True):
            found[i] = float(value)
    return found


def least(count: int) -> float:
    """The smallest p-value that ``count`` images can give: all of them moved the same way."""
    return 2.0 ** (1 - count) if count <= EXACT else 1 / (1 + FLIPS)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are, in the order given."""
    adjusted = [1.0] * len(values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = worst
    return adjusted


def _p_values(data: Floats) -> Floats:
    """p per column of ``data``, which is (images, rows)."""
    count, total = len(data), data.sum(axis=0)
    needed = np.abs(total) * (1 - _ROUNDING)
    hits, asked = np.zeros(data.shape[1]), 0
    for pattern in _all(count) if count <= EXACT else _some(count):
        sums = 2 * (pattern @ data) - total  # pattern is 1 where the sign stays, else 0
        hits += (np.abs(sums) >= needed).sum(axis=0)
        asked += len(pattern)
    return hits / asked if count <= EXACT else (1 + hits) / (1 + asked)


def _all(count: int) -> Iterator[Floats]:
    """Every pattern of ``count`` signs once."""
    for start in range(0, 2**count, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, 2**count))
        yield (numbers[:, None] >> np.arange(count) & 1).astype(np.float64)


def _some(count: int) -> Iterator[Floats]:
    """``FLIPS`` patterns, the same in every call."""
    generator = np.random.default_rng(SEED)
    for start in range(0, FLIPS, _CHUNK):
        size = min(_CHUNK, FLIPS - start)
        yield generator.integers(0, 2, (size, count), dtype=np.int8).astype(np.float64)
