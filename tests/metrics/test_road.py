"""ROAD: imputation against dense solves, closed forms and a peer; values against a loop."""

import numpy as np
import pytest
import torch
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import generator
from robustlab.metrics import build
from robustlab.metrics.imputation import imputed
from tests.metrics.asking import IDS, PIXELS, SIDE, TARGETS, Confident, some_maps
from tests.nets import pictures

AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def dense(image, gone, *, renormalised=True):
    """The same equations written down pixel by pixel, solved by numpy; image [C,H,W]."""
    height, width = gone.shape
    matrix = np.eye(height * width)
    right = image.reshape(len(image), -1).T.copy()
    for y, x in np.argwhere(gone):
        row = y * width + x
        inside = [(y + a, x + b, 1 / 6 if a * b == 0 else 1 / 12) for a, b in AROUND]
        inside = [(v, u, w) for v, u, w in inside if 0 <= v < height and 0 <= u < width]
        total = sum(w for _, _, w in inside) if renormalised else 1.0
        right[row] = 0
        for v, u, w in inside:
            matrix[row, v * width + u] = -w / total
    return np.linalg.solve(matrix, right).T.reshape(image.shape)


def some_holes(shape, share, seed=0):
    g = np.random.default_rng(seed)
    gone = g.random(shape) < share
    gone.reshape(len(gone), -1)[:, g.integers(gone[0].size)] = False
    return gone


