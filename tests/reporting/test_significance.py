"""Sign flips against brute force and a peer, Holm against its definition, and the error rate."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from robustlab.records import MetricInfo
from robustlab.reporting.significance import EXACT, FLIPS, holm, least, sign_flip
from robustlab.reporting.statistics import paired_difference
from robustlab.reporting.versus import verdict

INFO = MetricInfo(name="m", higher_is_more_stable=True, bounds=(0, 1), summary="", options={})


def brute_force(row):
    total = abs(sum(row))
    patterns = list(product((-1, 1), repeat=len(row)))
    hits = sum(
        abs(sum(s * d for s, d in zip(p, row, strict=True))) >= total - 1e-12 for p in patterns
    )
    return hits / len(patterns)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_few_images_are_counted_exactly(count):
    row = np.random.default_rng(count).normal(0.4, 1, count)
    assert sign_flip([row]) == [brute_force(row)]


def test_a_case_by_hand():
    # of 8 patterns of 1, 2, 3 only +++ and −−− sum to 6; the sum 4 is reached by ±(−1, 2, 3) too
    assert sign_flip([np.array([1.0, 2.0, 3.0]), np.array([-1.0, 2.0, 3.0])]) == [2 / 8, 4 / 8]


def test_ties_and_images_that_do_not_differ():
    tied = np.array([0.1, 0.2, -0.3, 0.1, 0.1, 0.0])  # 0.1 + 0.2 is not 0.3 for a computer
    assert sign_flip([tied]) == [brute_force(tied)]
    padded = np.concatenate([tied, np.zeros(40)])
    assert sign_flip([padded, np.zeros(3), np.zeros(0)]) == [brute_force(tied), 1.0, 1.0]


def test_many_images_agree_with_scipy():
    rows = [np.random.default_rng(seed).normal(0.2, 1, 40) for seed in range(4)]
    for row, mine in zip(rows, sign_flip(rows), strict=True):
        peer = stats.permutation_test(
            (row,),
            np.mean,
            permutation_type="samples",
            n_resamples=20_000,
            rng=np.random.default_rng(1),
        )
        assert mine == pytest.approx(peer.pvalue, abs=0.012)


def test_rows_do_not_look_at_each_other():
    rows = [np.random.default_rng(seed).normal(0.3, 1, 20 + seed % 2) for seed in range(6)]
    assert sign_flip(rows) == [sign_flip([row])[0] for row in rows]


@pytest.mark.parametrize("count", [1, 4, EXACT, EXACT + 1])
def test_the_least_p(count):
    (found,) = sign_flip([np.ones(count)])
    assert found >= least(count) > 0
    if count <= EXACT:
        assert found == least(count) == 2 / 2**count
    else:
        assert least(count) == 1 / (1 + FLIPS)


def test_holm_by_hand():
    # sorted: 0.005·4, 0.01·3 = 0.03, 0.03·2 = 0.06, 0.04·1 → 0.06, since it never falls
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_by_its_definition():
    values = list(np.random.default_rng(0).uniform(0, 0.2, 12))
    ranked = sorted(values)
    expected = [
        max(min(1.0, (12 - j) * ranked[j]) for j in range(ranked.index(value) + 1))
        for value in values
    ]
    assert holm(values) == pytest.approx(expected)
    bonferroni = [min(1.0, 12 * value) for value in values]
    assert all(a <= b for a, b in zip(holm(values), bonferroni, strict=True))


def null_comparisons(trials=200, rows=10, images=20):
    """p-values and intervals of comparing nothing with nothing.

    Rows share their images, as they do in a run; values are skewed.
    """
    generator = np.random.default_rng(11)
    common = generator.exponential(1.0, (trials, 1, images))
    a, b = (common + generator.exponential(1.0, (trials, rows, images)) for _ in "ab")
    values = sign_flip(list((b - a).reshape(-1, images)))  # rows do not look at each other
    for trial in range(trials):
        bounds = [paired_difference(y, x) for x, y in zip(a[trial], b[trial], strict=True)]
        yield values[trial * rows : (trial + 1) * rows], bounds


def alarms(comparisons, adjust):
    """Share of the comparisons in which at least one row has changed."""
    said = [
        {
            verdict(bound, p, INFO, same=False)
            for p, bound in zip(adjust(values), bounds, strict=True)
        }
        for values, bounds in comparisons
    ]
    return sum(one != {"no clear difference"} for one in said) / len(said)


def test_nothing_rarely_looks_like_a_change_and_canary_without_holm_it_often_does():
    found = list(null_comparisons())
    assert alarms(found, holm) <= 0.08
    assert alarms(found, list) > 0.2


def test_a_real_change_is_found():
    generator = np.random.default_rng(2)
    rows = [generator.normal(1.0 * (i == 3), 1, 30) for i in range(10)]
    adjusted = holm(sign_flip(rows))
    assert [i for i, p in enumerate(adjusted) if p < 0.05] == [3]
