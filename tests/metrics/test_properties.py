"""Properties over drawn maps, degenerate maps, chance floors, options and devices."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import robustlab.metrics
from robustlab.core.errors import InvalidInput
from robustlab.metrics import METRICS, build
from robustlab.metrics.pairs import home
from robustlab.metrics.ranks import TopKIntersection
from tests.metrics.battery import PAIRWISE

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
K = 20
SHAPE = (2, 11, 12)
# Whole numbers: no rounding, so a scaled map has exactly the same ties.
drawn = hnp.arrays(np.int64, SHAPE, elements=st.integers(-50, 50)).map(
    lambda m: torch.from_numpy(m).double()
)

# Constant maps fall under the rule for 0/0, which asks for equal maps, not for equal order.
varied = drawn.filter(lambda m: bool((m.amin((1, 2)) < m.amax((1, 2))).all()))


TOP = ("top_k_intersection", "lens_recall", "lens_precision", "sign_agreement", "rank_agreement")
ONE_WAY = ("relative_l2", "lens_recall", "lens_precision")


def make(name):
    return build(name, k=K) if name in TOP else build(name)


def assert_same(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@quick
@given(a=drawn, b=drawn, name=st.sampled_from(sorted(PAIRWISE)))
def test_bounds_identity_and_symmetry(a, b, name):
    metric = make(name)
    low, high = metric.bounds
    value = metric(a, b)
    assert ((low <= value) & (value <= high)).all()
    best = high if metric.higher_is_more_stable else low
    assert_same(metric(a, a), torch.full((2,), best, dtype=torch.float64))
    if name not in ONE_WAY:
        assert_same(metric(b, a), value)


@quick
@given(a=varied, b=varied, c=st.floats(0.01, 100))
def test_rank_metrics_are_blind_to_increasing_maps(a, b, c):
    by_value = ("top_k_intersection", "spearman", "kendall", "lens_recall", "lens_precision", "iou")
    for name in by_value:
        value = make(name)(a, b)
        assert_same(make(name)(c * a, b), value)
        assert_same(make(name)(a, b.sign() * b.abs().sqrt() + 7), value)
    for name in ("sign_agreement", "rank_agreement"):  # by |value|: nothing may be added
        assert_same(make(name)(c * a, b.sign() * b.abs().sqrt()), make(name)(a, b))


@quick
@given(a=varied, b=varied, c=st.floats(0.01, 100))
def test_positive_scaling_elsewhere(a, b, c):
    for name in ("pearson", "cosine", "ssim", "mse", "center_shift", "emd"):
        assert_same(make(name)(c * a, b), make(name)(a, b), atol=1e-9)
    assert_same(make("relative_l2")(c * a, c * b), make("relative_l2")(a, b), atol=1e-9)
    assert_same(build("mse", scale="sum")(c * a, b), build("mse", scale="sum")(a, b))
    unscaled = build("ssim", scale="none")
    assert_same(unscaled(c * a, c * b), unscaled(a, b), atol=1e-9)


@quick
@given(order=st.permutations(range(132)), name=st.sampled_from(["spearman", "kendall", "pearson"]))
def test_an_order_and_its_reverse(order, name):
    a = torch.tensor(order, dtype=torch.float64).view(1, 11, 12)
    assert_same(make(name)(a, -a), torch.tensor([-1.0]).double())


@quick
@given(a=st.permutations(range(132)), b=st.permutations(range(132)))
def test_kendall_within_is_blind_to_increasing_maps_and_to_the_rest(a, b):
    a, b = (torch.tensor(m, dtype=torch.float64).view(1, 11, 12) for m in (a, b))
    metric = build("kendall", within=K)
    value = metric(a, b)
    assert_same(metric(a.square(), b.sqrt() + 7), value)
    assert_same(metric(a, torch.where(a >= 132 - K, b, -b)), value)
    assert_same(metric(a, -b), -value)


@quick
@given(a=drawn, b=drawn, order=st.permutations(range(132)))
def test_pixelwise_metrics_do_not_see_positions(a, b, order):
    move = lambda m: m.flatten(1)[:, list(order)].view_as(m)  # noqa: E731
    for name in ("spearman", "kendall", "pearson", "cosine", "mse", "relative_l2"):
        assert_same(make(name)(move(a), move(b)), make(name)(a, b))


# Degenerate maps: the documented values.

ZERO = torch.zeros(1, 12, 12)
ONE = torch.ones(1, 12, 12)
RAMP = torch.arange(144.0).view(1, 12, 12) - 40


@pytest.mark.parametrize(
    ("name", "clean", "perturbed", "expected"),
    [
        *[(name, ONE, ONE, 1) for name in ("spearman", "kendall", "pearson", "cosine")],
        *[(name, ONE, 2 * ONE, 0) for name in ("spearman", "kendall", "pearson")],
        *[(name, ONE, RAMP, 0) for name in ("spearman", "kendall", "pearson")],
        *[(name, RAMP, ZERO, 0) for name in ("spearman", "kendall", "pearson", "cosine")],
        *[(name, ZERO, ZERO, 1) for name in ("spearman", "kendall", "pearson", "cosine")],
        ("cosine", ONE, 2 * ONE, 1),
        ("cosine", ZERO, ONE, 0),
        ("ssim", ZERO, ONE, 1),
        ("mse", ZERO, ONE, 0),
        ("relative_l2", ZERO, ZERO, 0),
        ("relative_l2", ZERO, RAMP, 1),
        ("relative_l2", RAMP, ZERO, 1),
        ("center_shift", ZERO, ONE, 0),
        ("emd", ZERO, ONE, 0),
        *[(name, ZERO, ONE, 1) for name in ("iou", "lens_recall", "lens_precision")],
        ("sign_agreement", ZERO, ONE, 0),  # the same pixels, but zero is no plus
        ("sign_agreement", ZERO, ZERO, 1),
        ("sign_agreement", -ONE, ONE, 0),
        ("rank_agreement", ZERO, ONE, 1),
        ("rank_agreement", ZERO, -RAMP, 0),  # the middle against the first
        ("top_k_intersection", ZERO, ONE, 1),
        ("top_k_intersection", ZERO, RAMP, 0),  # the first K against the last K
    ],
)
def test_degenerate_maps(name, clean, perturbed, expected):
    assert make(name)(clean, perturbed).item() == pytest.approx(expected, abs=1e-12)


def test_degenerate_maps_of_other_scales():
    assert build("mse", scale="sum")(ZERO, ONE).item() == pytest.approx(144**-2)
    assert build("mse", scale="none")(ZERO, ONE).item() == 1
    assert build("ssim", scale="none")(ONE, ONE).item() == 1
    assert build("ssim", scale="none")(ZERO, ONE).item() < 0.01


def test_center_of_an_empty_map_is_the_middle_of_the_picture():
    corner = torch.zeros(1, 5, 9)
    corner[0, 0, 0] = 1.0
    assert build("center_shift")(torch.zeros(1, 5, 9), corner).item() == math.hypot(2, 4)


@pytest.mark.parametrize("name", ["spearman", "kendall", "pearson", "relative_l2"])
def test_a_map_of_one_pixel(name):
    value = make(name)(torch.ones(1, 1, 1), torch.full((1, 1, 1), 3.0)).item()
    assert value == (2 if name == "relative_l2" else 0)


# Extreme maps: what squares would lose.


@pytest.mark.parametrize("power", [-1000, -300, 300, 1019])
@pytest.mark.parametrize(
    ("name", "options"),
    [("ssim", {"scale": "none"}), ("relative_l2", {}), ("mse", {}), ("mse", {"scale": "sum"})]
    + [(name, {}) for name in ("pearson", "cosine", "spearman", "ssim", "center_shift")]
    + [("kendall", {}), ("emd", {}), ("iou", {}), ("iou", {"threshold": 0.5})]
    + [(name, {"k": K}) for name in TOP],
)
def test_maps_near_the_ends_of_float64(name, options, power):
    r = np.random.default_rng(12)
    a, b = (torch.from_numpy(m) for m in r.uniform(-16, 16, size=(2, 3, 12, 13)))
    metric = build(name, **options)
    far = 2.0**power
    assert_same(metric(far * a, far * b), metric(a, b))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1, -7e-120])
def test_pearson_of_a_constant_map_whose_mean_is_rounded(value):
    constant = torch.full((1, 101, 99), value, dtype=torch.float64)
    noise = torch.randn(constant.shape, generator=torch.Generator().manual_seed(4)).double()
    for a, b in ((constant, noise), (noise, constant), (constant, -constant)):
        assert build("pearson")(a, b).item() == 0
    assert build("pearson")(constant, constant).item() == 1


def test_pearson_of_maps_that_are_nearly_constant():
    a, b = torch.randn(2, 1, 13, 17, generator=torch.Generator().manual_seed(4)).double()
    near = 1e9 + a  # a spread of 1e-9 of the values: 7 of their 16 digits are left
    assert_same(build("pearson")(near, b), build("pearson")(near - 1e9, b))


def test_relative_l2_saturates_instead_of_overflowing():
    assert build("relative_l2")(1e-300 * RAMP.double(), 1e300 * RAMP.double()).item() > 1e308


def test_ssim_keeps_its_bounds_where_rounding_exceeds_the_variance():
    # One window, whose only structure is a corner that hardly weighs, and no C₂ to help.
    a = torch.ones(64, 11, 11, dtype=torch.float64)
    a[:, 0, 0] = -1.0
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(8), dtype=a.dtype)
    b = a * (1 + 1e-9 * noise)
    value = build("ssim", scale="none", data_range=1e-300)(a, b)
    assert ((value <= 1) & (value > 0.999)).all()


# Chance floors: what independent random maps really score.


def test_top_k_chance_floor():
    n, count = 400, 2000
    g = torch.Generator().manual_seed(5)
    a, b = torch.rand(2, count, 20, 20, generator=g)
    metric = TopKIntersection(k=K)
    share = K / n
    assert metric.chance(n) == share
    # |T ∩ T'| is hypergeometric.
    error = math.sqrt(share * (1 - share) * (n - K) / (n - 1) / K / count)
    assert abs(metric(a, b).mean().item() - share) < 3.5 * error
    assert metric.chance(K) == metric.chance(3) == 1.0


@pytest.mark.parametrize("name", ["spearman", "kendall", "pearson"])
def test_correlation_chance_floor(name):
    a, b = torch.rand(2, 200, 12, 12, generator=torch.Generator().manual_seed(6))
    value = make(name)(a, b)
    assert make(name).chance(144) == 0
    assert abs(value.mean().item()) < 3.5 * value.std().item() / math.sqrt(200)


NO_FLOOR = """
    cosine ssim mse relative_l2 center_shift emd lens_recall lens_precision sign_agreement
