"""What every training objective has to keep, whatever it is about."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from attacks.inner import SignSearch
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.core.wrapping import Counted
from robustlab.training import TRAINING, build
from robustlab.training.examples import Reach
from robustlab.training.objective import Shaping
from tests.training.problems import cross_entropy, dense, examples, smooth, total

SETTINGS = {
    "natural": {},
    "adversarial": {},
    "trades": {},
    "rar_norm": {},
    "rar_sum_norm": {"weight": 0.7},
    "art": {},
    "igr": {},
    "far": {"form": "aat"},
    "far ig": {"map": "integrated_gradients", "points": 3, "similarity": "cosine"},
    "curvature": {"weight": 0.5},
    "ssr": {"weight": 2.0},
    "r2et": {"k": 2, "weight": 0.3, "curvature": 0.2},
    "softplus": {},
    "weight_decay": {"weight": 0.1},
}
ON_WORST = ("adversarial", "rar_sum_norm", "art", "igr", "far ig")


def made(case):
    return build(case.split()[0], **SETTINGS[case])


def test_every_objective_is_here():
    assert {case.split()[0] for case in SETTINGS} == set(TRAINING)


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("make", [dense, smooth], ids=["relu", "softplus"])
def test_its_slope_in_the_weights_is_the_measured_one(case, make):
    """Along a random direction in all weights at once, the inner attack's answer held."""
    objective, net, given = made(case), make(), examples()
    weights = list(net.parameters())
    slopes = torch.autograd.grad(total(objective.terms(net, given)), weights)
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    length = 1e-6

    def moved(by):
        with torch.no_grad():
            for w, d in zip(weights, direction, strict=True):
                w += by * d
        return total(objective.terms(net, given)).detach()

    difference = (moved(length) - moved(-2 * length)) / (2 * length)
    moved(length)
    slope = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True))
    torch.testing.assert_close(slope, difference, rtol=2e-6, atol=1e-8)
    assert slope.abs() > 1e-3


@pytest.mark.parametrize("case", SETTINGS)
def test_terms_are_means_over_the_images(case):
    """With the real search: nothing of an image depends on those beside it."""
    objective, net = made(case), smooth()
    whole = examples(4, search=SignSearch())
    found = objective.terms(net, whole)
    each = []
    for i in range(4):
        alone = replace(
            whole,
            images=whole.images[i : i + 1],
            labels=whole.labels[i : i + 1],
            ids=whole.ids[i : i + 1],
        )
        each.append(objective.terms(net, alone))
    for name, value in found.items():
        mean = torch.stack([terms[name] for terms in each]).mean()
        torch.testing.assert_close(value, mean, rtol=1e-9, atol=1e-12)
        assert value.ndim == 0


@pytest.mark.parametrize("case", SETTINGS)
def test_it_passes_forward_as_often_as_it_says(case):
    objective, net = made(case), Counted(dense())
    objective.terms(net, examples(3, search=SignSearch()))
    assert net.forwards == 3 * objective.cost().forward
    assert objective.cost().backward >= objective.cost().forward


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_it_leaves_the_network_as_it_was(case, training):
    """Flags, gradients, values, mode, the images and the global generator."""
    objective, net = made(case), smooth()
    net.train(training)
    net.register_buffer("kept", torch.arange(3.0))
    first, *others = net.parameters()
    first.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = examples(search=SignSearch())
    shown, stream = given.images.clone(), torch.get_rng_state()
    objective.terms(net, given)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not first.requires_grad and all(p.requires_grad for p in others)
    assert all(p.grad is None for p in net.parameters())
    assert all(module.training == training for module in net.modules())
    assert torch.equal(given.images, shown) and not given.images.requires_grad
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("case", SETTINGS)
def test_at_no_price_it_is_the_cross_entropy(case):
    """Of the clean images, or of those that the inner attack has found."""
    objective = made(case)
    prices = [f.name for f in fields(objective) if f.name in ("weight", "curvature")]
    free = replace(objective, **dict.fromkeys(prices, 0.0))
    net, given = smooth(), examples()
    shown = given.search.found if case in ON_WORST else given.images
    wanted = cross_entropy(net, shown, given.labels).mean()
    terms = free.terms(net, given)
    torch.testing.assert_close(total(terms), wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["task"], wanted, rtol=1e-12, atol=0)
    if prices:  # and otherwise it is something else
        assert (total(objective.terms(net, given)) - wanted).abs() > 1e-4


