"""Our figures against those of quantus 0.6, which are frozen in tests/metrics/quantus.

Where the two differ by definition, a test makes the one change that is named and finds their
figure. Inputs are exact in binary and both sides compute in float64, so that the same formula
agrees to ROUNDING; a wider tolerance says where it comes from.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from robustlab.core.batch import make_batch
from robustlab.core.judge import pose
from robustlab.core.streaming import logits_of
from robustlab.explainers import build as explainer
from robustlab.metrics import build
from robustlab.metrics.imputation import imputed
from robustlab.metrics.infidelity import Infidelity
from robustlab.metrics.randomisation import MPRT, RandomLogit
from tests.metrics.quantus.net import PIXEL, Net

FILE = Path(__file__).parent / "quantus" / "fixtures.json"
FOUND = json.loads(FILE.read_text(encoding="utf-8"))
PAIRS, SINGLE, REGIONS, MODEL = (FOUND[part] for part in ("pairs", "single", "regions", "model"))
REMOVAL, STABILITY, RANDOM = (MODEL[part] for part in ("removal", "stability", "randomisation"))
ROUNDING = 1e-11
CONSTANT = slice(4, 6)  # of the pairs: one constant map, two
VARIED = slice(0, 4)


def assert_close(got, expected, tolerance=ROUNDING):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=tolerance, atol=tolerance)


def told(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def grid(numbers):
    """Maps and pixels are stored as whole numbers of 1/32."""
    return told(numbers) / PIXEL


def pair(part=slice(None)):
    return grid(PAIRS["clean"])[part], grid(PAIRS["other"])[part]


@cache
def problem():
    """The fixtures' pictures, explained by the signed gradient of the predicted class."""
    net, images = Net(MODEL["weights"]).eval(), grid(MODEL["images"])
    batch = make_batch(images, torch.full((len(images),), -1), ["one", "two", "three"])
    posed = pose(net, explainer("gradient", post="signed"), batch)
    assert_close(posed.maps.unsqueeze(1), MODEL["maps"])
    assert posed.targets.tolist() == MODEL["targets"]
    return posed


def test_the_fixtures_say_how_they_were_made():
    assert FOUND["versions"]["quantus"] == "0.6.0"
    assert FOUND["command"] == "python -m tests.metrics.quantus.make_fixtures"
    assert FILE.stat().st_size < 200_000


# Two maps.


@pytest.mark.parametrize("name", ["spearman", "kendall", "pearson"])
def test_correlations(name):
    assert_close(build(name)(*pair(VARIED)), PAIRS[name][VARIED])
    assert PAIRS[name][CONSTANT] == [None, None]  # they have no number where we have 0
    assert build(name)(*pair(CONSTANT)).tolist() == [0, 0]


def test_cosine_is_one_minus_their_distance():
    assert_close(1 - build("cosine")(*pair()), PAIRS["cosine_distance"])


def test_mse_of_maps_as_they_are():
    assert_close(build("mse", scale="none")(*pair()), PAIRS["mse"])


def test_ssim_differs_by_its_window():
    """Theirs: a flat 7x7 window, sample variances, the pair's joint range. Ours: a Gaussian."""
    ours = build("ssim", scale="none")(*pair())
    bell = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for i, (a, b) in enumerate(zip(*(m.numpy() for m in pair()), strict=True)):
        span = max(a.max(), b.max()) - min(a.min(), b.min())
        assert_close(structural_similarity(a, b, win_size=7, data_range=span), PAIRS["ssim"][i])
        assert_close(structural_similarity(a, b, data_range=span, **bell), ours[i])
        line = {"win_size": 7, "data_range": span}
        flat = structural_similarity(a.ravel(), b.ravel(), **line)
        assert_close(flat, PAIRS["ssim_of_flattened"][i])  # what its metrics take: seven in a row
    apart = (ours - told(PAIRS["ssim"])).abs()[VARIED]
    assert apart.max() > 0.01


# One map.


def test_sparseness_with_their_shift():
    maps = grid(SINGLE["maps"])
    assert_close(build("sparseness").describe(maps.abs() + 1e-7), SINGLE["sparseness"])
    assert_close(
        build("sparseness").describe(maps)[[0, 1, 3]],
        np.array(SINGLE["sparseness"])[[0, 1, 3]],
        1e-7,
    )
    # one pixel of 256 with value v: the shift takes 255 · 1e-7 / v off the index
    lost = build("sparseness").describe(maps)[2].item() - SINGLE["sparseness"][2]
    assert lost == pytest.approx(255 * 1e-7 / maps[2].max().item(), rel=0.01)


