"""Manipulated models whose predictions provably stay: what holds for all of them."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from attacks import build
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge
from robustlab.core.types import Moving
from robustlab.core.wrapping import Wrapper
from robustlab.explainers import build as explainer
from tests.attacks.battery import part
from tests.attacks.exact import (
    agrees_with_finite_differences,
    digits,
    in_double,
)
from tests.nets import pictures

ALL = [
    ("logit_shift", {}),
    ("logit_shift", {"form": "linear"}),
    ("dead_pixels", {}),
    ("grad_cam_gadget", {}),
    ("grad_cam_gadget", {"goal": "random", "form": "mod"}),
    ("grad_cam_gadget", {"goal": "trigger"}),
]


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_model_is_left_as_it_was_and_nothing_is_shared(name, options):
    problem = digits("small_resnet", count=2)
    state = {k: v.clone() for k, v in problem.model.state_dict().items()}
    kinds = [(n, type(m)) for n, m in problem.model.named_modules()]
    other = build(name, **options).manipulate(problem)
    other(problem.images)
    assert all(torch.equal(v, state[k]) for k, v in problem.model.state_dict().items())
    assert [(n, type(m)) for n, m in problem.model.named_modules()] == kinds
    assert not any(m._forward_hooks for m in [*problem.model.modules(), *other.modules()])
    mine = {v.data_ptr() for v in problem.model.parameters()}
    assert len(list(other.parameters())) == len(mine)
    assert not mine & {v.data_ptr() for v in other.parameters()}
    assert not any(m.training for m in other.modules())
    assert {n for n, _ in kinds} <= {n for n, _ in other.named_modules()}


@pytest.mark.parametrize(("name", "options"), ALL)
def test_it_is_a_module_like_any_other(name, options):
    """Copies, other dtypes and gradients; nothing of the last images stays behind."""
    problem, attack = digits("small_cnn", count=2), build(name, **options)
    other = attack.manipulate(problem)
    images = attack.moved(problem)
    first = other(images)  # with a graph, which a copy could not take along
    twin = deepcopy(other).double()
    assert twin(images.double()).dtype == torch.float64
    torch.testing.assert_close(twin(images.double()).float(), first, rtol=1e-3, atol=1)
    torch.testing.assert_close(
        twin(images.double()).softmax(1).float(), first.softmax(1), rtol=0, atol=2e-6
    )
    in_two = build(name, **options).manipulate(in_double("small_cnn", count=2))
    assert {b.dtype for b in in_two.buffers()} == {torch.float64}


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_judge_reads_it_like_an_attack_that_moves_no_image(name, options):
    attack = build(name, **options)
    assert isinstance(attack, Moving)
    found = judge(attack, digits("small_cnn"))
    assert found.prediction_kept.all()
    assert set(found.outcomes) == {"ok"}
    assert attack.control() is None


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("logit_shift", {}, 1e-7),
        ("logit_shift", {"form": "linear"}, 1e-7),
        ("dead_pixels", {}, 1e-7),
        ("grad_cam_gadget", {"goal": "random"}, 1e-7),
        ("grad_cam_gadget", {"goal": "trigger"}, 1e-7),
        # here logits move with the image, up teeth that are 2e-5 high
        ("grad_cam_gadget", {"goal": "random", "form": "mod", "strength": 1}, 1e-9),
    ],
)
def test_gradients_are_those_of_the_function(name, options, step):
    problem = in_double("small_cnn", count=2)
    images = pictures(2, 28, 1, seed=5)  # not on the data, where dead pixels have a say
    other = build(name, **options).manipulate(problem)
    assert agrees_with_finite_differences(other, images, step)


def test_a_gradient_that_is_no_functions_is_caught():
    """The canary: a value of zero whose gradient autograd alone believes in."""

    class Trick(Wrapper):
        def forward(self, images: Tensor) -> Tensor:
            h = 30 * images.flatten(1).sum(1, keepdim=True)
            return self.inner(images) + h - h.detach()

    problem = in_double("small_cnn", count=2)
    images = pictures(2, 28, 1, seed=5)
    assert agrees_with_finite_differences(problem.model, images)
    assert not agrees_with_finite_differences(Trick(problem.model), images)


@pytest.mark.parametrize("name", ["logit_shift", "dead_pixels", "grad_cam_gadget"])
def test_the_manipulated_network_does_not_depend_on_the_images_beside(name):
    whole = in_double("small_cnn")
    images, targets = whole.images * 0.9, whole.targets
    networks = [build(name).manipulate(p) for p in (whole, *(part(whole, [i]) for i in range(4)))]
    for explain in (explainer("gradient"), explainer("grad_cam")):
        first, *others = (explain.explain(net, images, targets) for net in networks)
        assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("logit_shift", {"strength": 0}, "strength"),
        ("logit_shift", {"strength": float("nan")}, "strength"),
        ("logit_shift", {"picture": "dog"}, "picture"),
        ("logit_shift", {"form": "shift"}, "form"),
        ("logit_shift", {"colour": 1}, "colour"),
        ("dead_pixels", {"strength": float("inf")}, "strength"),
        ("dead_pixels", {"margin": -1}, "margin"),
        ("dead_pixels", {"data": "mnist5k"}, "data"),
        ("grad_cam_gadget", {"strength": -1.0}, "strength"),
        ("grad_cam_gadget", {"goal": "lie"}, "goal"),
        ("grad_cam_gadget", {"sticker": (0.5, 0.5, 1.1, 0.9)}, "sticker"),
        ("grad_cam_gadget", {"sticker": (0.5, 0.5, 0.4, 0.9)}, "sticker"),
        ("grad_cam_gadget", {"sticker": (0, 0, 1, 1)}, "sticker"),
    ],
)
def test_bad_options_are_refused(name, options, field):
    with pytest.raises(InvalidInput, match=rf"^{name}\.{field}: "):
        build(name, **options)
