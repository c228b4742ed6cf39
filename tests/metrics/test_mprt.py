"""Other weights: against networks randomised by hand, and known maps."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from attacks.model.randomisation import RandomWeights
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.metrics import build
from robustlab.metrics.ordering import ranking
from robustlab.metrics.randomisation import MPRT
from tests.metrics.randomising import (
    LAYERS,
    ORDERS,
    SIMILARITIES,
    Reset,
    drawn,
    examined,
    linear,
    maps_on,
    never,
    problem_of,
    spearman,
)


def by_hand(problem, order, how, groups, seed):
    """The maps of networks whose layers, by name, lose their weights group by group."""
    found, model = [], deepcopy(problem.model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for group in groups:
            model = deepcopy(problem.model) if order == "independent" else model
            for name in group:
                layer = model.get_submodule(name)
                if how == "fresh":
                    layer.reset_parameters()
                    continue
                for p in layer.parameters():
                    p.data = p.data.flatten()[torch.randperm(p.numel())].view_as(p)
            found.append(maps_on(problem, model))
    return found


@pytest.mark.parametrize("how", ["fresh", "shuffled"])
@pytest.mark.parametrize("order", ORDERS)
def test_layers_lose_their_weights_one_by_one(order, how):
    problem = problem_of()
    names = LAYERS if order == "bottom_up" else LAYERS[::-1]
    maps = by_hand(problem, order, how, [[name] for name in names], seed=3)
    each = [spearman(problem.maps, m) for m in maps]
    value = examined(MPRT(order=order, how=how, seed=3), problem)
    assert value.tolist() == pytest.approx(np.mean(each, axis=0), abs=1e-12)
    with_the_true_one = np.mean([*each, [1, 1, 1]], axis=0)  # as Quantus has it
    canaries = [spearman(problem.maps, maps[-1]), with_the_true_one]
    assert not any(value.tolist() == pytest.approx(c, abs=1e-3) for c in canaries)


@pytest.mark.parametrize("order", ORDERS)
def test_layers_in_groups(order):
    problem = problem_of()
    names = LAYERS if order == "bottom_up" else LAYERS[::-1]
    groups = [names[:2], names[2:4], names[4:]]  # 5/3 and 10/3, rounded up
    maps = by_hand(problem, order, "fresh", groups, seed=0)
    expected = np.mean([spearman(problem.maps, m) for m in maps], axis=0)
    value = examined(MPRT(order=order, stages=3), problem)
    assert value.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("name", ["gradient", "grad_cam", "smooth_grad"])
def test_the_networks_are_those_of_the_attack(net, name):
    problem = problem_of(net, name, **({"samples": 3} if name == "smooth_grad" else {}))
    problem = replace(problem, seed=5)
    attacks = [RandomWeights(share=k / 4) for k in (1, 2, 3, 4)]
    maps = [maps_on(problem, attack.manipulate(problem)) for attack in attacks]
    spearmans = np.mean([spearman(problem.maps, m) for m in maps], axis=0)
    value = examined(MPRT(stages=4, seed=5), problem)
    assert value.tolist() == pytest.approx(spearmans, abs=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_similarity_is_the_metric_of_that_name(similarity):
    problem = problem_of()
    other = maps_on(problem, RandomWeights().manipulate(problem))
    value = examined(MPRT(similarity=similarity, stages=1), problem)
    assert torch.equal(value, build(similarity)(problem.maps, other))


@pytest.mark.parametrize("similarity", ["spearman", "kendall"])
def test_the_map_is_ranked_only_once(similarity, monkeypatch):
    ranked, problem = [], problem_of()

    def counted(rows):
        ranked.append(rows)
        return ranking(rows)

    monkeypatch.setattr("robustlab.metrics.ranks.ranking", counted)
    examined(MPRT(similarity=similarity), problem)
    (rows,) = ranked  # not once for each of five networks
    assert torch.equal(rows, problem.maps.flatten(1).double())


@pytest.mark.parametrize(
    ("become", "expected"),
    [
        (lambda w: w, 1),  # a layer that is reset to what it was
        (lambda w: 3 * w, 1),
        (lambda w: -w, -1),
        (lambda w: torch.zeros_like(w), 0),  # an empty map
        (lambda w: torch.full_like(w, 0.2), 0),  # a constant one
    ],
)
def test_a_linear_model_whose_random_weights_are_known(become, expected):
    weight = drawn(2, 144)
    value = examined(MPRT(), linear(Reset(weight, become(weight))))
    assert value.tolist() == pytest.approx([expected] * 2, abs=1e-12)


def test_two_linear_layers_and_three_orders():
    first, second = drawn(3, 144), drawn(2, 3, seed=1)
    other_first, other_second = drawn(3, 144, seed=2), drawn(2, 3, seed=3)
    problem = linear(Reset(first, other_first), Reset(second, other_second))

    def mean(*products):
        return np.mean([spearman(second @ first, p) for p in products], axis=0)

    expected = {
        "top_down": mean(other_second @ first, other_second @ other_first),
        "bottom_up": mean(second @ other_first, other_second @ other_first),
        "independent": mean(other_second @ first, second @ other_first),
    }
    for order in ORDERS:
        value = examined(MPRT(order=order), problem).tolist()
        assert value == pytest.approx(expected[order], abs=1e-12)


def test_the_class_stays_whatever_the_random_network_predicts():
    weight = drawn(2, 144)
    problem = linear(Reset(weight, weight.flip(0)))  # the classes change places
    crossed = spearman(weight, weight.flip(0))
    assert examined(MPRT(), problem).tolist() == pytest.approx(crossed, abs=1e-12)
    assert max(crossed) < 0.5  # explaining the new prediction would find the old map again


def test_the_seed_makes_the_networks_and_names_do_not():
    problem = problem_of()
    value = examined(MPRT(), problem)
    torch.rand(3)
    renamed = replace(problem, ids=("a", "b", "c"), seed=9)
    assert torch.equal(examined(MPRT(), renamed), value)
    assert (examined(MPRT(seed=1), problem) != value).all()


def test_a_model_without_weights_is_refused():
    problem = replace(problem_of(), model=nn.Flatten())
    with pytest.raises(InvalidInput, match="nothing can be randomised"):
        MPRT().examine(problem, never)


def test_an_explainer_whose_layer_was_chosen_keeps_it():
    problem = problem_of("plain", "grad_cam")
    assert problem.explainer == problem.explainer.resolved(problem.model, problem.images)
    seen = []

    @dataclass(frozen=True)
    class Watching(type(problem.explainer)):
        def explain(self, *args, **kwargs):
            seen.append(self.layer)
            return super().explain(*args, **kwargs)

        def resolved(self, *_):
            raise AssertionError("chosen again")

    watching = Watching(**options_of(problem.explainer))
    examined(MPRT(), replace(problem, explainer=watching))
    assert len(seen) == len(LAYERS) and {*seen} == {problem.explainer.layer}
    assert problem.explainer.layer is not None
