"""LIME and KernelSHAP against their authors' code, captum, scikit-image and brute force."""

import warnings
from itertools import combinations
from math import comb, factorial
from unittest import mock

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from lime.lime_image import LimeImageExplainer
from scipy.stats import chisquare
from skimage.color import label2rgb
from skimage.segmentation import slic

from robustlab.core.errors import InvalidInput
from robustlab.core.score import score_of
from robustlab.core.wrapping import Counted
from robustlab.explainers import Lime, build
from robustlab.explainers.surrogate.coalitions import hidden
from robustlab.explainers.surrogate.kernel_shap import KernelSHAP
from robustlab.explainers.surrogate.superpixels import counts, segment
from tests.explainers.variants.surrogate import patches
from tests.nets import Normalised, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
GRID = {"superpixels": "grid", "segments": 9}
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def network():
    return seeded(lambda: Normalised(VGGLike()))


def shares(raw, regions):
    """The raw map's value of every superpixel ``[M]``; each must be constant."""
    values = [raw[0][regions == m].unique() for m in range(int(regions.max()) + 1)]
    assert all(len(value) == 1 for value in values)
    return torch.cat(values)


# --- superpixels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "segments", "cells"),
    [((4, 6), 6, (2, 3)), ((12, 12), 9, (3, 3)), ((5, 5), 50, (5, 5)), ((9, 1), 2, (2, 1)),
     ((1, 9), 3, (1, 3)), ((7, 5), 2, (2, 1))],
)  # fmt: skip
def test_a_grid_has_nearly_square_cells_and_none_empty(shape, segments, cells):
    found = segment(torch.zeros(2, 1, *shape), "grid", segments)
    rows = [len(part) for part in np.array_split(np.arange(shape[0]), cells[0])]
    columns = [len(part) for part in np.array_split(np.arange(shape[1]), cells[1])]
    sizes = np.outer(sorted(rows), sorted(columns)).flatten()
    assert torch.equal(found[0], found[1])
    assert sorted(torch.bincount(found[0].flatten()).tolist()) == sorted(sizes.tolist())
    assert torch.equal(found[0][:, 0], found[0][:, 0].sort().values)


@pytest.mark.parametrize("method", ["slic", "felzenszwalb", "quickshift", "grid"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_superpixels_are_numbered_without_gaps_and_belong_to_the_image(method, channels):
    images = patches(channels) if method != "quickshift" else pictures(size=24, channels=channels)
    found = segment(images, method, 16)
    for image, parts, count in zip(images, found, counts(found), strict=True):
        assert count > 1
        assert parts.unique().tolist() == list(range(count))
        assert torch.equal(segment(image[None], method, 16)[0], parts)
        backwards = image.transpose(1, 2).contiguous().transpose(1, 2)  # other strides
        assert torch.equal(segment(backwards[None], method, 16)[0], parts)


def test_slic_is_scikit_images():
    images = patches()
    expected = slic(images[1].permute(1, 2, 0).numpy(), n_segments=9, start_label=0)
    assert np.array_equal(segment(images, "slic", 9)[1].numpy(), expected)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (torch.zeros(3, 3, 12, 12), {"superpixels": "felzenszwalb"}, "single part.*grid.*rise"),
        (pictures(size=1), {"superpixels": "grid"}, "single part in an image of 1x1"),
        (pictures(), {**GRID, "samples": 9}, "an image has 9 .* but 9 samples .*fewer segments"),
    ],
)
def test_unsuitable_superpixels_are_refused(name, images, options, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **options).explain(network(), images.double(), TARGETS)
    assert caught.value.field == "superpixels"


