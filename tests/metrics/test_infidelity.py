"""Infidelity: against captum on the same perturbations, closed forms, and brute force."""

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal
from robustlab.metrics import build
from tests.metrics.asking import IDS, SIDE, TARGETS, Confident, some_maps
from tests.nets import pictures

SAMPLES = 9


class Spy(nn.Module):
    """Keeps what it is shown, answers as ``inner`` does."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shown = inner, []

    def forward(self, x):
        self.shown.append(x.clone())
        return self.inner(x)


class Linear(nn.Module):
    """Logits w_k · x."""

    def __init__(self, channels=3, classes=2):
        super().__init__()
        g = torch.Generator().manual_seed(8)
        shape = classes, channels, SIDE, SIDE
        self.weights = nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("bchw,kchw->bk", x, self.weights)


def shown_by(metric, net, images, targets, maps, ids=IDS):
    """The value, and the pictures that were asked about, [samples,B,C,H,W]."""
    spy = Spy(net)
    value = metric.assess(spy, images, targets, maps, ids)
    asked = torch.cat(spy.shown).view(-1, *images.shape)
    assert torch.equal(asked[0], images)
    return value, asked[1:]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.1},
        {"score": "prob"},
        {"perturbation": "square"},
        {"perturbation": "square", "contributions": True, "baseline": "black", "side": 0.4},
    ],
    ids=["noise", "prob", "square", "contributions"],
)
def test_captum_has_the_same_number_for_the_same_perturbations(options, normalise):
    net, images, maps = Confident().eval(), pictures(), some_maps()
    metric = build("infidelity", samples=SAMPLES, normalise=normalise, **options)
    value, asked = shown_by(metric, net, images, TARGETS, maps)
    change = images - asked

    def perturb(expanded):
        """Image by image, captum's order; of contributions I is 1 where pixels were taken."""
        counts = (change.abs().sum(2, keepdim=True) > 0).expand_as(change).double()
        factor = counts if options.get("contributions") else change
        return tuple(t.transpose(0, 1).reshape(expanded.shape) for t in (factor, asked))

    def forward(x):
        logits = net(x)
        return logits.softmax(1) if options.get("score") == "prob" else logits

    def theirs(per_channel):
        return captum_infidelity(
            forward, perturb, images, per_channel, target=TARGETS,
            n_perturb_samples=SAMPLES, normalize=normalise,
        )  # fmt: skip

    # each channel of a pixel has an equal share of what the map says of the pixel
    shared = (maps / 3).unsqueeze(1).expand_as(images)
    torch.testing.assert_close(value, theirs(shared), rtol=1e-9, atol=1e-12)
    # canary: the whole of it in every channel, which the best scale alone makes up for
    for wrong in (3 * shared, -shared):
        assert torch.allclose(value, theirs(wrong), rtol=1e-6) == normalise


def test_a_linear_model_is_forecast_by_its_own_gradient():
    net, images, targets = Linear(), pictures(), torch.tensor([0, 1, 0])
    slopes = net.weights.detach()[targets]
    signed = slopes.sum(1)
    noise = build("infidelity", normalise=False, samples=SAMPLES)
    assert noise.assess(net, images, targets, signed, IDS).abs().max() < 1e-20
    # canaries: no signs, another class, another scale
    for wrong in (signed.abs(), net.weights.detach()[1 - targets].sum(1), 2 * signed):
        assert noise.assess(net, images, targets, wrong, IDS).min() > 0.1
    best = build("infidelity", normalise=True, samples=SAMPLES)
    assert best.assess(net, images, targets, -1e-9 * signed, IDS).abs().max() < 1e-20


def test_squares_are_forecast_by_what_each_pixel_adds():
    net, images, targets = Linear(), pictures(), torch.tensor([0, 1, 0])
    slopes = net.weights.detach()[targets]
    colour = images.mean((2, 3), keepdim=True)
    added = (slopes * (images - colour)).sum(1)
    options = {"perturbation": "square", "normalise": False, "samples": SAMPLES}
    metric = build("infidelity", contributions=True, **options)
    assert metric.assess(net, images, targets, added, IDS).abs().max() < 1e-20
    wrong = build("infidelity", contributions=False, **options)  # canary
    assert wrong.assess(net, images, targets, added, IDS).min() > 1e-2
    # slopes forecast squares of grey pictures, where all channels change alike
    grey = images[:, :1].expand_as(images)
    assert wrong.assess(net, grey, targets, slopes.sum(1), IDS).abs().max() < 1e-20
    assert wrong.assess(net, images, targets, slopes.sum(1), IDS).min() > 1e-2


def test_of_a_linear_model_it_is_the_squared_distance_of_the_slopes():
    # E[(Iᵀ(φ − w))²] = σ² ‖φ − w‖² for one channel; the mean of N has a spread of √(2/N)
    net, image, sigma = Linear(channels=1), pictures(1, channels=1), 0.3
    target, maps, slopes = torch.tensor([1]), some_maps()[:1], net.weights.detach()[1, 0]
    metric = build("infidelity", normalise=False, samples=4000, sigma=sigma)
    value = float(metric.assess(net, image, target, maps, ("ada",)))
    expected = float(sigma**2 * (maps[0] - slopes).square().sum())
    assert abs(value / expected - 1) < 5 * np.sqrt(2 / 4000)
    # an all-zero map forecasts nothing: the mean square of what happens
    nothing = float(metric.assess(net, image, target, 0 * maps, ("ada",)))
    assert abs(nothing / float(sigma**2 * slopes.square().sum()) - 1) < 0.12


