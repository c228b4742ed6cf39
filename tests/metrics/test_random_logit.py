"""Another class: against maps made by hand, and how it is drawn."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy import stats

from robustlab.core.errors import InvalidInput
from robustlab.metrics import build
from robustlab.metrics.randomisation import RandomLogit
from tests.metrics.randomising import (
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


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_map_of_another_class(similarity):
    problem = problem_of()
    metric = RandomLogit(similarity=similarity)
    others = metric.other_classes(problem)
    assert (others != problem.targets).all()
    other = maps_on(replace(problem, targets=others), problem.model)
    assert torch.equal(examined(metric, problem), build(similarity)(problem.maps, other))


def test_rows_of_a_linear_model():
    weight = drawn(4, 144)
    problem = linear(Reset(weight, weight), classes=4, count=6)
    metric = RandomLogit(similarity="spearman")
    others = metric.other_classes(problem)
    expected = spearman(weight[problem.targets], weight[others])
    assert examined(metric, problem).tolist() == pytest.approx(expected, abs=1e-12)


def test_of_two_classes_it_is_the_other_one():
    weight = drawn(1, 144)
    problem = linear(Reset(torch.cat([weight, -weight]), torch.zeros(2, 144)))
    assert torch.equal(RandomLogit().other_classes(problem), 1 - problem.targets)
    value = examined(RandomLogit(similarity="pearson"), problem)
    assert value.tolist() == pytest.approx([-1, -1], abs=1e-12)


def test_other_classes_are_all_alike_and_never_the_own():
    """χ² of 3000 draws over four other classes, for two explained ones."""
    problem = linear(Reset(drawn(5, 144), drawn(5, 144)), classes=5)
    names = tuple(f"picture {i}" for i in range(3000))
    for own in (0, 3):
        targets = torch.full((len(names),), own)
        many = replace(problem, ids=names, targets=targets)
        counts = Counter(RandomLogit().other_classes(many).tolist())
        assert sorted(counts) == [c for c in range(5) if c != own]
        assert stats.chisquare(list(counts.values())).pvalue > 0.01
        canary = torch.randint(0, 5, (3000,), generator=torch.Generator().manual_seed(0))
        assert own in canary.tolist()


def test_draws_belong_to_seed_and_name():
    problem = linear(Reset(drawn(9, 144), drawn(9, 144)), classes=9, count=8)
    first = RandomLogit().other_classes(problem)
    torch.rand(3)
    assert torch.equal(RandomLogit().other_classes(replace(problem, seed=4)), first)
    swapped = replace(problem, ids=problem.ids[::-1], targets=problem.targets.flip(0))
    assert torch.equal(RandomLogit().other_classes(swapped), first.flip(0))
    assert not torch.equal(RandomLogit(seed=1).other_classes(problem), first)


def test_one_class_has_no_other():
    problem = linear(Reset(drawn(1, 144), drawn(1, 144)), classes=1)
    with pytest.raises(InvalidInput, match="one class") as caught:
        RandomLogit().examine(problem, never)
    assert caught.value.field == "model"
