"""The bootstrap against known truth, and broken bootstraps that the same check rejects."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from robustlab.reporting import statistics
from robustlab.reporting.statistics import Interval, average, interval, paired_difference

Estimator = Callable[[np.ndarray], Interval]


def coverage(estimator: Estimator, trials: int = 300, n: int = 60) -> float:
    """How often the interval holds the true mean of a skewed distribution."""
    draws = np.random.default_rng(3).exponential(2.0, (trials, n))
    found = [estimator(row) for row in draws]
    return float(np.mean([(item.low or 0) <= 2.0 <= (item.high or 0) for item in found]))


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    assert 0.89 <= coverage(interval) <= 0.98


def test_a_mean_alone_is_that_of_the_interval() -> None:
    draws = np.random.default_rng(8)
    for values in ([], [0.3], [0.1] * 7, *(draws.random(n).tolist() for n in (2, 3, 50, 501))):
        assert average(values) == interval(values).mean
    assert np.mean([0.1] * 7) != average([0.1] * 7)  # canary: 0.1 with the noise of rounding


def _of_values(data: np.ndarray) -> Interval:
    low, high = np.percentile(data, (2.5, 97.5))  # forgets that it is about a mean
    return Interval(len(data), data.mean(), low, high)


def _too_narrow(data: np.ndarray) -> Interval:
    whole = interval(np.repeat(data, 4))  # counts four seeds of an image as four images
    return Interval(len(data), whole.mean, whole.low, whole.high)


@pytest.mark.parametrize("broken", [_of_values, _too_narrow])
def test_canary_broken_intervals_are_seen(broken: Estimator) -> None:
    assert not 0.89 <= coverage(broken) <= 0.98


@pytest.mark.parametrize("n", [6, 10, 30])
def test_few_images_have_wide_enough_intervals(n: int) -> None:
    draws = np.random.default_rng(n).normal(0.5, 0.2, (400, n))
    assert 0.90 <= held(draws, interval) <= 0.975
    if n == 6:  # canary: plain percentiles, which forget that a few values spread too little
        assert held(draws, _plain) < 0.90


def held(draws: np.ndarray, estimator: Estimator) -> float:
    """How often the interval holds 0.5."""
    found = [estimator(row) for row in draws]
    return float(np.mean([(item.low or 0) <= 0.5 <= (item.high or 0) for item in found]))


def _plain(data: np.ndarray) -> Interval:
    low, high = np.percentile(statistics.resampled_means(data), (2.5, 97.5))
    return Interval(len(data), data.mean(), low, high)


@pytest.mark.parametrize("n", [12, 40])
def test_agrees_with_scipy(n: int) -> None:
    data = np.random.default_rng(1).normal(5, 2, n)
    outside = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    theirs = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=50_000,
        confidence_level=1 - 2 * outside,
        method="percentile",
        random_state=0,
    ).confidence_interval
    ours = interval(data)
    assert ours.low == pytest.approx(theirs.low, abs=0.06)
    assert ours.high == pytest.approx(theirs.high, abs=0.06)


def test_degenerate_samples() -> None:
    assert interval([]) == Interval(0, None, None, None)
    assert interval([0.25]) == Interval(1, 0.25, None, None)
    assert interval([0.1] * 7) == Interval(7, 0.1, 0.1, 0.1)


def test_the_same_data_give_the_same_interval_whatever_came_before() -> None:
    first = interval([1.0, 2.0, 4.0])
    interval([3.0, 5.0])
    assert interval([1.0, 2.0, 4.0]) == first


def test_resamples_are_samples_with_replacement() -> None:
    means = statistics.resampled_means(np.array([0.0, 1.0]))
    assert means.shape == (2000,)
    shares = [float(np.mean(means == value)) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_pairing_removes_what_images_have_in_common() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 10, 50)
    paired = paired_difference(shared - 1 + generator.normal(0, 0.1, 50), shared)
    assert paired.mean == pytest.approx(-1, abs=0.05)
    assert paired.low is not None
    assert paired.high is not None
    assert -1.1 < paired.low < paired.high < -0.9
