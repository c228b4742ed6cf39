"""Counting pairs and ranking, fast: against counting them one by one, and scipy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustlab.metrics import build
from robustlab.metrics.ordering import _BLOCK, centred_ranks, descents, ranking, tau_b, tied_pairs

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def by_pairs(row):
    return int((row[:, None] > row[None, :])[np.triu_indices(len(row), 1)].sum())


@pytest.mark.parametrize(
    "size", [1, 2, 100, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 1000, 5 * _BLOCK + 3]
)
def test_descents_are_counted_to_the_last_pair(size):
    r = np.random.default_rng(size)
    rows = np.stack([
        r.permutation(size),
        r.integers(0, size, size),
        r.integers(0, min(size, 3), size),
        np.arange(size),
        np.arange(size)[::-1],
        np.zeros(size, int),
    ])  # fmt: skip
    counted = descents(torch.from_numpy(rows))
    assert counted.tolist() == [by_pairs(row) for row in rows]


@pytest.mark.parametrize("at_once", [1, 600, 1 << 28])
def test_descents_as_another_device_counts_them(at_once, monkeypatch):
    rows = torch.from_numpy(np.random.default_rng(7).integers(0, 60, (3, 90)))
    monkeypatch.setattr("robustlab.metrics.ordering._on_cpu", lambda _: False)
    monkeypatch.setattr("robustlab.metrics.ordering._AT_ONCE", at_once)
    assert descents(rows).tolist() == [by_pairs(row) for row in rows.numpy()]


@pytest.mark.parametrize("size", [(1 << 16) - 5, 1 << 16, (1 << 16) + 1, 70000])
def test_descents_where_numbers_outgrow_16_bits(size):
    rows = torch.arange(size).flip(0).expand(2, -1).contiguous()
    rows[1] = torch.arange(size).roll(size // 3)  # each of the last third before all the others
    third = size // 3
    assert descents(rows).tolist() == [size * (size - 1) // 2, third * (size - third)]


def test_every_order_of_a_few():
    rows = torch.tensor(list(itertools.product(range(4), repeat=4)))
    assert descents(rows).tolist() == [by_pairs(row) for row in rows.numpy()]
    ties = [sum(x == y for x, y in itertools.combinations(r, 2)) for r in rows.tolist()]
    assert tied_pairs(rows.sort(dim=1).values).tolist() == ties
    ranks = centred_ranks(rows.double()) + 2.5
    assert ranks.tolist() == [stats.rankdata(row).tolist() for row in rows.numpy()]


@quick
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e308, 0.1]), min_size=2))
def test_ranking_of_awkward_numbers(values):
    flat = torch.tensor([values, values[::-1]], dtype=torch.float64)
    order, tier = ranking(flat)
    dense = torch.empty_like(tier).scatter_(1, order, tier)
    expected = np.stack([stats.rankdata(row, method="dense") - 1 for row in flat.numpy() + 0.0])
    assert dense.tolist() == expected.tolist()


@pytest.mark.parametrize("gap", [2.0**-52, 2.0**-49, 2.0**-46, 2.0**-40])
def test_numbers_that_differ_in_their_last_bits_only(gap):
    # Their place takes the room of the bits that tell them apart.
    r = np.random.default_rng(3)
    x, y = 1 + gap * r.integers(0, 4, (2, 3, 15, 17))
    for name, oracle in (("kendall", stats.kendalltau), ("spearman", stats.spearmanr)):
        got = build(name)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        expected = [oracle(u.ravel(), v.ravel()).statistic for u, v in zip(x, y, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_usual_maps_are_never_ordered_the_slow_way(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("slow")

    flat = torch.randn(3, 900, generator=torch.Generator().manual_seed(8)).double()
    flat[1, ::3], flat[1, 1::3] = 0.0, -0.0
    expected = [stats.rankdata(row) for row in flat.numpy() + 0.0]
    monkeypatch.setattr("robustlab.metrics.ordering.np.argsort", refuse)
    ranks = centred_ranks(flat) + 901 / 2
    np.testing.assert_allclose(ranks, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 1000, 40, 2])
def test_maps_of_usual_size(levels):
    r = np.random.default_rng(4)
    a, b = r.normal(size=(2, 2, 224, 224))
    b = a + b
    if levels:
        a, b = (np.round(m * levels / 8) for m in (a, b))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    pairs = list(zip(a.reshape(2, -1), b.reshape(2, -1), strict=True))
    tau = [stats.kendalltau(u, v).statistic for u, v in pairs]
    rho = [stats.spearmanr(u, v).statistic for u, v in pairs]
    ours = tau_b(ranking(x.flatten(1)), ranking(y.flatten(1)))
    np.testing.assert_allclose(ours, tau, rtol=0, atol=1e-12)
    np.testing.assert_allclose(build("kendall")(x, y), tau, rtol=0, atol=1e-12)
    np.testing.assert_allclose(build("spearman")(x, y), rho, rtol=0, atol=1e-12)


def test_a_ranking_can_be_kept():
    a, b, c = torch.randn(3, 4, 300, generator=torch.Generator().manual_seed(5)).double()
    kept = ranking(a)
    for other in (b, c):
        maps = (m.view(4, 15, 20) for m in (a, other))
        assert torch.equal(tau_b(kept, ranking(other)), build("kendall")(*maps))


@pytest.mark.parametrize("within", [2, 20, 150, 306])
@pytest.mark.parametrize("tied", [False, True])
def test_kendall_within_the_top_of_the_clean_map(within, tied):
    a, b = np.random.default_rng(6).normal(size=(2, 5, 17, 18))
    b = a + b
    if tied:
        a, b = np.round(3 * a), np.round(3 * b)
    inside = np.argsort(-a.reshape(5, -1), axis=1, kind="stable")[:, :within]
    x, y = (np.take_along_axis(m.reshape(5, -1), inside, 1) for m in (a, b))
    expected = np.nan_to_num([stats.kendalltau(u, v).statistic for u, v in zip(x, y, strict=True)])
    for i, (u, v) in enumerate(zip(x, y, strict=True)):
        expected[i] = 1.0 if (u == v).all() else expected[i]
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    got = build("kendall", within=within)(a, b).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    if within == 306:
        np.testing.assert_allclose(got, build("kendall")(a, b), rtol=0, atol=1e-12)
    elif not tied:  # of the perturbed map's own top, or of both with the rest at zero, it differs
        assert not np.allclose(got, build("kendall", within=within)(b, a))
        cut = torch.from_numpy(np.sort(a.numpy().reshape(5, -1), 1)[:, -within, None, None])
        zeroed = build("kendall")(a * (a >= cut), b * (a >= cut)).numpy()
        assert not np.allclose(got, zeroed)
