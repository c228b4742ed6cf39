"""From values of images to the estimates of a scorecard, each with its 95 % interval.

Maps are counted over images that were predicted right at first, as all papers do; images
without a label are not among them. Diverged and over-budget images count nowhere.
"""

from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import Final, Protocol

from robustlab.records import ImageRow, RunRecord
from robustlab.records.scores import Estimate
from robustlab.reporting.results import Measurement, measurements
from robustlab.reporting.samples import COUNTED, Sample, mean, per_image
from robustlab.reporting.statistics import Interval, interval

Z: Final = 1.959963984540054  # of the normal distribution, for 95 %


class Predicted(Protocol):
    """An image, or a value of one: its label, -1 where unknown, and what the model says."""

    @property
    def label(self) -> int: ...
    @property
    def prediction(self) -> int | None: ...


def right(image: Predicted) -> bool:
    """Was it predicted right before anything was done to it?"""
    return image.label >= 0 and image.prediction == image.label


def right_first(records: Iterable[RunRecord]) -> list[Measurement]:
    """Measurements that count, of images that were predicted right at first."""
    found = measurements(records)
    return [item for item in found if right(item) and item.outcome in COUNTED]


def wilson(share: float, images: int) -> Estimate:
    """A share of images with its 95 % Wilson interval.

    With several seeds ``share`` is the mean over images of each one's own share, whose variance
    is at most that of as many single verdicts: the interval is then too wide, never too narrow.
    Unlike a bootstrap it has a width where no image, or every image, is right.
    Source: Wilson 1927.
    """
    if not images:
        return Estimate()
    weight = Z * Z / images
    middle = (share + weight / 2) / (1 + weight)
    reach = Z * sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Estimate(n=images, mean=share, low=min(low, share), high=max(high, share))


def labelled_share(records: Iterable[RunRecord], hit: Callable[[ImageRow], bool]) -> Estimate:
    """Of labelled images those that are hits; several seeds of one image count as their mean."""
    found: dict[str, list[float]] = {}
    for record in records:
        for image in record.images:
            if image.label >= 0 and image.outcome in COUNTED:
                found.setdefault(image.id, []).append(float(hit(image)))
    return wilson(mean([mean(v) for v in found.values()]), len(found)) if found else Estimate()


def estimate(items: Sequence[Measurement]) -> Estimate:
    """Mean of one value per image, with its bootstrap interval."""
    return from_interval(interval(list(per_image(items).values())))


def estimate_of_chance(items: Sequence[Measurement]) -> Estimate:
    """The same of what maps that know nothing score on these images."""
    return estimate([item._replace(value=item.chance) for item in items])


def seed_range(sample: Sample) -> float | None:
    """Highest minus lowest mean of a seed."""
    found: dict[int, list[float]] = {}
    for item in sample.counted():
        if item.value is not None:
            found.setdefault(item.seed, []).append(item.value)
    means = [mean(values) for values in found.values()]
    return max(means) - min(means) if len(means) > 1 else None


def from_interval(found: Interval) -> Estimate:
    """As the scorecard holds it."""
    return Estimate(n=found.n, mean=found.mean, low=found.low, high=found.high)
