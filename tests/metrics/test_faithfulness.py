"""Deletion, insertion and pixel flipping: against loops in numpy, closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from robustlab.core import streaming
from robustlab.core.errors import InvalidInput
from robustlab.metrics import build
from robustlab.metrics.faithfulness import Deletion
from tests.metrics.asking import IDS, PIXELS, SIDE, TARGETS, Confident, some_maps
from tests.nets import VGGLike, pictures, seeded

ORDERED = ("deletion", "insertion", "pixel_flipping")
BASELINES = ("black", "mean", "blur")
STEPS = 7  # 144 pixels make parts of 20 and 21


# --- the same numbers, pixel by pixel -------------------------------------------------------


def stand_in(image, baseline):
    """What removed pixels show, in numpy and SciPy."""
    if baseline == "black":
        return np.zeros_like(image)
    if baseline == "mean":
        return np.stack([np.full(c.shape, c.mean()) for c in image])
    sigma = 0.15 * SIDE
    radius = int(np.ceil(3 * sigma))
    return np.stack([gaussian_filter(c, sigma, mode="mirror", radius=radius) for c in image])


def probability(net, image, target):
    logits = net(torch.from_numpy(image)[None]).detach().numpy()[0]
    odds = np.exp(logits - logits.max())
    return odds[target] / odds.sum()


def curve(net, start, end, target, importance, steps):
    """Shares and probabilities; one pixel after the other changes from start to end."""
    values = importance.ravel()
    order = sorted(range(values.size), key=lambda i: (-values[i], i))
    cuts = [k * values.size // steps for k in range(steps + 1)]
    now, said = start.copy(), []
    for i in range(values.size + 1):
        if i in cuts:
            said.append(probability(net, now, target))
        if i < values.size:
            row, column = divmod(order[i], SIDE)
            now[:, row, column] = end[:, row, column]
    return [cut / values.size for cut in cuts], said


def area(shares, said):
    return sum((b - a) * (p + q) / 2 for (a, b), (p, q) in
               zip(pairwise(shares), pairwise(said), strict=True))  # fmt: skip


def by_hand(name, net, image, target, importance, baseline, steps):
    end = stand_in(image, baseline)
    if name == "insertion":
        return area(*curve(net, end, image, target, importance, steps))
    shares, said = curve(net, image, end, target, importance, steps)
    if name == "deletion":
        return area(shares, said)
    return sum(said[0] - p for p in said) / len(said)


@pytest.fixture(scope="module")
def net():
    return Confident().eval()


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("kind", ["normal", "tied"])
def test_values_are_those_of_a_loop_over_pixels(net, name, baseline, kind):
    images, maps = pictures(), some_maps(kind=kind)
    found = build(name, baseline=baseline, steps=STEPS).assess(net, images, TARGETS, maps, IDS)
    assert found.dtype == torch.float64 and found.shape == (3,)
    for i in range(3):
        say = lambda *a, i=i: by_hand(name, net, images[i].numpy(), int(TARGETS[i]), *a)  # noqa: E731
        expected = say(maps[i].numpy(), baseline, STEPS)
        assert float(found[i]) == pytest.approx(expected, abs=1e-12)
        # canaries: what another order and another baseline would have given
        assert abs(expected - say(-maps[i].numpy(), baseline, STEPS)) > 1e-6
        others = [b for b in BASELINES if b != baseline]
        assert all(abs(expected - say(maps[i].numpy(), b, STEPS)) > 1e-6 for b in others)


@pytest.mark.parametrize("name", ORDERED)
def test_a_step_for_every_pixel(net, name):
    images, maps = pictures()[:1], some_maps()[:1]
    found = build(name, steps=PIXELS, baseline="black").assess(net, images, TARGETS[:1], maps, IDS)
    by_loop = by_hand(name, net, images[0].numpy(), 1, maps[0].numpy(), "black", PIXELS)
    assert float(found) == pytest.approx(by_loop, abs=1e-12)


# --- closed forms ---------------------------------------------------------------------------


class TwoClasses(nn.Module):
    """Logits (w·x, 0): the probability of class 0 is a sigmoid of what is left of w·x."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, dtype=float)))


def test_the_curve_of_a_linear_model_by_hand():
    # 2 × 3 pixels that are worth 3, 2, 1, 0, −1, −2, each removed on its own
    worth = torch.tensor([[[[3.0, 2, 1], [0, -1, -2]]]]).double()
    net, image = TwoClasses(worth), torch.ones(1, 1, 2, 3).double()
    target = torch.tensor([0])

    def value(name, maps, **options):
        options = {"steps": 6, "baseline": "black", **options}
        return float(build(name, **options).assess(net, image, target, maps, ("a",)))

    left = sigmoid([3, 0, -2, -3, -3, -2, 0])  # of the sum 3, after 3, 2, 1, 0, −1, −2 have gone
    shown = sigmoid([0, 3, 5, 6, 6, 5, 3])
    assert value("deletion", worth[:, 0]) == pytest.approx(
        (left.sum() - (left[0] + left[-1]) / 2) / 6
    )
    assert value("insertion", worth[:, 0]) == pytest.approx(
        (shown.sum() - (shown[0] + shown[-1]) / 2) / 6
    )
    assert value("pixel_flipping", worth[:, 0]) == pytest.approx(left[0] - left.mean())
    # the area without its first point, the canary of an AUC that begins after the first removal
    assert abs(left[1:].mean() - value("deletion", worth[:, 0])) > 0.01
    # six pixels in four parts: cuts at 0, 1, 3, 4 and 6 pixels, so parts of 1, 2, 1 and 2 sixths
    p = sigmoid([3, 0, -3, -3, 0])
    uneven = sum(w * (a + b) / 2 for w, (a, b) in zip((1, 2, 1, 2), pairwise(p), strict=True)) / 6
    assert value("deletion", worth[:, 0], steps=4) == pytest.approx(uneven)


