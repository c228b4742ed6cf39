"""Counting pairs and ranking, fast: against counting them one by one, and scipy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustlab.core.errors import InvalidInput
from robustlab.metrics import build, ordering, pairs
from robustlab.metrics.ordering import _BLOCK, along, descents, ranking, rho, tau_b

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def by_pairs(row):
    return int((row[:, None] > row[None, :])[np.triu_indices(len(row), 1)].sum())


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize(
    "size", [1, 2, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 3 * _BLOCK + 1, 1000, 1024, 1573]
)
def test_descents_are_counted_to_the_last_pair(size, cpu, monkeypatch):
    r = np.random.default_rng(size)
    rows = np.stack([
        r.permutation(size),
        r.integers(0, size, size),
        r.integers(0, min(size, 3), size),
        np.arange(size),
        np.arange(size)[::-1],
        np.zeros(size, int),
    ]).astype(np.int32)  # fmt: skip
    kept = rows.copy()
    if not cpu:
        on_another_device(monkeypatch)
    counted = descents(torch.from_numpy(rows))
    assert counted.dtype == torch.float64
    assert counted.tolist() == [by_pairs(row) for row in rows]
    assert (rows == kept).all()


@pytest.mark.parametrize("size", [(1 << 16) - 5, 1 << 16, (1 << 16) + 1, 70000])
def test_descents_where_numbers_outgrow_16_bits(size):
    rows = torch.arange(size, dtype=torch.int32).flip(0).expand(2, -1).contiguous()
    third = size // 3  # each of the last third before all the others
    rows[1] = torch.arange(size, dtype=torch.int32).roll(third)
    assert descents(rows).tolist() == [size * (size - 1) // 2, third * (size - third)]


@pytest.mark.parametrize("cpu", [True, False])
def test_every_order_of_a_few(cpu, monkeypatch):
    rows = torch.tensor(list(itertools.product(range(4), repeat=4)))
    oracle = [stats.rankdata(row) for row in rows.numpy()]
    ties = [sum(x == y for x, y in itertools.combinations(r, 2)) for r in rows.tolist()]
    if not cpu:
        on_another_device(monkeypatch)
    assert descents(rows.int()).tolist() == [by_pairs(row) for row in rows.numpy()]
    for kind in (torch.float32, torch.float64):
        found = ranking(rows.to(kind))
        assert found.tied.tolist() == ties
        assert found.constant.tolist() == [len(set(row)) == 1 for row in rows.tolist()]
        levels = torch.empty(rows.shape, dtype=torch.int32)
        levels.scatter_(1, found.order, found.level)
        assert (levels / 2 + 1).tolist() == [row.tolist() for row in oracle]


def on_another_device(monkeypatch):
    monkeypatch.setattr(ordering, "_on_cpu", lambda _: False)
    monkeypatch.setattr(ordering, "np", None)


def tau_by_pairs(x, y):
    i, j = np.triu_indices(x.size, 1)
    dx, dy = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    return (dx * dy).sum() / np.sqrt(float((dx != 0).sum()) * float((dy != 0).sum()))


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("kinds", [(2, 2), (2, 200), (200, 2), (9, 30), (300, 300), (30, 10**6)])
def test_ties_of_every_kind_by_brute_force(kinds, cpu, monkeypatch):
    # 23 x 17 pixels: some of these are counted in a table of values that meet, some are not.
    r = np.random.default_rng(9)
    x, y = (r.integers(-(k // 2), k - k // 2, (4, 391)).astype(np.float64) for k in kinds)
    y[0] = np.sort(y[0])
    x[1], y[1] = np.arange(391.0) % kinds[0], -np.arange(391.0) % kinds[1]
    x[2, :200] = x[2, 0]  # one long run, as of a ReLU
    expected = [tau_by_pairs(u, v) for u, v in zip(x, y, strict=True)]
    spearman = [stats.spearmanr(u, v).statistic for u, v in zip(x, y, strict=True)]
    if not cpu:
        on_another_device(monkeypatch)
    for kind in (torch.float32, torch.float64):
        a, b = (torch.from_numpy(m).to(kind) for m in (x, y))
        known = ranking(a)
        for one in (known, known.kept()):
            other = along(one, b)
            np.testing.assert_allclose(tau_b(one, other), expected, rtol=0, atol=1e-12)
            np.testing.assert_allclose(rho(one, other), spearman, rtol=0, atol=1e-12)


@quick
@given(
    st.integers(2, 40).flatmap(
        lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n)] * 2)
    )
)
def test_the_table_counts_what_one_by_one_does(pair):
    x, y = (torch.tensor([m, m[::-1]], dtype=torch.float64) for m in pair)
    known = ranking(x)
    other = along(known, y)
    found = ordering._in_a_table(known, other)
    if found is None:
        return
    for table, single in zip(found, ordering._one_by_one(known, other), strict=True):
        assert torch.equal(table, single)


def test_switching_over_to_the_table_changes_nothing(monkeypatch):
    # Values from few to many: the table is left exactly where it would outgrow the map.
    r = np.random.default_rng(11)
    a, b = r.normal(size=(2, 1, 40, 40))
    tables = 0
    for levels in (3, 15, 30, 33, 60, 400):
        x, y = (torch.from_numpy(np.round(m * levels / 8)).flatten(1) for m in (a, a + b))
        known = ranking(x)
        other = along(known, y)
        expected = stats.kendalltau(x[0], y[0]).statistic
        with_tables = tau_b(known, other)
        tables += ordering._in_a_table(known, other) is not None
        with monkeypatch.context() as patched:
            patched.setattr(ordering, "_in_a_table", lambda *_: None)
            assert torch.equal(tau_b(known, other), with_tables)
        assert with_tables.item() == pytest.approx(expected, abs=1e-12)
    assert 0 < tables < 6


def test_ties_that_are_not_corrected_for_would_be_seen(monkeypatch):
    # Canaries: pairs tied in both forgotten; equals in the order of their places.
    x, y = (torch.from_numpy(m) for m in np.random.default_rng(12).integers(0, 40, (2, 1, 900)))
    x, y = x.double(), (x + y).double()
    expected = stats.kendalltau(x[0], y[0]).statistic
    monkeypatch.setattr(ordering, "_in_a_table", lambda *_: None)
    known = ranking(x)
    other = along(known, y)
    assert tau_b(known, other).item() == pytest.approx(expected, abs=1e-12)
    by_place = tau_b(known, along(known, y + 1e-6 * torch.arange(900)))
    assert abs(by_place.item() - expected) > 1e-4
    honest = ordering._one_by_one
    forgetful = lambda *rankings: (honest(*rankings)[0], torch.zeros(1))  # noqa: E731
    monkeypatch.setattr(ordering, "_one_by_one", forgetful)
    assert abs(tau_b(known, other).item() - expected) > 1e-4


@quick
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e308, 0.1]), min_size=2))
def test_ranking_of_awkward_numbers(values):
    doubles = torch.tensor([values, values[::-1]], dtype=torch.float64)
    for flat in (doubles, doubles.clamp(max=1e38).float()):
        found = ranking(flat)
        ranks = torch.empty(flat.shape, dtype=torch.float64)
        ranks.scatter_(1, found.order, found.level.double() / 2 + 1)
        expected = [stats.rankdata(row).tolist() for row in flat.numpy() + 0.0]
        assert ranks.tolist() == expected
        for order, row in zip(found.order.tolist(), flat.tolist(), strict=True):
            assert order == sorted(range(len(row)), key=lambda i: (row[i], i))


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
    expected = [stats.rankdata(row).tolist() for row in flat.numpy() + 0.0]
    monkeypatch.setattr("robustlab.metrics.ordering.np.argsort", refuse)
    found = ranking(flat)
    ranks = torch.empty_like(flat).scatter_(1, found.order, found.level.double() / 2 + 1)
    assert ranks.tolist() == expected


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
    np.testing.assert_allclose(build("kendall")(x, y), tau, rtol=0, atol=1e-12)
    np.testing.assert_allclose(build("spearman")(x, y), rho, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"), [("spearman", {}), ("kendall", {}), ("kendall", {"within": 90})]
)
def test_clean_maps_that_are_ranked_once(name, options, monkeypatch):
    g = torch.Generator().manual_seed(5)
    a, b, c = torch.randn(3, 9, 15, 20, generator=g)
    a[2], b[2], a[4], b[5] = 0.5, 0.5, 1.0, 1.0  # constant: both and equal, one, the other
    a[6], b[6] = 0.5, 0.25
    monkeypatch.setattr(pairs, "_CACHED", 4 * 300)  # in parts, the last one shorter
    metric = build(name, **options)
    against = metric.against(a)
    for other in (b, c, b.double(), (8 * c).round().half()):
        expected = torch.cat([metric(a[i : i + 1], other[i : i + 1]) for i in range(9)])
        assert torch.equal(against(other), expected)
        assert torch.equal(metric(a, other), expected)
    value = against(b)
    assert value[[2, 4, 5, 6]].tolist() == [1.0, 0.0, 0.0, 0.0]
    a.zero_()  # what is known of the clean maps has nothing to do with them any more
    assert torch.equal(against(b), value)
    assert metric.against(a[:0])(b[:0]).shape == (0,)


def test_what_is_held_against_clean_maps_must_fit_them():
    a = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    against = build("spearman").against(a)
    for bad in (a[:1], a[:, :4], a[0], torch.full_like(a, torch.nan), a.numpy()):
        with pytest.raises(InvalidInput) as caught:
            against(bad)
        assert caught.value.field == "perturbed"
    huge = torch.full_like(a, 3e38)  # whose sum is not finite, but they are
    assert against(huge).tolist() == [0.0, 0.0]


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