@pytest.mark.parametrize("case", SETTINGS)
def test_its_randomness_is_that_of_the_step(case):
    objective, net = made(case), smooth()
    if isinstance(objective, Reach):  # so short that the start does not go under in the corners
        objective = replace(objective, steps=1, step_size=0.01)

    def at(step):
        return total(objective.terms(net, examples(search=SignSearch(), step=step))).detach()

    assert torch.equal(at(0), at(0))
    random = isinstance(objective, Reach) or case == "curvature"
    assert torch.equal(at(0), at(1)) == (not random)


@pytest.mark.parametrize("case", SETTINGS)
def test_the_inner_attack_gets_the_objectives_own_reach(case):
    objective = made(case)
    given = examples()
    objective.terms(dense(), given)
    if isinstance(objective, Reach):
        ((gain, reach),) = given.search.asked
        assert reach == objective
        assert gain(nearby := given.images + 0.01).shape == (3,), nearby
    else:
        assert given.search.asked == []


@pytest.mark.parametrize("case", [*ON_WORST[1:], "trades", "rar_norm", "far"])
def test_the_inner_attack_runs_on_a_frozen_network(case):
    """Second derivatives then cost a pass each, and none goes to the weights."""
    net, flags = dense(), []

    def search(gain, images, reach, **_):
        flags.extend(p.requires_grad for p in net.parameters())
        return images + 0.01

    made(case).terms(net, examples(search=search))
    assert flags == [False] * 4


@pytest.mark.parametrize("case", SETTINGS)
def test_its_description_names_its_terms(case):
    objective = made(case)
    for name in objective.terms(smooth(), examples()):
        assert f"*{name}*" in type(objective).__doc__


@pytest.mark.parametrize("case", SETTINGS)
def test_its_options_rebuild_it(case):
    objective = made(case)
    assert build(case.split()[0], **options_of(objective)) == objective


@pytest.mark.parametrize("case", SETTINGS)
def test_it_learns_with_a_conv_net_and_a_batch_norm(case):
    """The real shape of things, in single precision: finite, and with a slope in every weight."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.Softplus(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).train()
    given = examples(4, search=SignSearch())
    given = replace(given, images=given.images.float())
    terms = made(case).terms(net, given)
    total(terms).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in (net[0].weight, net[5].weight, net[5].bias))


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("trades", {"weight": -1.0}, "trades.weight"),
        ("trades", {"random_start": False}, "trades.random_start"),
        ("rar_norm", {"points_inner": 0}, "rar_norm.points_inner"),
        ("rar_norm", {"random_start": False}, "rar_norm.random_start"),
        ("rar_sum_norm", {"points": 0}, "rar_sum_norm.points"),
        ("rar_sum_norm", {"epsilon": 8.0}, "rar_sum_norm.epsilon"),
        ("art", {"share": 0.0}, "art.share"),
        ("art", {"beta": 0.0}, "art.beta"),
        ("igr", {"points": 0}, "igr.points"),
        ("far", {"form": "att"}, "far.form"),
        ("far", {"beta": -1.0}, "far.beta"),
        ("far", {"random_start": False}, "far.random_start"),
        ("curvature", {"weight": float("nan")}, "curvature.weight"),
        ("curvature", {"beta": 0.0}, "curvature.beta"),
        ("ssr", {"weight": -0.1}, "ssr.weight"),
        ("r2et", {"probe": 0.0}, "r2et.probe"),
        ("r2et", {"k": 0}, "r2et.k"),
        ("softplus", {"beta": -3.0}, "softplus.beta"),
        ("weight_decay", {"weight": -1.0}, "weight_decay.weight"),
        ("adversarial", {"steps": 0}, "adversarial.steps"),
        ("adversarial", {"step_size": 0.0}, "adversarial.step_size"),
        ("adversarial", {"epsilonn": 0.1}, "adversarial.epsilonn"),
    ],
)
def test_impossible_options_are_refused(name, options, field):
    with pytest.raises(InvalidInput) as caught:
        build(name, **options)
    assert caught.value.field == field


def test_those_that_shape_the_network_say_so():
    shaping = {name for name in SETTINGS if isinstance(made(name), Shaping)}
    assert shaping == {"softplus", "curvature"}