def test_the_true_order_of_a_linear_model_is_the_best_of_all():
    g = torch.Generator().manual_seed(5)
    worth = torch.randn(1, 1, 4, 4, generator=g, dtype=torch.float64)
    net, image = TwoClasses(worth), torch.ones(1, 1, 4, 4).double()
    orders = torch.stack([torch.randperm(16, generator=g).view(4, 4) for _ in range(200)]).double()

    for name, sign in (("deletion", -1), ("insertion", 1), ("pixel_flipping", 1)):
        metric = build(name, steps=16, baseline="black")
        others = metric.assess(
            net, image.expand(200, -1, -1, -1), torch.zeros(200).long(), orders, ()
        )
        best = metric.assess(net, image, torch.tensor([0]), worth[:, 0], ("a",))
        worst = metric.assess(net, image, torch.tensor([0]), -worth[:, 0], ("a",))
        assert (sign * others < sign * best).all() and (sign * others > sign * worst).all()
        assert metric.higher_is_more_stable == (sign == 1)


@pytest.mark.parametrize(("steps", "even"), [(1, True), (6, True), (12, True), (7, False)])
def test_pixel_flipping_is_deletion_told_as_a_loss(net, steps, even):
    images, options = pictures(), {"steps": steps, "baseline": "mean"}
    first = streaming.logits_of(net, images).softmax(1).gather(1, TARGETS[:, None])[:, 0]
    bare = images.mean((2, 3), keepdim=True).expand_as(images)
    last = streaming.logits_of(net, bare).softmax(1).gather(1, TARGETS[:, None])[:, 0]
    gaps = []
    for seed in range(3):
        given = (net, images, TARGETS, some_maps(seed), IDS)
        deleted = build("deletion", **options).assess(*given)
        flipped = build("pixel_flipping", **options).assess(*given)
        stated = first - (steps * deleted + (first + last) / 2) / (steps + 1)
        gaps.append(float((flipped - stated).abs().max()))
    assert max(gaps) < 1e-12 if even else max(gaps) > 1e-6


def test_a_model_that_sees_nothing_gives_its_constant():
    class Blind(nn.Module):
        def forward(self, x):
            return torch.tensor([0.2, 0.8], dtype=torch.float64).log().expand(len(x), 2)

    given = (Blind(), pictures(), torch.tensor([0, 1, 0]), some_maps(), IDS)
    for name in ("deletion", "insertion"):
        torch.testing.assert_close(
            build(name).assess(*given),
            torch.tensor([0.2, 0.8, 0.2], dtype=torch.float64),
            rtol=0,
            atol=1e-12,
        )
    assert build("pixel_flipping").assess(*given).abs().max() < 1e-15


# --- only the order counts ------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERED)
def test_ties_and_constant_maps_go_in_reading_order(net, name):
    def value(maps):
        return build(name, steps=STEPS).assess(net, pictures(), TARGETS, maps, IDS)

    reading = -torch.arange(PIXELS).view(1, SIDE, SIDE).expand(3, -1, -1).double()
    assert torch.equal(value(some_maps(kind="constant")), value(reading))
    assert not torch.allclose(
        value(-reading), value(reading), atol=1e-3
    )  # canary: last index first
    tied = some_maps(kind="tied")
    assert torch.equal(value(tied), value(tied + 1e-6 * reading / PIXELS))
    signs = tied.where(tied != 0, torch.where(some_maps() > 0, 0.0, -0.0))
    assert torch.equal(value(tied), value(signs)), "−0 is not below 0"


@pytest.mark.parametrize("name", ORDERED)
def test_increasing_functions_of_a_map_change_nothing_and_abs_does(net, name):
    def value(maps):
        return build(name, steps=STEPS).assess(net, pictures(), TARGETS, maps, IDS)

    maps = some_maps()
    for same in (7 * maps - 3, maps**3, 1e-200 * maps, maps.exp()):
        assert torch.equal(value(same), value(maps))
    assert (value(maps.abs()) - value(maps)).abs().min() > 1e-6


# --- what a model keeps, and what is refused ------------------------------------------------------


def test_what_a_model_caches_on_the_way_can_be_differentiated_later():
    class Caches(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = None

        def forward(self, x):
            if self.kept is None:
                self.kept = torch.linspace(0, 1, PIXELS, dtype=x.dtype).view(SIDE, SIDE)
            return torch.stack([(x * self.kept).sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    net = Caches()
    build("deletion").assess(net, pictures(), torch.tensor([0, 1, 0]), some_maps(), IDS)
    leaf = pictures().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)
    assert torch.equal(slope[0, 0], net.kept)


@pytest.mark.parametrize("name", ORDERED)
def test_more_steps_than_pixels_are_refused(name):
    with pytest.raises(InvalidInput, match="steps: 145 is more than the 144 pixels"):
        build(name, steps=145).assess(seeded(VGGLike), pictures(), TARGETS, some_maps(), IDS)


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("steps", 0, "at least 1"),
        ("steps", True, "number"),
        ("baseline", "white", "'black'"),
        ("blur", 0.0, "above 0"),
        ("blur", float("nan"), "nan"),
        ("patch", 8, "no such option"),
    ],
)
def test_impossible_options_are_refused(name, option, value, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **{option: value})
    assert caught.value.field == f"{name}.{option}"


def test_an_unknown_baseline_is_refused_without_build_too():
    with pytest.raises(InvalidInput, match="known: black, blur, mean"):
        Deletion(baseline="noise")