def test_complexity_but_for_the_number_in_their_logarithm():
    """They add 1e-12 to p inside the logarithm, so 0 ≤ ours − theirs ≤ n · 1e-12."""
    maps = grid(SINGLE["maps"])
    gap = build("complexity").describe(maps) - told(SINGLE["complexity"])
    n = maps[0].numel()
    assert ((gap >= -1e-14) & (gap <= n * 1e-12 + 1e-14)).all()
    p = maps.abs().flatten(1) / maps.abs().sum((1, 2)).unsqueeze(1)
    assert_close(-(p * (p + 1e-12).log()).sum(1), SINGLE["complexity"], 1e-14)


# One map and a region: without ties and signed, positive, magnitudes; tied; constant; no region.

MAPS, INSIDE = grid(REGIONS["maps"]), torch.tensor(REGIONS["inside"]).bool()
UNTIED, POSITIVE, NO_REGION = slice(0, 3), [1, 2, 3, 4], 5


def test_pointing_game_without_ties():
    got = build("pointing_game").measure(MAPS, INSIDE)
    assert got[UNTIED].bool().tolist() == REGIONS["pointing_game"][UNTIED]


def test_pointing_game_with_ties():
    """They count any of the largest pixels, we the first: theirs is the best of ours."""
    for i in (3, 4):
        largest = (MAPS[i] == MAPS[i].max()).nonzero().tolist()
        hits = []
        for row, column in largest:
            raised = MAPS[i].clone()
            raised[row, column] += 1
            hits.append(build("pointing_game").measure(raised[None], INSIDE[i : i + 1]).item())
        assert len(hits) > 1 and max(hits) == REGIONS["pointing_game"][i]
        assert hits[0] == build("pointing_game").measure(MAPS[i : i + 1], INSIDE[i : i + 1]).item()
        assert min(hits) == 0  # the canary: a hit is no property of the map there


def test_a_region_without_pixels():
    """Theirs is no number, and a hit in the pointing game (NaN as a truth value); ours 0."""
    for name in ("relevance_mass_accuracy", "relevance_rank_accuracy", "pointing_game"):
        assert REGIONS[name][NO_REGION] in (None, True)
        assert build(name).measure(MAPS, INSIDE)[NO_REGION] == 0


@pytest.mark.parametrize("name", ["relevance_mass_accuracy", "energy_in_region"])
def test_mass_of_maps_without_negative_values(name):
    theirs = np.array(REGIONS["relevance_mass_accuracy"], dtype=float)
    assert_close(build(name).measure(MAPS, INSIDE)[POSITIVE], theirs[POSITIVE])


def test_mass_of_a_signed_map():
    """They divide signed sums, we the positive part; so did map 1, which is map 0 clamped."""
    signed, inside = MAPS[0], INSIDE[0]
    theirs = REGIONS["relevance_mass_accuracy"][0]
    assert_close((signed * inside).sum() / signed.sum(), theirs)
    ours = build("relevance_mass_accuracy").measure(MAPS[:1], INSIDE[:1]).item()
    assert_close((signed.clamp(min=0) * inside).sum() / signed.clamp(min=0).sum(), ours)
    assert abs(ours - theirs) > 1e-3


def test_rank_accuracy_without_ties():
    theirs = REGIONS["relevance_rank_accuracy"]
    got = build("relevance_rank_accuracy").measure(MAPS, INSIDE)
    assert_close(got[[0]], theirs[:1])
    assert len(set(MAPS[0].flatten().tolist())) == MAPS[0].numel()


def test_rank_accuracy_with_their_order_of_ties():
    """Their sort is not stable. A map of their places instead of values has no ties left."""
    order = torch.tensor(REGIONS["order"])
    places = order.argsort(1).view_as(MAPS).double()
    got = build("relevance_rank_accuracy").measure(-places, INSIDE)
    assert_close(got[:NO_REGION], REGIONS["relevance_rank_accuracy"][:NO_REGION])
    ours = build("relevance_rank_accuracy").measure(MAPS, INSIDE)
    assert (ours[3] - got[3]).abs() > 0  # the order of equal pixels is all that differs


# Pixels removed.


def probability(images):
    logits = logits_of(problem().model, images)
    return torch.softmax(logits, 1).gather(1, problem().targets.unsqueeze(1)).squeeze(1)


def assess(metric, maps):
    p = problem()
    return metric.assess(p.model, p.images, p.targets, maps, p.ids)