def test_mean_colours_are_scikit_images():
    images = patches()
    regions = segment(images, "slic", 9)
    for image, parts, empty in zip(images, regions, hidden(images, regions, "mean"), strict=True):
        picture = image.permute(1, 2, 0).numpy()
        expected = label2rgb(parts.numpy(), picture, kind="avg", bg_label=-1)
        np.testing.assert_allclose(empty.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_a_map_is_the_same_to_the_bit_in_any_batch(name):
    net, images = network().float(), patches().float()
    explainer = build(name, segments=9, samples=40)
    whole = explainer.explain(net, images, TARGETS, ids=["a", "b", "c"])
    for i in range(3):
        alone = explainer.explain(net, images[i : i + 1], TARGETS[i : i + 1], ids=["abc"[i]])
        assert torch.equal(alone[0], whole[i])


# --- LIME ------------------------------------------------------------------------------------


class Given(Lime):
    """LIME over the rows that its authors' code draws for seed 0."""

    def _draw(self, count, name):
        rows = np.random.RandomState(0).randint(0, 2, self.samples * count)
        rows = torch.from_numpy(rows.reshape(self.samples, count)) == 1
        rows[0] = True
        return rows


def authors(net, image, target, regions, samples, **options):
    """Weights of the superpixels by `lime_image`, over all classes' probabilities."""

    def classify(pictures):
        with torch.no_grad():
            return net(torch.from_numpy(pictures).permute(0, 3, 1, 2)).softmax(1).numpy()

    width = options.pop("kernel_width", 0.25)
    explainer = LimeImageExplainer(kernel_width=width, feature_selection="none", random_state=0)
    found = explainer.explain_instance(
        image.permute(1, 2, 0).numpy(),
        classify,
        labels=(target,),
        top_labels=None,
        num_samples=samples,
        segmentation_fn=lambda _: regions.numpy(),
        random_seed=0,
        **options,
    )
    return torch.tensor([weight for _, weight in sorted(found.local_exp[target])])


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({}, {"hide_color": None}),
        ({"baseline": 0.0}, {"hide_color": 0}),
        ({"baseline": 0.5, "kernel_width": 0.7}, {"hide_color": 0.5, "kernel_width": 0.7}),
    ],
    ids=str,
)
def test_lime_equals_its_authors_code(mine, theirs):
    net, images, explainer = network(), patches(), Given(segments=9, samples=40, **mine)
    raw = explainer.explain(net, images, TARGETS)
    regions = segment(images, "slic", 9)
    for i in range(3):
        expected = authors(net, images[i], int(TARGETS[i]), regions[i], 40, **theirs)
        torch.testing.assert_close(shares(raw[i], regions[i]), expected, **EXACT)


def test_other_kernels_and_unweighted_rows_would_not_equal_it():
    net, images, regions = network(), patches(), segment(patches(), "slic", 9)
    expected = authors(net, images[0], 1, regions[0], 40, hide_color=None)
    for width in (0.25 / 2**0.5, 1e6):  # without the code's square root; without a kernel
        other = Given(segments=9, samples=40, kernel_width=width).explain(net, images, TARGETS)
        assert float((shares(other[0], regions[0]) / expected - 1).abs().max()) > 1e-2


def captum_lime(net, images, i, regions, rows, **similarity):
    scores = lambda copies: score_of(net(copies), TARGETS[i].expand(len(copies)), "prob")  # noqa: E731

    def generate(*_, **__):
        yield from rows.long().split(1)

    oracle = captum.attr.Lime(scores, SkLearnRidge(alpha=1.0), perturb_func=generate, **similarity)
    return oracle.attribute(
        images[i : i + 1], baselines=0.5, feature_mask=regions[i][None, None], n_samples=len(rows),
        perturbations_per_eval=7, return_input_shape=False,
    )[0].double()  # fmt: skip


def test_lime_equals_captum_where_captum_is_told_to_do_the_same():
    """Ridge for its Lasso, and distances between rows for its distances between pictures."""
    net, images, regions = network(), patches(), segment(patches(), "slic", 9)
    explainer = Lime(segments=9, samples=40, baseline=0.5)
    raw = explainer.explain(net, images, TARGETS, ids=["a", "b", "c"])

    def kernel(_, __, row, **___):
        distance = 1 - torch.cosine_similarity(row.double(), torch.ones_like(row).double())
        return torch.exp(-distance.square() / (2 * 0.25**2))

    with torch.random.fork_rng(devices=[]):  # captum's loader of samples draws from it
        for i in range(3):
            rows = explainer._draw(counts(regions)[i], "abc"[i])
            mine = shares(raw[i], regions[i])
            oracle = captum_lime(net, images, i, regions, rows, similarity_func=kernel)
            scale = float(oracle.abs().max())
            torch.testing.assert_close(mine, oracle, rtol=0, atol=1e-4 * scale)  # it fits float32
            default = captum_lime(net, images, i, regions, rows)
            assert float((mine - default).abs().max()) > 0.05 * scale


