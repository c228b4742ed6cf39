"""Each metric against an independent implementation: scipy, scikit-image, numpy sets."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from robustlab.metrics import build

H, W = 19, 17


def make(kind, seed, count=4, height=H, width=W):
    r = np.random.default_rng(seed)
    a = r.normal(size=(count, height, width))
    b = a + r.normal(size=a.shape)
    if kind == "tied":  # few values, most of them zero, as on black borders
        a, b = (np.where(np.abs(m) < 1, 0, np.round(m)) for m in (a, b))
    if kind == "one side tied":
        a = np.maximum(a, 0)
    if kind == "signed zeros":
        a, b = (np.where(np.abs(m) < 1, np.copysign(0.0, m), m) for m in (a, b))
    return a, b


def assert_equals_oracle(metric, oracle, a, b, atol):
    got = metric(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    expected = np.array([oracle(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


KINDS = ("plain", "tied", "one side tied", "signed zeros")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("spearman", lambda x, y: stats.spearmanr(x.ravel(), y.ravel()).statistic),
        ("kendall", lambda x, y: stats.kendalltau(x.ravel(), y.ravel(), variant="b").statistic),
        ("pearson", lambda x, y: stats.pearsonr(x.ravel(), y.ravel()).statistic),
        ("cosine", lambda x, y: x.ravel() @ y.ravel() / np.linalg.norm(x) / np.linalg.norm(y)),
        ("relative_l2", lambda x, y: np.linalg.norm(x - y) / np.linalg.norm(x)),
    ],
)
def test_correlations_and_lengths(name, oracle, kind):
    assert_equals_oracle(build(name), oracle, *make(kind, seed=1), atol=1e-12)


def test_kendall_is_tau_b_by_counting_pairs():
    a, b = make("tied", seed=2, count=1, height=5, width=6)
    x, y = a.ravel(), b.ravel()
    i, j = np.triu_indices(x.size, 1)
    dx, dy = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    tau = (dx * dy).sum() / math.sqrt((dx != 0).sum() * (dy != 0).sum())
    assert_equals_oracle(build("kendall"), lambda *_: tau, a, b, atol=1e-12)


def top_set(m, k):
    return set(np.argsort(-m.ravel(), kind="stable")[:k].tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7, 100, H * W - 1, H * W])
def test_top_k_is_set_intersection_with_lowest_index_first(k, kind):
    a, b = make(kind, seed=3)
    oracle = lambda x, y: len(top_set(x, k) & top_set(y, k)) / k  # noqa: E731
    assert_equals_oracle(build("top_k_intersection", k=k), oracle, a, b, atol=0)


def test_top_k_fills_up_with_the_first_of_the_ties():
    clean = torch.tensor([[[0.0, 2.0, 1.0, 1.0, 1.0]]])
    top = build("top_k_intersection", k=3)  # the clean set is {1, 2, 3}
    assert top(clean, torch.tensor([[[0.0, 9.0, 9.0, 9.0, 0.0]]])).item() == 1
    assert top(clean, torch.tensor([[[0.0, 9.0, 9.0, 0.0, 9.0]]])).item() == 2 / 3


def test_rank_metrics_agree_on_the_path_without_numpy(monkeypatch):
    a, b = (torch.from_numpy(m) for m in make("tied", seed=4))
    names = [
        ("spearman", {}),
        ("kendall", {}),
        ("kendall", {"within": 90}),
        ("top_k_intersection", {"k": 60}),
    ]
    expected = [build(name, **options)(a, b) for name, options in names]
    for module in ("ranks", "ordering"):
        monkeypatch.setattr(f"robustlab.metrics.{module}._on_cpu", lambda _: False)
        monkeypatch.setattr(f"robustlab.metrics.{module}.np", None)
    for (name, options), value in zip(names, expected, strict=True):
        assert torch.equal(build(name, **options)(a, b), value)


def skimage_ssim(x, y, data_range):
    return structural_similarity(
        x,
        y,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def unit(m):
    return (m - m.min()) / (m.max() - m.min())


def skimage_ssim_of_unit_maps(x, y):
    return skimage_ssim(unit(x), unit(y), 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(H, W), (11, 30)])
def test_ssim(kind, height, width):
    a, b = make(kind, 5, 4, height, width)
    assert_equals_oracle(build("ssim"), skimage_ssim_of_unit_maps, a, b, 1e-10)


def test_ssim_on_smooth_maps_of_usual_size():
    a, b = make("plain", 6, 2, 96, 80)
    a, b = (ndimage.gaussian_filter(m, (0, 3, 3)) for m in (a, b))
    assert_equals_oracle(build("ssim"), skimage_ssim_of_unit_maps, a, b, 1e-10)


# Two batches of float32 maps each, of (noise, the same smoothed): what could stumble over rounding.
HARD = {
    "plain": lambda noise, smooth: noise,
    "wide zeros": lambda noise, smooth: smooth.relu(),
    "offset": lambda noise, smooth: 100 + noise / 100,
    "far offset": lambda noise, smooth: 1e6 + noise,
    "sparse": lambda noise, smooth: (noise > 2.5).float(),
    "all but equal": lambda noise, smooth: smooth[:1] + 1e-4 * noise,
    "huge": lambda noise, smooth: noise / noise.abs().max() * 3.4e38,
    "tiny": lambda noise, smooth: noise * 1e-38,
    "one is zero": lambda noise, smooth: torch.stack([torch.zeros_like(noise[0]), noise[1]]),
}


@pytest.mark.parametrize(
    "options", [{}, {"scale": "none"}, {"data_range": 1.5}, {"data_range": 1e-3}], ids=str
)
@pytest.mark.parametrize("kind", HARD)
def test_ssim_of_float32_maps_is_that_of_their_values(kind, options):
    noise = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(8))
    a, b = HARD[kind](noise, F.avg_pool2d(noise, 15, 1, 7))
    ssim = build("ssim", **options)
    found, expected = ssim(a, b), ssim(a.double(), b.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert torch.equal(found, ssim(b, a)) and torch.equal(ssim(a, a), torch.ones(3).double())
    assert torch.equal(ssim(a, b.double()), expected)  # one of them says how


def test_ssim_unscaled_and_its_data_range():
    a, b = make("plain", seed=7)
    a, b = a + 3, b + 3
    joint = lambda x, y: max(x.max(), y.max()) - min(x.min(), y.min())  # noqa: E731
    plain = build("ssim", scale="none")
    assert_equals_oracle(plain, lambda x, y: skimage_ssim(x, y, joint(x, y)), a, b, 1e-10)
    fixed = build("ssim", scale="none", data_range=0.7)
    assert_equals_oracle(fixed, lambda x, y: skimage_ssim(x, y, 0.7), a, b, 1e-10)
    ranged = build("ssim", data_range=2)
    assert_equals_oracle(ranged, lambda x, y: skimage_ssim(unit(x), unit(y), 2.0), a, b, 1e-10)


@pytest.mark.parametrize(
    ("scale", "scaled"),
    [("minmax", unit), ("none", lambda m: m), ("sum", lambda m: m / np.abs(m).sum())],
)
def test_mse(scale, scaled):
    oracle = lambda x, y: ((scaled(x) - scaled(y)) ** 2).mean()  # noqa: E731
    assert_equals_oracle(build("mse", scale=scale), oracle, *make("plain", seed=8), atol=1e-14)


def test_center_shift():
    def oracle(x, y):
        first, second = (np.array(ndimage.center_of_mass(np.abs(m))) for m in (x, y))
        return np.linalg.norm(first - second)

    assert_equals_oracle(build("center_shift"), oracle, *make("plain", seed=9), atol=1e-12)


def test_center_of_a_single_pixel_is_that_pixel():
    a, b = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    a[0, 1, 2], b[0, 4, 6] = -3.0, 0.5
    assert build("center_shift")(a, b).item() == 5.0


def test_greiner_relation_between_kendall_and_correlation():
    # For jointly normal values E[τ] = (2/π) asin r: a closed form that owes scipy nothing.
    r = np.random.default_rng(10)
    x, noise = r.normal(size=(2, 40, 28, 28))
    y = 0.6 * x + 0.8 * noise
    tau = build("kendall")(torch.from_numpy(x), torch.from_numpy(y))
    error = tau.std().item() / math.sqrt(40)
    assert abs(tau.mean().item() - 2 / math.pi * math.asin(0.6)) < 4 * error