def test_pixel_flipping_and_deletion():
    """Theirs is a curve that begins after the first step; with p_0 it has our two figures."""
    curve = told(REMOVAL["pixel_flipping"]["curve"])
    start, steps = probability(problem().images), curve.shape[1]
    assert steps * REMOVAL["pixel_flipping"]["features_in_step"] == problem().maps[0].numel()
    options = {"steps": steps, "baseline": "black"}
    lost = start - (start + curve.sum(1)) / (steps + 1)
    assert_close(assess(build("pixel_flipping", **options), problem().maps), lost)
    # their area lies between their first point and their last, in steps; ours is a share
    area = told(REMOVAL["pixel_flipping"]["area"]) + (start + curve[:, 0]) / 2
    assert_close(assess(build("deletion", **options), problem().maps), area / steps)
    assert_close(torch.trapezoid(curve, dim=1), REMOVAL["pixel_flipping"]["area"])


def test_region_perturbation_is_flipping_by_a_map_of_squares():
    """The sum of each square in the place of its pixels: equal ones go together."""
    side = REMOVAL["region_perturbation"]["side"]
    sums = problem().maps.unfold(1, side, side).unfold(2, side, side).sum((3, 4))
    squares = sums.repeat_interleave(side, 1).repeat_interleave(side, 2)
    loss = told(REMOVAL["region_perturbation"]["curve"])
    metric = build("pixel_flipping", steps=loss.shape[1], baseline="black")
    assert_close(assess(metric, squares), loss.sum(1) / (loss.shape[1] + 1))


