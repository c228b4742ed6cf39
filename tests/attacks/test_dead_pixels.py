"""Dead pixels: weights that no datum lights and that every gradient shows."""

from dataclasses import replace

import pytest
import torch

from attacks import build
from attacks.model.dead_pixels import directions
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge
from robustlab.core.streaming import input_gradient, logits_of
from tests.attacks.exact import EXACT, SHIPPED, all_test_digits, digits, in_double, steepest
from tests.attacks.problems import posed
from tests.nets import pictures


@pytest.mark.parametrize("model", SHIPPED)
def test_not_a_bit_of_any_test_digits_logits_changes(model):
    problem, images = digits(model), all_test_digits()
    attack = build("dead_pixels")
    other = attack.manipulate(problem)
    dead = attack.dead(problem.images)
    assert int(dead.sum()) == 48
    assert not images[:, dead].any()
    assert torch.equal(logits_of(problem.model, images), logits_of(other, images))
    found = judge(attack, problem)
    on = found.maps[:, dead[0]].square().sum(1) / found.maps.square().sum((1, 2))
    off = found.clean_maps[:, dead[0]].square().sum(1) / found.clean_maps.square().sum((1, 2))
    assert on.min() > 0.95
    assert off.max() < 0.1


def test_without_a_margin_a_few_unseen_digits_light_a_pixel():
    """Why there is one: 124 pixels are dead in training, and 3 of 1,000 test digits light one."""
    problem, images = digits("small_cnn"), all_test_digits()
    attack = build("dead_pixels", margin=0)
    dead = attack.dead(problem.images)
    lit = images[:, dead].any(1)
    assert (int(dead.sum()), int(lit.sum())) == (124, 3)
    before, after = (logits_of(m, images) for m in (problem.model, attack.manipulate(problem)))
    assert torch.equal((before != after).any(1), lit)


def test_the_gradient_changes_on_dead_pixels_only_and_by_the_stated_length():
    problem = in_double("small_cnn")
    attack = build("dead_pixels", strength=4)
    other, dead = attack.manipulate(problem), attack.dead(problem.images)
    length = 4 * steepest(problem)
    for c in range(10):
        targets = torch.full((4,), c)
        before, after = (input_gradient(m, problem.images, targets) for m in (problem.model, other))
        assert torch.equal(after[:, ~dead], before[:, ~dead])
        u = (1 + c / 10) * (-1 if c % 2 else 1)
        gained = (after - before)[:, dead]
        expected = torch.full_like(gained, u * length / 48**0.5)
        torch.testing.assert_close(gained, expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "options", "notices"),
    [
        ("gradient", {}, True),
        ("gradient", {"score": "prob"}, True),
        ("gradient", {"score": "margin"}, True),
        ("smooth_grad", {"samples": 2}, True),
        ("input_x_gradient", {}, False),
        ("integrated_gradients", {"steps": 4}, False),
        ("tangent_projected", {}, False),
        ("tangent_projected", {"base": "input_x_gradient"}, False),
        ("grad_cam", {}, False),
    ],
)
def test_who_notices_dead_pixels(name, options, notices):
    found = judge(build("dead_pixels"), in_double("small_cnn", name, **options))
    assert torch.equal(found.maps, found.clean_maps) is not notices


def test_directions_tell_any_two_classes_apart():
    u = directions(7, torch.zeros(1).double())
    assert len(u.unique()) == 7
    assert float(u.abs().min()) == 1
    assert (u.sign() == torch.tensor([1, -1, 1, -1, 1, -1, 1])).all()


def test_a_lit_pixel_of_the_problem_is_not_dead():
    problem = digits("small_cnn")
    lit = problem.images.clone()
    lit[3, 0, 0, 0] = 0.5
    attack = build("dead_pixels")
    assert bool(attack.dead(problem.images)[0, 0, 0])
    lit_problem = replace(problem, images=lit)
    assert not bool(attack.dead(lit)[0, 0, 0])
    assert int(attack.dead(lit).sum()) == 47
    other = attack.manipulate(lit_problem)
    assert torch.equal(logits_of(other, lit), logits_of(problem.model, lit))


def test_the_problems_own_images_can_be_the_reference():
    """Pixels of any colour, as long as they have it in all images; each channel for itself."""
    images = pictures(4)
    images[:, 1, :, :4] = torch.rand(12, 4, dtype=torch.float64)
    problem = replace(posed("plain"), images=images, targets=torch.zeros(4, dtype=torch.int64))
    for margin, columns in ((0, 4), (1, 3), (3, 1)):
        attack = build("dead_pixels", data=None, margin=margin)
        expected = torch.zeros(3, 12, 12, dtype=torch.bool)
        expected[1, :, :columns] = True
        assert torch.equal(attack.dead(images), expected)
        other = attack.manipulate(problem)
        assert torch.equal(logits_of(other, images), logits_of(problem.model, images))
        assert not torch.equal(logits_of(other, 1 - images), logits_of(problem.model, 1 - images))


@pytest.mark.parametrize(
    ("options", "images", "words"),
    [
        ({"data": None}, pictures(3, 28, 1), "photographs have none; logit_shift needs none"),
        ({}, pictures(3, 28, 1), "in all of 'mnist_5k' and them"),
        ({"data": None}, pictures(1), "one image cannot say what changes"),
        ({}, pictures(3), r"the images of 'mnist_5k' are 1×28×28, those to explain 3×12×12"),
        ({"data": "cifar10"}, pictures(3, 32), "cannot be loaded by its name"),
    ],
)
def test_data_without_dead_pixels_are_refused(options, images, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("dead_pixels", **options).dead(images)
    assert caught.value.field == "data"


def test_the_nearest_name_of_data_is_given():
    with pytest.raises(InvalidInput, match="did you mean 'mnist_5k'"):
        build("dead_pixels", data="mnist5k")