def test_lime_of_an_additive_model_is_its_parts_when_the_penalty_is_small():
    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    net = lambda x: torch.stack([(x * weight).sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)  # noqa: E731
    raw = Lime(**GRID, alpha=1e-9, baseline=0.3, score="logit").explain(
        net, pictures()[:2], torch.tensor([0, 1])
    )
    regions = segment(pictures(), "grid", 9)[0]
    gain = (pictures()[:2] - 0.3) * torch.stack([weight, -torch.ones_like(weight)])
    for i in range(2):
        parts = torch.stack([gain[i][:, regions == m].sum() for m in range(9)])
        torch.testing.assert_close(shares(raw[i], regions), parts, rtol=1e-6, atol=1e-6)


def test_half_of_the_rows_entries_are_shown():
    rows = Lime(samples=2000)._draw(20, "a")
    assert rows[0].all()
    assert abs(float(rows[1:].double().mean()) - 0.5) < 0.01  # three standard deviations: 0.0075
    assert not torch.equal(rows, Lime(samples=2000)._draw(20, "b"))
    assert not torch.equal(rows, Lime(samples=2000, seed=1)._draw(20, "a"))


# --- KernelSHAP ------------------------------------------------------------------------------


def worth(net, image, target, regions, baseline, score="logit"):
    """Score by coalition, one picture at a time: v of every subset of superpixels."""
    found = {}
    for size in range(int(regions.max()) + 2):
        for chosen in combinations(range(int(regions.max()) + 1), size):
            shown = torch.isin(regions, torch.tensor(chosen))
            picture = torch.where(shown, image, baseline)
            with torch.no_grad():
                found[frozenset(chosen)] = score_of(net(picture[None]), target[None], score)[0]
    return found


def shapley(v, count):
    """Definition: each player's mean gain over the orders in which players may come."""
    values = []
    for player in range(count):
        others = [s for s in v if player not in s]
        gains = [
            factorial(len(s)) * factorial(count - len(s) - 1) * (v[s | {player}] - v[s])
            for s in others
        ]
        values.append(sum(gains) / factorial(count))
    return torch.stack(values)


@pytest.mark.parametrize("score", ["logit", "prob"])
def test_with_room_for_all_coalitions_it_is_the_shapley_value(score):
    net, images, regions = network(), pictures(), segment(pictures(), "grid", 9)
    raw = KernelSHAP(**GRID, samples=512, baseline=0.4, score=score).explain(net, images, TARGETS)
    v = worth(net, images[2], TARGETS[2], regions[2], 0.4, score)
    torch.testing.assert_close(shares(raw[2], regions[2]), shapley(v, 9), **EXACT)
    flat = KernelSHAP(**GRID, samples=512, baseline=0.4, score=score)
    with mock.patch.object(KernelSHAP, "_kernel", lambda _, size, __: torch.ones_like(size)):
        other = flat.explain(net, images, TARGETS)
    assert float((other / raw - 1).abs().max()) > 1e-2, "the kernel must matter here"


def test_shapley_values_equal_captum():
    net, images, regions = network(), pictures(), segment(pictures(), "grid", 4)
    raw = KernelSHAP(superpixels="grid", segments=4, samples=16, baseline=0.4).explain(
        net, images, TARGETS
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        oracle = captum.attr.ShapleyValues(net).attribute(
            images, baselines=0.4, target=TARGETS, feature_mask=regions[:1, None]
        )
    torch.testing.assert_close(raw, oracle[:, :1].double(), rtol=1e-5, atol=0)  # in float32


def constrained(rows, v):
    """The regression with its constraint, by the equations of Lagrange."""
    z, target = rows[1:-1].double(), v[1:-1] - v[0]
    count = z.shape[1]
    system = torch.zeros(count + 1, count + 1).double()
    system[:count, :count] = 2 * z.T @ z
    system[:count, count] = system[count, :count] = 1
    right = torch.cat([2 * z.T @ target, (v[-1] - v[0])[None]])
    return torch.linalg.solve(system, right)[:count]


def test_a_sample_of_coalitions_is_fitted_under_the_constraint():
    net, images = network(), patches()
    regions = segment(images, "slic", 9)
    explainer = KernelSHAP(segments=9, samples=101, baseline=0.4)
    raw = explainer.explain(net, images, TARGETS, ids=["a", "b", "c"])
    for i in range(3):
        rows = explainer._coalitions(counts(regions)[i], "abc"[i])
        shown = rows[:, regions[i]].unsqueeze(1)
        with torch.no_grad():
            copies = torch.where(shown, images[i], 0.4)
            v = net(copies)[:, TARGETS[i]]
        torch.testing.assert_close(shares(raw[i], regions[i]), constrained(rows, v), **EXACT)


def test_a_sample_of_coalitions_equals_captum_as_far_as_float32_goes():
    net, images, regions = network(), pictures(), segment(pictures(), "grid", 9)
    explainer = KernelSHAP(**GRID, samples=100, baseline=0.4)
    mine = shares(explainer.explain(net, images, TARGETS, ids=["a", "b", "c"])[0], regions[0])
    rows = explainer._coalitions(9, "a")

    def generate(*_, **__):
        yield from rows.long().split(1)

    oracle = captum.attr.KernelShap(net)
    oracle.perturb_func = generate
    with torch.random.fork_rng(devices=[]):
        found = oracle.attribute(
            images[:1], baselines=0.4, target=1, feature_mask=regions[:1, None],
            n_samples=100, perturbations_per_eval=25, return_input_shape=False,
        )  # fmt: skip
    scale = float(mine.abs().max())
    torch.testing.assert_close(found[0].double(), mine, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("samples", [18, 19, 40])
def test_any_sample_explains_the_whole_difference_and_an_additive_model_exactly(samples):
    net, images = network(), pictures()
    raw = KernelSHAP(**GRID, samples=samples, baseline=0.0).explain(net, images, TARGETS)
    regions = segment(images, "grid", 9)
    with torch.no_grad():
        gap = (net(images) - net(0 * images)).gather(1, TARGETS[:, None]).squeeze(1)
    total = torch.stack([shares(raw[i], regions[i]).sum() for i in range(3)])
    torch.testing.assert_close(total, gap, **EXACT)

    weight = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    additive = lambda x: (x * weight).sum((1, 2, 3))[:, None] + 5  # noqa: E731
    raw = KernelSHAP(**GRID, samples=40, baseline=0.3).explain(
        additive, images, torch.zeros(3, dtype=torch.int64)
    )
    parts = torch.stack([((images[1] - 0.3) * weight)[:, regions[1] == m].sum() for m in range(9)])
    torch.testing.assert_close(shares(raw[1], regions[1]), parts, **EXACT)


def test_coalitions_come_in_complements_with_sizes_in_proportion_to_the_kernel():
    rows = KernelSHAP(samples=4002)._coalitions(12, "a")
    assert not rows[0].any()
    assert rows[-1].all()
    drawn, mirrored = rows[1:-1:2], rows[2:-1:2]
    assert torch.equal(drawn, ~mirrored)
    found = torch.bincount(drawn.sum(1), minlength=12)[1:12].numpy()
    share = np.array([11 / (comb(12, k) * k * (12 - k)) * comb(12, k) for k in range(1, 12)])
    assert chisquare(found, found.sum() * share / share.sum()).pvalue > 0.01
    inside = torch.bincount(drawn.nonzero()[:, 1], minlength=12).numpy()
    assert chisquare(inside).pvalue > 0.01
    assert not torch.equal(rows, KernelSHAP(samples=4002)._coalitions(12, "b"))


def test_few_superpixels_cost_only_their_coalitions():
    counted = Counted(network())
    KernelSHAP(superpixels="grid", segments=4, samples=100).explain(counted, pictures(), TARGETS)
    assert (counted.forwards, counted.backwards) == (3 * 2**4, 0)


def test_an_unlucky_draw_gives_the_shortest_solution():
    """All pairs alike: what they leave open stays at equal shares, the constraint holds."""
    rows = torch.tensor([[0] * 4, [1, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 1], [1] * 4])
    v = torch.tensor([1.0, 3.0, 4.0, 3.0, 4.0, 7.0]).double()
    found = KernelSHAP(samples=8)._fit(rows == 1, v)
    # of the 6 to share, the pair leaves 2 or 3 to the first and 4 or 3 to the other three
    torch.testing.assert_close(found, torch.tensor([2.5, 3.5 / 3, 3.5 / 3, 3.5 / 3]).double())