def test_the_best_scale_is_the_best_of_many():
    net, maps = Confident().eval(), some_maps()
    options = {"samples": SAMPLES, "perturbation": "square"}
    best = build("infidelity", normalise=True, **options)
    plain = build("infidelity", normalise=False, **options)
    value, asked = shown_by(best, net, pictures(), TARGETS, maps)
    nothing = plain.assess(net, pictures(), TARGETS, 0 * maps, IDS)
    assert (value < nothing).all()
    for i in range(3):  # least squares by numpy
        forecast = ((pictures()[i] - asked[:, i]).mean(1) * maps[i]).sum((1, 2))
        happened = net(pictures())[i, TARGETS[i]] - net(asked[:, i])[:, TARGETS[i]]
        _, left, _, _ = np.linalg.lstsq(
            forecast[:, None].numpy(), happened.detach().numpy(), rcond=None
        )
        assert float(value[i]) == pytest.approx(left[0] / SAMPLES, rel=1e-9)
    for c in (-3.0, -0.1, 0.01, 0.5, 4.0):
        scaled = plain.assess(net, pictures(), TARGETS, c * maps, IDS)
        assert (scaled >= value - 1e-12).all()
        again = best.assess(net, pictures(), TARGETS, c * maps, IDS)
        torch.testing.assert_close(again, value, rtol=1e-9, atol=0)


def test_maps_without_a_forecast_have_the_mean_square_of_what_happens():
    net = Confident().eval()
    metric = build("infidelity", samples=SAMPLES)
    value, asked = shown_by(metric, net, pictures(), TARGETS, some_maps(kind="zero"))
    target = TARGETS[:, None]
    happened = [net(pictures()).gather(1, target) - net(a).gather(1, target) for a in asked]
    expected = torch.cat(happened, 1).square().mean(1).detach()
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)


def test_noise_is_grey_and_of_the_image():
    metric = build("infidelity", samples=SAMPLES, sigma=0.05, seed=3)
    _, asked = shown_by(metric, Linear(), pictures(), torch.zeros(3).long(), some_maps())
    for j in range(SAMPLES):
        draw = normal(pictures()[:, :1], IDS, 3, f"infidelity/{j}")
        expected = pictures() - 0.05 * draw.expand(-1, 3, -1, -1)
        torch.testing.assert_close(asked[j], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("side", "pixels"), [(0.25, 3), (0.01, 1), (1.0, SIDE)])
def test_squares_lie_anywhere_and_show_the_baseline(side, pixels):
    options = {"perturbation": "square", "samples": 200, "side": side, "baseline": "black"}
    metric = build("infidelity", **options)
    one = pictures(1)
    _, asked = shown_by(metric, Linear(), one, torch.zeros(1).long(), some_maps()[:1], ("ada",))
    corners = set()
    for shown in asked[:, 0]:
        taken = (shown != one[0]).any(0)
        y, x = np.argwhere(taken.numpy()).min(0)
        corners.add((int(y), int(x)))
        assert int(taken.sum()) == pixels**2
        assert taken[y : y + pixels, x : x + pixels].all() and (shown[:, taken] == 0).all()
    free = SIDE - pixels + 1
    assert {y for y, _ in corners} == {x for _, x in corners} == set(range(free))
    assert len(corners) > 0.6 * free**2 or pixels == SIDE


def test_the_baseline_is_the_one_of_deletion():
    options = {"perturbation": "square", "side": 1.0, "samples": 2}
    for baseline in ("mean", "blur"):
        metric = build("infidelity", baseline=baseline, **options)
        _, asked = shown_by(metric, Linear(), pictures(), torch.zeros(3).long(), some_maps())
        deletion = build("deletion", steps=1, baseline=baseline)
        spy = Spy(Linear())
        deletion.assess(spy, pictures(), torch.zeros(3).long(), some_maps(), IDS)
        torch.testing.assert_close(asked[0], torch.cat(spy.shown)[3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"perturbation": "grid"}, "perturbation", "noise"),
        ({"score": "entropy"}, "score", "logit"),
        ({"samples": 1}, "samples", "one sample always"),
        ({"samples": 0, "normalise": False}, "samples", "at least 1"),
        ({"sigma": 0.0}, "sigma", "above 0"),
        ({"sigma": float("nan")}, "sigma", "above 0"),
        ({"side": 0.0}, "side", "above 0"),
        ({"side": 1.5}, "side", "at most 1"),
        ({"baseline": "white"}, "baseline", "black"),
        ({"contributions": True}, "contributions", "noise removes no pixel"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_impossible_options_are_refused(options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("infidelity", **options)
    assert caught.value.field == f"infidelity.{field}"


def test_one_sample_is_enough_where_nothing_is_scaled():
    metric = build("infidelity", samples=1, normalise=False)
    value = metric.assess(Confident().eval(), pictures(), TARGETS, some_maps(), IDS)
    assert (value > 0).all()
