"""Means over images with percentile bootstrap intervals.

Images are the unit that is resampled: they are what another experiment would draw anew.
Values of several seeds are averaged within an image first, because they are not
independent evidence about images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
    if len(data) == 0:
        return Interval(0, None, None, None)
    mean = float(data.mean())
    if len(data) == 1:
        return Interval(1, mean, None, None)
    if (data == data[0]).all():  # every resample is the same; spares rounding noise
        value = float(data[0])
        return Interval(len(data), value, value, value)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled_means(data), (tail, 100 - tail))
    return Interval(len(data), mean, float(low), float(high))


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
