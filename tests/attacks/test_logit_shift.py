"""The logit shift: the softmax stays, the gradient becomes a picture."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks import build
from attacks.model.pictures import draw
from attacks.model.probes import largest_gradient
from robustlab import data
from robustlab.core.judge import judge
from robustlab.core.streaming import input_gradient, logits_of
from robustlab.explainers import build as explainer
from tests.attacks.exact import (
    EXACT,
    PICTURES,
    SHIPPED,
    all_test_digits,
    digits,
    in_double,
    pearson,
    steepest,
)
from tests.attacks.problems import posed
from tests.nets import pictures, seeded


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("model", SHIPPED)
def test_probabilities_stay_and_the_map_is_the_picture(model, picture):
    problem, images = digits(model), all_test_digits()
    attack = build("logit_shift", picture=picture)
    before, after = (logits_of(m, images) for m in (problem.model, attack.manipulate(problem)))
    assert float((before.softmax(1) - after.softmax(1)).abs().max()) < 1e-6
    assert torch.equal(before.argmax(1), after.argmax(1))
    labels = data.load("mnist_5k").batch().labels
    losses = [F.cross_entropy(v, labels, reduction="none") for v in (before, after)]
    torch.testing.assert_close(*losses, rtol=0, atol=4e-6)
    found = judge(attack, problem)
    wanted = draw(picture, 28, 28)
    assert pearson(found.maps, wanted) > 0.99
    assert pearson(found.clean_maps, wanted) < 0.5


@pytest.mark.parametrize("form", ["mod", "linear"])
def test_the_gradient_gains_the_picture_and_nothing_else(form):
    """∇f'_c − ∇f_c = λa with ‖λa‖ = strength · max‖∇f_t‖ of the probes, for every class c."""
    problem = posed("plain")
    other = build("logit_shift", form=form, picture="disc", strength=7).manipulate(problem)
    length = 7 * steepest(problem)
    picture = draw("disc", 12, 12).expand(3, 12, 12)
    for c in range(5):
        targets = torch.full((3,), c)
        gained = input_gradient(other, problem.images, targets) - input_gradient(
            problem.model, problem.images, targets
        )
        expected = (length * picture / picture.norm()).expand(3, -1, -1, -1)
        torch.testing.assert_close(gained, expected, **EXACT)


@pytest.mark.parametrize("form", ["mod", "linear"])
@pytest.mark.parametrize("score", ["prob", "margin", "logprob", "logit"])
def test_maps_of_what_the_softmax_says_do_not_notice(score, form):
    problem = in_double("small_resnet", score=score)
    found = judge(build("logit_shift", form=form), problem)
    scale = float(found.clean_maps.max())
    same = torch.allclose(found.maps, found.clean_maps, rtol=1e-6, atol=1e-6 * scale)
    assert same is (score != "logit")


@pytest.mark.parametrize("form", ["mod", "linear"])
def test_all_logits_move_together_the_sawtooth_by_less_than_one(form):
    problem = posed("residual")
    images = pictures(40, seed=9)
    other = build("logit_shift", form=form).manipulate(problem)
    moved = logits_of(other, images) - logits_of(problem.model, images)
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-11)
    assert (float(moved.abs().max()) <= 0.5) is (form == "mod")
    assert float(moved.abs().max()) > 0.4


def test_the_shift_is_the_stated_number():
    """h = λ aᵀ(x − ½), by hand."""
    problem = posed("plain")
    images = problem.images
    other = build("logit_shift", form="linear", strength=5).manipulate(problem)
    moved = (logits_of(other, images) - logits_of(problem.model, images))[:, 0]
    picture = draw("cross", 12, 12).repeat(3, 1, 1)
    slope = 5 * steepest(problem) * picture / picture.square().sum().sqrt()
    expected = [float(((x - 0.5) * slope).sum()) for x in images]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam"])
def test_what_looks_at_a_layer_does_not_see_what_goes_past_it(name):
    found = judge(build("logit_shift"), digits("small_resnet", name))
    assert torch.equal(found.maps, found.clean_maps)


def test_a_linear_shift_keeps_integrated_gradients_complete_and_a_sawtooth_does_not():
    problem = in_double("small_cnn")
    rule = explainer("integrated_gradients", steps=512)
    for form in ("linear", "mod"):
        other = build("logit_shift", form=form).manipulate(problem)
        parts = rule.explain(other, problem.images, problem.targets).flatten(1).sum(1)
        black = torch.zeros_like(problem.images)
        whole = (logits_of(other, problem.images) - logits_of(other, black)).gather(
            1, problem.targets[:, None]
        )[:, 0]
        close = torch.allclose(parts, whole, rtol=0.01, atol=0.1)
        assert close is (form == "linear")


def test_a_gradient_of_zero_still_gives_a_size():
    silent = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)))
    nn.init.zeros_(silent[1].weight)
    targets = torch.zeros(3, dtype=torch.int64)
    problem = replace(posed("plain"), model=silent, targets=targets)
    assert largest_gradient(silent, problem.images) == 1
    gained = input_gradient(
        build("logit_shift", strength=2).manipulate(problem), problem.images, problem.targets
    )
    torch.testing.assert_close(gained[0].norm(), torch.tensor(2.0).double())