class Grids(Infidelity):
    """Their perturbations: the squares of a grid go black one by one, and stay black."""

    def gone(self, number, j):
        return number <= j

    def _perturbed(self, visible, ids, j):
        side, across = REMOVAL["infidelity"]["side"], visible.shape[-1]
        rows, columns = torch.meshgrid(*2 * [torch.arange(across) // side], indexing="ij")
        change = visible * self.gone(rows * (across // side) + columns, j)
        return change, change.mean(1)


class PutBack(Grids):
    """One square at a time, as one might think."""

    def gone(self, number, j):
        return number == j


def test_infidelity_with_their_perturbations():
    """Ours draws squares or noise; the formula is the same, without the best scale."""
    samples = problem().maps[0].numel() // REMOVAL["infidelity"]["side"] ** 2
    options = {"perturbation": "square", "baseline": "black", "normalise": False}
    theirs = told(REMOVAL["infidelity"]["value"])
    assert_close(assess(Grids(samples=samples, **options), problem().maps), theirs)
    canary = assess(PutBack(samples=samples, **options), problem().maps)
    assert (canary - theirs).abs().min() > 1e-2


def test_imputed_pictures():
    images, gone = grid(MODEL["images"]), torch.tensor(REMOVAL["imputation"]["gone"])
    holes = torch.zeros(len(images), images[0].numel(), dtype=torch.bool)
    holes.scatter_(1, gone, True)
    assert_close(
        imputed(images, holes.view(-1, *images.shape[2:])), REMOVAL["imputation"]["images"]
    )


def test_road_without_noise():
    """Their number is whether the class is still predicted, at each percentage, over images."""
    hits = told(REMOVAL["road"]["hits"])
    percentages = tuple(REMOVAL["road"]["percentages"])
    options = {"noise": 0, "reads": "accuracy"}
    assert_close(
        assess(build("road", percentages=percentages, **options), problem().maps), hits.mean(1)
    )
    for k, one in enumerate(percentages):
        got = assess(build("road", percentages=(one,), **options), problem().maps)
        assert got.tolist() == hits[:, k].tolist()
    assert 0 < hits.mean() < 1


# Stability, with their steps in the place of our noise.

RADIUS = 0.25  # above every stored step, and a power of two: nothing is rounded
LED = 100.0


@pytest.fixture
def stored(monkeypatch):
    """Copy j of an image is the image and the stored step j."""

    def steps(like, ids, seed, purpose):
        j = int(purpose.rpartition("/")[2])
        own = [problem().ids.index(name) for name in ids]
        return grid(MODEL["steps"])[j, own].view_as(like) / RADIUS

    monkeypatch.setattr("robustlab.metrics.nearby.uniform", steps)


def sampled(metric, posed=None, **options):
    def never(*_):
        raise AssertionError("nothing is searched")

    around = {"radius": RADIUS, "samples": len(MODEL["steps"]), "clip": False}
    return build(metric, **around, **options).examine(posed or problem(), never)


@pytest.mark.parametrize("name", ["max_sensitivity", "avg_sensitivity"])
def test_sensitivity(name, stored):
    assert_close(sampled(name), STABILITY[name])


def test_local_lipschitz_but_for_the_number_in_their_denominator(stored):
    """They add 1e-10 to distances, of which the shortest here is 0.4."""
    shortest = grid(MODEL["steps"]).flatten(2).norm(dim=2).min().item()
    assert_close(sampled("local_lipschitz"), STABILITY["local_lipschitz"], 1e-10 / shortest)


RELATIVE = [
    ("ris", "relative_input", {}),
    ("ros", "relative_output", {}),
    ("rrs", "relative_representation", {"layer": "second"}),
]
RELATIVES = pytest.mark.parametrize(("metric", "name", "more"), RELATIVE)


def led(i):
    """Image i alone, on a network in which its class leads by far and nothing else is different."""
    p = problem()
    net = Net(MODEL["weights"]).eval()
    with torch.no_grad():
        net.last.bias[p.targets[i]] += LED
    one = slice(i, i + 1)
    own = {part: getattr(p, part)[one] for part in ("images", "targets", "ids", "maps", "raw")}
    return replace(p, model=net, **own)


@RELATIVES
def test_relative_stability_where_no_prediction_changes(metric, name, more, stored):
    """With their 1e-6 for zeros, and a class that cannot change: their unconditional figure."""
    for i, theirs in enumerate(STABILITY[name]):
        got = sampled(metric, led(i), eps_min=1e-6, **more)
        assert_close(got, [theirs], 1e-10)  # a logit near 100 has lost two digits


@RELATIVES
def test_relative_stability_where_predictions_change(metric, name, more, stored):
    """One changed prediction leaves them without a number; we go on with the other copies."""
    images, steps = problem().images, grid(MODEL["steps"])
    classes = [logits_of(problem().model, images + step).argmax(1) for step in steps]
    kept = (torch.stack(classes) == problem().targets).all(0).tolist()
    strict = STABILITY[f"{name}_strict"]
    assert [value is not None for value in strict] == kept and len({*kept}) == 2
    ours = sampled(metric, eps_min=1e-6, **more)
    assert torch.isfinite(ours).all() and (ours > 0).all()
    for i, value in enumerate(strict):
        if value is not None:
            assert_close(ours[i], value)
        assert ours[i] <= STABILITY[name][i] * (1 + ROUNDING)


def test_relative_input_stability_of_black_pixels(stored):
    """Their 1e-6 makes black rows all that counts in the first picture; we leave them out."""
    theirs, plain = told(STABILITY["relative_input"]), sampled("ris")
    black = (problem().images == 0).flatten(1).any(1).tolist()
    assert black == [True, False, False]
    assert theirs[0] < 0.01 and plain[0] > 1
    kept = [i for i, value in enumerate(STABILITY["relative_input_strict"]) if value is not None]
    # and without black pixels the rule for them plays no part
    assert_close(plain[kept], theirs[kept])


# Other weights, another class.


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_randomisation_of_layers(order):
    """Their mean holds the similarity of the unchanged network as well, which is 1."""
    theirs = dict(RANDOM[order]["layers"])
    unchanged = theirs.pop("original")
    assert_close(unchanged, [1, 1, 1])
    ours = MPRT(order=order).examine(problem(), None)
    assert_close(ours, np.mean(list(theirs.values()), axis=0))
    layers = len(theirs)
    assert_close((1 + layers * ours) / (layers + 1), RANDOM[order]["average"])
    assert np.abs(ours.numpy() - RANDOM[order]["average"]).min() > 0.1


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_everything_random_at_once_is_their_last_network(order):
    theirs = list(RANDOM[order]["layers"].values())[-1]
    assert_close(MPRT(order=order, stages=1).examine(problem(), None), theirs)


def test_random_logit_with_their_classes():
    """Ids are tried until the class that we draw for them is the one that they drew."""
    p, wanted = problem(), RANDOM["random_logit"]["classes"]
    metric, ids = RandomLogit(similarity="spearman"), []
    for i, other in enumerate(wanted):
        one = replace(p, targets=p.targets[i : i + 1], images=p.images[i : i + 1])
        tries = (replace(one, ids=(f"try {n}",)) for n in range(50))
        found = (t.ids[0] for t in tries if metric.other_classes(t).item() == other)
        ids.append(next(found))
    named = replace(p, ids=tuple(ids))
    assert metric.other_classes(named).tolist() == wanted
    assert_close(metric.examine(named, None), RANDOM["random_logit"]["value"])