"""


@pytest.mark.parametrize("name", NO_FLOOR.split())
def test_no_chance_floor_without_a_closed_form(name):
    assert make(name).chance(144) is None


# Misuse.


def test_k_larger_than_the_map_names_k_value_and_pixels():
    with pytest.raises(InvalidInput, match=r"k: 145 .* 144 pixels") as caught:
        build("top_k_intersection", k=145)(RAMP, RAMP)
    assert caught.value.field == "k"


def test_default_k_is_the_papers():
    assert TopKIntersection().k == 1000


@pytest.mark.parametrize("k", [0, -3, 2.5, True])
@pytest.mark.parametrize("name", TOP)
def test_k_must_be_a_positive_whole_number(k, name):
    with pytest.raises(InvalidInput, match="k: must be"):
        METRICS[name](k=k)


@pytest.mark.parametrize("name", TOP)
def test_no_metric_takes_more_pixels_than_there_are(name):
    with pytest.raises(InvalidInput, match=r"k: 145 .* 144 pixels"):
        build(name, k=145)(RAMP, RAMP)
    with pytest.raises(InvalidInput, match=r"within: 145 .* 144 pixels"):
        build("kendall", within=145)(RAMP, RAMP)


@pytest.mark.parametrize("shape", [(1, 10, 30), (1, 30, 10)])
def test_ssim_needs_a_whole_window(shape):
    with pytest.raises(InvalidInput, match="11x11"):
        build("ssim")(torch.rand(shape), torch.rand(shape))


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("ssim", {"scale": "sum"}, "ssim.scale"),
        ("ssim", {"data_range": 0.0}, "ssim.data_range"),
        ("ssim", {"data_range": math.inf}, "ssim.data_range"),
        ("ssim", {"data_range": math.nan}, "ssim.data_range"),
        ("mse", {"scale": "std"}, "mse.scale"),
        ("top_k_intersection", {"k": 0}, "top_k_intersection.k"),
        ("top_k_intersection", {"top": 5}, "top_k_intersection.top"),
        ("spearman", {"k": 5}, "spearman.k"),
        ("kendall", {"within": 1}, "kendall.within"),
        ("lens_recall", {"window": -1}, "lens_recall.window"),
        ("iou", {"share": 0.0}, "iou.share"),
        ("iou", {"share": 1.5}, "iou.share"),
        ("iou", {"share": math.nan}, "iou.share"),
        ("iou", {"threshold": 0.0}, "iou.threshold"),
        ("emd", {"ground": "manhattan"}, "emd.ground"),
        ("spaerman", {}, "metric"),
    ],
)
def test_build_names_what_it_refuses(name, options, field):
    with pytest.raises(InvalidInput) as caught:
        build(name, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["ssim", "mse"])
def test_an_unknown_scale_is_refused_without_build_too(name):
    with pytest.raises(InvalidInput, match="known: minmax"):
        METRICS[name](scale="max")


# Devices.


def test_devices_without_float64_compute_on_the_cpu():
    assert home(torch.device("mps")) == torch.device("cpu")
    assert home(torch.device("cuda:1")) == torch.device("cuda:1")


def test_maps_on_two_devices_are_refused():
    with pytest.raises(InvalidInput, match="perturbed: on meta, but clean is on cpu"):
        build("mse")(RAMP, RAMP.to("meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", PAIRWISE)
def test_cuda_agrees_with_the_cpu(name):
    a, b = torch.randint(-9, 9, (2, 4, 20, 20), generator=torch.Generator().manual_seed(7))
    value = make(name)(a.float().cuda(), b.float().cuda())
    assert value.is_cuda
    assert_same(value.cpu(), make(name)(a.float(), b.float()), atol=1e-10)


def test_examples_in_the_docstring():
    result = doctest.testmod(robustlab.metrics)
    assert result.attempted > 0
    assert result.failed == 0
