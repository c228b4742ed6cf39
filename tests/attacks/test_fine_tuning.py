"""Networks that are trained to deceive: what their training descends, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from attacks import CenterMassFooling, LocationFooling, TopKFooling
from attacks.model.fine_tuning import learn
from attacks.model.passive_fooling import far_corner
from robustlab import data, models
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import explain_maps
from robustlab.core.randomness import generator
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from robustlab.metrics.fooling import distance
from tests.attacks.problems import slope_and_differences
from tests.nets import VGGLike, pictures, seeded

SHORT = {"images": 60, "held_out": 20, "epochs": 2, "batch_size": 20, "learning_rate": 1e-3}
PASSIVE = [
    LocationFooling(weight=2.0, **SHORT),
    TopKFooling(weight=2.0, **SHORT),
    CenterMassFooling(weight=2.0, **SHORT),
    CenterMassFooling(weight=2.0, form="corner", **SHORT),
]
NAMES = ["location", "top_k", "away", "corner"]


@pytest.fixture(scope="module")
def model():
    return models.load("small_cnn")


def plain_fine_tuning(model, batch, attack, seed):
    """Adam on the cross entropy, written out."""
    net = models.load("small_cnn")
    net.load_state_dict(model.state_dict())
    optimiser = torch.optim.Adam(net.parameters(), lr=attack.learning_rate)
    steps, step = attack.epochs * -(-len(batch) // attack.batch_size), 0
    for epoch in range(attack.epochs):
        order = torch.randperm(len(batch), generator=generator(seed, f"epoch {epoch}", "order"))
        for rows in order.split(attack.batch_size):
            share = (1 + torch.cos(torch.tensor(torch.pi * step / steps).double())) / 2
            optimiser.param_groups[0]["lr"] = attack.learning_rate * float(share)
            optimiser.zero_grad()
            F.cross_entropy(net(batch.images[rows]), batch.labels[rows]).backward()
            optimiser.step()
            step += 1
    return net


@pytest.mark.parametrize("attack", PASSIVE, ids=NAMES)
def test_without_a_price_it_is_plain_fine_tuning(model, attack):
    tuned, _ = replace(attack, weight=0.0).tune(model, build("gradient"), seed=5)
    batch = data.load("mnist_5k", split="train").batch(60)
    expected = plain_fine_tuning(model, batch, attack, seed=5)
    for found, wanted in zip(tuned.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert any(
        not torch.allclose(a, b, atol=1e-5)
        for a, b in zip(tuned.parameters(), model.parameters(), strict=True)
    ), "nothing was trained, so nothing was compared"


def toy(explainer):
    net = seeded(lambda: VGGLike())
    batch = make_batch(pictures(), [0, -1, 2])
    return net, learn(net, explainer, batch)


@pytest.mark.parametrize("name", ["gradient", "grad_cam", "lrp"])
@pytest.mark.parametrize("attack", PASSIVE, ids=NAMES)
def test_the_slope_in_a_weight_is_that_of_finite_differences(attack, name):
    net, lesson = toy(build(name))
    rows = torch.tensor([2, 0, 1])
    shift(net, 0.01)  # away from the start, where the centre of mass has no slope
    slope, measured = slope_and_differences(attack, net, lesson, rows)
    assert measured == pytest.approx(slope, rel=1e-4, abs=1e-7)


def shift(net, size):
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += size * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)


def test_the_terms_are_the_formulas():
    net, lesson = toy(build("grad_cam"))
    rows = torch.tensor([1, 2])
    images = lesson.batch.images[rows]
    logits = logits_of(net, images)
    wanted = torch.tensor([int(logits[0].argmax()), 2])  # no label: what the true model says
    task = -torch.log_softmax(logits, 1).gather(1, wanted[:, None]).mean()
    maps = explain_maps(net, lesson.explainer, images, lesson.targets[rows], None)
    for attack, sign in zip(PASSIVE[:3], (1, 1, -1), strict=True):
        terms = attack.parts(net, lesson, rows)
        torch.testing.assert_close(terms["task"].detach(), task)
        away = distance(attack.goal, lesson.maps[rows], maps).mean()
        torch.testing.assert_close(terms["map"].detach(), sign * 2.0 * away)


def test_the_corner_is_opposite_to_the_maps():
    maps = torch.zeros(2, 9, 12)
    maps[:, 1, 10] = 1.0  # top right
    block = far_corner(maps)
    assert block[6:, :4].all() and block.sum() == 12


@pytest.mark.parametrize(
    ("attack", "name"), list(zip(PASSIVE, ["grad_cam", "gradient"] * 2, strict=True)), ids=NAMES
)
def test_maps_go_where_they_are_told(model, attack, name):
    """Held-out maps, by the judge's own measure, further than plain fine-tuning brings them."""
    explainer = build(name)
    longer = replace(attack, images=300, epochs=4)
    held = data.load("mnist_5k").batch(30)
    before = learn(model, explainer, held)
    reached = []
    for weight in (0.0, 2.0):
        tuned, _ = replace(longer, weight=weight).tune(model, explainer)
        maps = explain_maps(tuned, before.explainer, held.images, before.targets, held.ids)
        reached.append(float(distance(attack.goal, before.maps, maps).mean()))
    plain, fooled = reached
    if attack.goal == "center_mass":
        assert fooled > plain
    else:
        assert fooled < plain


def test_the_model_stays_as_it_was_and_shares_nothing(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    tuned, history = PASSIVE[0].tune(model, build("grad_cam"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert not tuned.training and len(history) == 2
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in tuned.parameters()}
    assert all(p.grad is None for p in tuned.parameters())


def test_a_frozen_model_is_trained_too_and_stays_frozen(model):
    frozen = models.load("small_cnn").requires_grad_(False)
    tuned, _ = PASSIVE[0].tune(frozen, build("grad_cam"), seed=1)
    other, _ = PASSIVE[0].tune(model, build("grad_cam"), seed=1)
    assert not any(p.requires_grad for p in tuned.parameters())
    for a, b in zip(tuned.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_explainer_without_slope_is_refused(model):
    with pytest.raises(NotDifferentiable, match="Lime has no gradient in the weights; grad_cam"):
        PASSIVE[0].tune(model, build("lime"))
    assert PASSIVE[0].gradient_path(build("lime")) == "impossible"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -1.0}, "weight: must not be negative"),
        ({"most_lost": 2.0}, r"most_lost: must lie in 0\.\.1"),
        ({"epochs": 0}, "epochs: must be at least 1"),
        ({"copies": -1}, "copies: must not be negative"),
        ({"shift": -1}, "shift: must not be negative"),
        ({"learning_rate": -1.0}, "learning_rate: must not be negative"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        LocationFooling(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "mnist5k"}, "did you mean 'mnist_5k'"),
        ({"data_options": {"split": "test"}}, r"data_options\.split: both splits are used"),
        ({"images": 0}, "images: must be at least 1"),
    ],
)
def test_data_that_cannot_be_had_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        LocationFooling(**options).material()


def test_moved_copies_are_trained_on_and_nothing_else_changes():
    seen, unseen = LocationFooling(images=5, held_out=4, copies=3).material()
    plain, same = LocationFooling(images=5, held_out=4).material()
    assert len(seen) == 20 and torch.equal(seen.images[:5], plain.images)
    assert torch.equal(unseen.images, same.images)


def test_parts_of_data_without_splits():
    seen, unseen = LocationFooling(data="photos").material()
    every = data.load("photos").ids
    assert unseen.ids == every[4::5]
    assert set(seen.ids) | set(unseen.ids) == set(every) and not set(seen.ids) & set(unseen.ids)
