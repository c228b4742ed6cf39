"""Randomised models: which weights change, which stay, and that the original is untouched."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.model.randomisation import OtherWeights, RandomWeights, layers_from_the_output
from robustlab import models
from robustlab.core.errors import InvalidInput
from tests.attacks.problems import posed
from tests.nets import ResNetLike, pictures, seeded

LAYERS = ("conv1", "conv2", "fc1", "fc2")


def problem_of(model: nn.Module, images: Tensor, seed: int = 0):
    return replace(posed("plain"), model=model, images=images, seed=seed)


@pytest.fixture
def digits():
    return problem_of(models.load("small_cnn"), torch.rand(2, 1, 28, 28))


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    new = dict(after.named_parameters())
    return {name for name, value in before.named_parameters() if not torch.equal(value, new[name])}


def names(*layers: str) -> set[str]:
    return {f"net.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


@pytest.mark.parametrize("how", ["fresh", "shuffled"])
@pytest.mark.parametrize(
    ("share", "independent", "layers"),
    [
        (0.01, False, LAYERS[3:]),
        (0.25, False, LAYERS[3:]),
        (0.5, False, LAYERS[2:]),
        (0.75, True, LAYERS[1:2]),
        (1.0, False, LAYERS),
        (1.0, True, LAYERS[:1]),
    ],
)
def test_the_layers_nearest_to_the_output_change_and_no_others(
    digits, share, independent, layers, how
):
    before = deepcopy(digits.model.state_dict())
    attack = RandomWeights(share=share, independent=independent, how=how)
    other = attack.manipulate(digits)
    assert changed(digits.model, other) == names(*layers)
    assert all(torch.equal(value, before[key]) for key, value in digits.model.state_dict().items())
    assert not any(module._forward_hooks for module in digits.model.modules())
    assert not any(module._forward_hooks for module in other.modules())


def test_shuffled_weights_are_the_same_numbers_elsewhere(digits):
    other = RandomWeights(how="shuffled").manipulate(digits)
    for old, new in zip(digits.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)


def test_one_seed_is_one_model_and_the_global_generator_does_not_move(digits):
    state = torch.get_rng_state()
    first, second = (RandomWeights().manipulate(digits) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert changed(first, second) == set()
    assert changed(first, RandomWeights().manipulate(replace(digits, seed=1))) == names(*LAYERS)


def test_layers_count_in_the_order_in_which_they_run_not_in_which_they_were_written():
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.mean((2, 3))))

    net = seeded(Reversed)
    assert layers_from_the_output(net, pictures(1)) == [net.last, net.first]


def test_fresh_batch_norms_forget_their_statistics_and_shuffled_ones_keep_them():
    problem = problem_of(seeded(ResNetLike), pictures())
    fresh, shuffled = (RandomWeights(how=how).manipulate(problem) for how in ("fresh", "shuffled"))
    old, new = problem.model.stem[1], fresh.stem[1]
    assert torch.equal(new.running_mean, torch.zeros_like(old.running_mean))
    assert torch.equal(shuffled.stem[1].running_mean, old.running_mean)


def test_parameters_without_an_initialisation_of_their_own_are_shuffled():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(50.0).double())

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) @ self.weight[:15].view(3, 5)

    problem = problem_of(Scaled().eval(), pictures())
    other = RandomWeights().manipulate(problem)
    assert not torch.equal(other.weight, problem.model.weight)
    assert torch.equal(other.weight.sort().values, problem.model.weight)


def test_other_weights_are_the_ones_asked_for(digits):
    random = models.load("small_cnn", weights="none", seed=3)
    other = OtherWeights(weights="mnist_5k").manipulate(replace(digits, model=random))
    assert changed(other, digits.model) == set()
    assert changed(other, random) == names(*LAYERS)


@pytest.mark.parametrize(
    ("call", "field", "words"),
    [
        (lambda p: RandomWeights(share=0), "share", "above 0"),
        (lambda p: RandomWeights(share=1.5), "share", "at most 1"),
        (lambda p: OtherWeights(weights="nowhere").manipulate(p), "weights", "neither shipped"),
        (lambda p: OtherWeights().manipulate(replace(p, model=nn.Flatten())), "model", "load"),
        (lambda p: RandomWeights().manipulate(replace(p, model=nn.Flatten())), "model", "nothing"),
    ],
)
def test_what_cannot_be_randomised_is_refused(digits, call, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        call(digits)
    assert caught.value.field == field