@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
@pytest.mark.parametrize("shape", [(9, 7), (1, 8), (8, 1), (2, 2)])
def test_made_up_pixels_are_those_of_a_dense_solve(shape, share):
    images = np.random.default_rng(5).random((4, 3, *shape))
    gone = some_holes((4, *shape), share)
    found = imputed(torch.from_numpy(images), torch.from_numpy(gone)).numpy()
    expected = np.stack([dense(i, g) for i, g in zip(images, gone, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    kept = ~np.broadcast_to(gone[:, None], images.shape)
    assert (found[kept] == images[kept]).all()
    if shape == (9, 7) and share == 0.6:  # canary: weights that are not shared out at the border
        wrong = np.stack(
            [dense(i, g, renormalised=False) for i, g in zip(images, gone, strict=True)]
        )
        assert np.abs(wrong - expected).max() > 0.1


def test_a_single_pixel_that_is_left_paints_the_picture():
    image = pictures(1)
    gone = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    gone[0, 3, 4] = False
    expected = image[:, :, 3:4, 4:5].expand_as(image)
    torch.testing.assert_close(imputed(image, gone), expected, rtol=0, atol=1e-12)
    gone[0, 3, 4] = True
    with pytest.raises(InvalidInput, match="no pixel is left"):
        imputed(image, gone)


def test_constants_and_ramps_come_back():
    y, x = torch.meshgrid(torch.arange(15).double(), torch.arange(11).double(), indexing="ij")
    ramp = torch.stack([0.3 + 0 * x, 0.02 * x - 0.05 * y, 0.1 * (x + y)]).unsqueeze(0)
    gone = torch.from_numpy(some_holes((1, 15, 11), 0.8))
    gone[:, [0, -1]], gone[:, :, [0, -1]] = False, False  # at the border a ramp has no mean
    torch.testing.assert_close(imputed(ramp, gone), ramp, rtol=0, atol=1e-12)
    gone[0, 0, 5] = True
    bent = (imputed(ramp, gone) - ramp).abs().amax((0, 2, 3))
    assert bent[0] < 1e-12 and (bent[1:] > 1e-3).all()


def test_no_value_leaves_the_range_and_single_precision_stays_so():
    images, gone = pictures().float(), torch.from_numpy(some_holes((3, SIDE, SIDE), 0.9))
    before = images.clone()
    found = imputed(images, gone)
    assert found.dtype == torch.float32 and torch.equal(images, before)
    for picture, image, holes in zip(found, images, gone, strict=True):
        for made, channel in zip(picture, image, strict=True):
            assert made.min() >= channel[~holes].min() - 1e-6
            assert made.max() <= channel[~holes].max() + 1e-6


def test_a_peers_imputation():
    peer = pytest.importorskip(
        "pytorch_grad_cam.metrics.road", reason="the oracle grad-cam is not installed"
    )
    images, gone = pictures().float(), torch.from_numpy(some_holes((3, SIDE, SIDE), 0.7))
    theirs = peer.NoisyLinearImputer(noise=0)
    expected = torch.stack([theirs(i, (~g).float()) for i, g in zip(images, gone, strict=True)])
    torch.testing.assert_close(imputed(images, gone), expected, rtol=0, atol=1e-6)


def test_a_peers_metric():
    peer = pytest.importorskip(
        "pytorch_grad_cam.metrics.road", reason="the oracle grad-cam is not installed"
    )
    net, images, maps = Confident().eval().float(), pictures().float(), some_maps().float()
    asked = [lambda logits, t=int(t): logits.softmax(0)[t] for t in TARGETS]
    found = {"morf": [], "lerf": []}
    for percentage in (25, 50, 75):  # of 144 pixels a whole number, so that quantiles agree
        # theirs is called by the percentage that is kept
        for order, remover in (
            ("morf", peer.RemoveMostRelevantFirst),
            ("lerf", peer.RemoveLeastRelevantFirst),
        ):
            perturbation = remover(100 - percentage, peer.NoisyLinearImputer(noise=0))
            metric = peer.PerturbationConfidenceMetric(perturbation)
            found[order].append(metric(images, maps.numpy(), asked, net, return_diff=False))
    for order, curve in found.items():
        area = torch.from_numpy(np.mean(curve, 0)).double()
        road = build("road", order=order, percentages=(25, 50, 75), noise=0)
        value = road.assess(net, images, TARGETS, maps, IDS)
        expected = area if order == "morf" else 1 - area
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


# --- the value -----------------------------------------------------------------------------


def by_hand(net, images, maps, percentages, order, reads):
    values = []
    for image, values_of, target in zip(images, maps, TARGETS.tolist(), strict=True):
        flat = values_of.flatten().tolist()
        sign = -1 if order == "morf" else 1
        ranked = sorted(range(PIXELS), key=lambda i, flat=flat: (sign * flat[i], i))
        found = []
        for p in percentages:
            gone = np.zeros(PIXELS, bool)
            gone[ranked[: int(p * PIXELS / 100)]] = True
            filled = dense(image.numpy(), gone.reshape(SIDE, SIDE))
            logits = net(torch.from_numpy(filled)[None]).detach()[0]
            right = float(logits.argmax() == target)
            found.append(right if reads == "accuracy" else float(logits.softmax(0)[target]))
        values.append(np.mean(found) if order == "morf" else 1 - np.mean(found))
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["normal", "tied", "constant"])
@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("reads", ["prob", "accuracy"])
def test_values_are_those_of_a_loop_over_pixels(kind, order, reads):
    net, maps, percentages = Confident().eval(), some_maps(kind=kind), (7, 33.4, 80)
    road = build("road", order=order, reads=reads, percentages=percentages, noise=0)
    value = road.assess(net, pictures(), TARGETS, maps, IDS)
    expected = by_hand(net, pictures(), maps, percentages, order, reads)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    if reads == "prob" and kind == "normal":  # canary: the other end first
        other = "lerf" if order == "morf" else "morf"
        wrong = by_hand(net, pictures(), maps, percentages, other, reads)
        assert (1 - wrong - value).abs().min() > 1e-4


def test_the_one_end_of_a_map_is_the_other_end_of_its_negative():
    net, maps = Confident().eval(), some_maps(kind="tied")
    morf, lerf = (
        build("road", order=order, percentages=(10, 50)).assess(net, pictures(), TARGETS, m, IDS)
        for order, m in (("morf", maps), ("lerf", -maps))
    )
    torch.testing.assert_close(morf, 1 - lerf, rtol=0, atol=1e-15)


class Spy(nn.Module):
    """Keeps what it is shown; answers by the mean of the upper half."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(x.clone())
        upper = x[:, :, : SIDE // 2].mean((1, 2, 3))
        return torch.stack([20 * upper, 10 + 0 * upper], 1)


def test_pixels_that_the_model_does_not_see_may_go():
    spy, zeros = Spy(), torch.zeros(3).long()
    below = (torch.arange(SIDE) >= SIDE // 2).double()[None, :, None].expand(3, SIDE, SIDE)
    road = build("road", percentages=(10, 30, 50))
    blind = road.assess(spy, pictures(), zeros, below, IDS)
    whole = spy(pictures()).softmax(1)[:, 0].detach()
    torch.testing.assert_close(blind, whole, rtol=0, atol=1e-12)
    assert ((road.assess(spy, pictures(), zeros, -below, IDS) - whole).abs() > 1e-4).all()


def test_noise_is_added_to_what_was_made_up_and_to_nothing_else():
    maps, percentages = some_maps(), (20, 60)
    shown = []
    for noise in (0.0, 0.03):
        spy = Spy()
        road = build("road", percentages=percentages, noise=noise, seed=4)
        road.assess(spy, pictures(), torch.zeros(3).long(), maps, IDS)
        shown.append(torch.cat(spy.shown).view(2, 3, 3, SIDE, SIDE))
    added = shown[1] - shown[0]
    for k, p in enumerate(percentages):
        for i, name in enumerate(IDS):
            draw = torch.randn(3, SIDE, SIDE, generator=generator(4, name, f"road/{p}"))
            ranks = maps[i].flatten().argsort(descending=True).argsort().view(SIDE, SIDE)
            gone = ranks < p * PIXELS // 100
            expected = torch.where(gone, 0.03 * draw.double(), 0.0)
            torch.testing.assert_close(added[k, i], expected, rtol=0, atol=1e-12)
    assert 0.025 < added[added != 0].std() < 0.035


def test_percentages_do_not_touch_each_other():
    net, maps = Confident().eval(), some_maps()

    def value(*percentages):
        road = build("road", percentages=percentages)
        return road.assess(net, pictures(), TARGETS, maps, IDS)

    torch.testing.assert_close(value(20, 70), (value(20) + value(70)) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("order", "random", "'lerf'|morf"),
        ("reads", "logit", "'prob'|prob"),
        ("percentages", (), "above 0"),
        ("percentages", (10, 100), "below 100"),
        ("percentages", (0, 10), "above 0"),
        ("percentages", (10, 10), "twice"),
        ("percentages", (float("nan"),), "above 0"),
        ("noise", -0.1, "at least 0"),
        ("noise", float("inf"), "finite"),
        ("steps", 8, "no such option"),
    ],
)
def test_impossible_options_are_refused(option, value, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("road", **{option: value})
    assert caught.value.field == f"road.{option}"
