"""Means over images with bootstrap intervals.

Percentile intervals of few images are too narrow, because a sample spreads less than what it
was drawn from: by √((n − 1)/n), and by what Student's t has over the normal distribution. So
the percentiles lie further out (Hesterberg 2015, "What teachers should know about the
bootstrap", §5.3, expanded percentile interval):

    tail = Φ(−√(n/(n−1)) · t_{0.975, n−1})

With 8 images of a normal distribution 94 in 100 intervals hold the mean instead of 89, with 500
nothing changes: ``python -m benchmarks.coverage``.

Images are the unit that is resampled: they are what another experiment would draw anew.
Values of several seeds are averaged within an image first, because they are not
independent evidence about images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
SEED: Final = 20_190_717  # fixed, so that one store always gives the same table
_CHUNK: Final = 100  # resamples drawn at a time, which bounds memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values and its 95 % interval; None where there is nothing to say.

    One value has a mean but no interval: nothing tells how much images differ.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None


def interval(values: Sequence[float] | Floats) -> Interval:
    """Mean of one value per image, with its bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    mean = average(data)
    if len(data) < 2:
        return Interval(len(data), mean, None, None)
    if _alike(data):  # so is every resample
        return Interval(len(data), mean, mean, mean)
    tail = 100 * tail_of(len(data))
    low, high = np.percentile(resampled_means(data), (tail, 100 - tail))
    return Interval(len(data), mean, float(low), float(high))


def average(values: Sequence[float] | Floats) -> float | None:
    """The mean of `interval` alone, to the last digit, for those who do not show how sure it is."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return None
    return float(data[0] if _alike(data) else data.mean())


def _alike(data: Floats) -> bool:
    """Is it one value many times? Its mean is that value, without the noise of rounding."""
    return bool((data == data[0]).all())


@lru_cache(maxsize=64)
def tail_of(count: int) -> float:
    """Share of the resampled means that the interval leaves out at either end."""
    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2))
    return NormalDist().cdf(-sqrt(count / (count - 1)) * reach)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of ``first − second`` over the same images, in the same order.

    Pairing removes what the images have in common, so the interval is that of the
    difference and not of two separate means.
    """
    return interval(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


def resampled_means(data: Floats) -> Floats:
    """Means of ``RESAMPLES`` samples of ``data``, drawn with replacement."""
    weights = _weights(len(data))
    return np.concatenate([chunk @ data for chunk in weights]) / len(data)


@lru_cache(maxsize=4)
def _weights(count: int) -> list[NDArray[np.float64]]:
    """How often each of ``count`` images is drawn, in every resample."""
    generator = np.random.default_rng(SEED)
    share = np.full(count, 1 / count)
    sizes = [min(_CHUNK, RESAMPLES - done) for done in range(0, RESAMPLES, _CHUNK)]
    return [generator.multinomial(count, share, size).astype(np.float64) for size in sizes]
