"""What `mprt` and `random_logit` both promise, whatever the weights or the class."""

import dataclasses
import math
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.types import ExplainerMetric, MapMetric, ModelMetric, RegionMetric
from robustlab.metrics import METRICS, build
from robustlab.metrics.randomisation import MPRT, RandomLogit
from tests.attacks.problems import posed
from tests.metrics.randomising import (
    LAYERS,
    SIMILARITIES,
    Reset,
    drawn,
    examined,
    linear,
    never,
    problem_of,
)
from tests.nets import pictures, seeded

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
BOTH = ("mprt", "random_logit")
METRICS_TRIED = [MPRT(), MPRT(order="independent", how="shuffled"), RandomLogit(), MPRT(stages=2)]
TRIED = pytest.mark.parametrize("metric", METRICS_TRIED, ids=range(len(METRICS_TRIED)))


# What they declare.


@pytest.mark.parametrize("name", BOTH)
def test_class_describes_itself(name):
    cls = METRICS[name]
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert cls.name == name and build(name) == cls() and hash(build(name)) == hash(cls())
    assert all(word in cls.__doc__ for word in ("[B,H,W]", "float64", "ies", "Source:", "Cost"))
    assert isinstance(cls(), ExplainerMetric) and not callable(cls())
    assert not isinstance(cls(), RegionMetric | ModelMetric | MapMetric)
    assert cls.bounds == (-1, 1) and not cls.higher_is_more_stable


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("mprt", {"similarity": "mse"}, "mprt.similarity"),
        ("mprt", {"order": "sideways"}, "mprt.order"),
        ("mprt", {"how": "zero"}, "mprt.how"),
        ("mprt", {"stages": 0}, "mprt.stages"),
        ("mprt", {"layers": 3}, "mprt.layers"),
        ("random_logit", {"similarity": "mse"}, "random_logit.similarity"),
    ],
)
def test_options_that_are_refused(name, options, field):
    with pytest.raises(InvalidInput) as caught:
        build(name, **options)
    assert caught.value.field == field
    option = field.partition(".")[2]
    if option != "layers":  # without build as well
        with pytest.raises(InvalidInput):
            METRICS[name](**options)


# What holds of the numbers.


@quick
@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    similarity=st.sampled_from(SIMILARITIES),
    c=st.floats(0.01, 100),
)
def test_blind_to_the_scale_of_maps_and_within_bounds(seeds, similarity, c):
    weight, spare = (drawn(2, 144, seed=s) for s in seeds)
    problem = linear(Reset(weight, spare))
    for metric in (MPRT(similarity=similarity), RandomLogit(similarity=similarity)):
        value = examined(metric, problem)
        scaled = examined(metric, replace(problem, maps=c * problem.maps))
        torch.testing.assert_close(scaled, value, rtol=0, atol=1e-10)
    same = examined(MPRT(similarity=similarity), linear(Reset(weight, weight)))
    torch.testing.assert_close(same, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_map_that_knows_nothing_of_the_model_does_not_change():
    problem = problem_of("plain", "fixed_map")
    for metric in (MPRT(), RandomLogit(), RandomLogit(similarity="kendall")):
        assert examined(metric, problem).tolist() == pytest.approx([1] * 3, abs=1e-12)


@TRIED
def test_an_image_knows_nothing_of_its_neighbours(metric):
    problem = problem_of()
    whole = examined(metric, problem)
    for i in range(3):
        one = replace(
            problem, ids=problem.ids[i : i + 1],
            **{k: getattr(problem, k)[i : i + 1] for k in ("images", "targets", "maps")},
        )  # fmt: skip
        torch.testing.assert_close(examined(metric, one), whole[i : i + 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["grad_cam", "lrp", "integrated_gradients", "occlusion"])
def test_any_explainer_will_do(name):
    problem = problem_of("residual", name)
    for metric in (MPRT(stages=2), RandomLogit()):
        assert examined(metric, problem).max() < 1 - 1e-6


def test_small_maps_are_refused_in_the_similarity_s_own_words():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)))
    problem = posed(net, images=pictures(2, 6))
    with pytest.raises(InvalidInput, match="11x11"):
        RandomLogit().examine(problem, never)
    assert math.isfinite(examined(RandomLogit(similarity="pearson"), problem).sum())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@TRIED
def test_cuda_agrees_with_the_cpu(metric):
    problem = problem_of("residual")
    expected = examined(metric, problem)
    moved = {k: getattr(problem, k).cuda() for k in ("images", "targets", "maps")}
    there = replace(problem, model=deepcopy(problem.model).cuda(), **moved)
    before = torch.cuda.get_rng_state()
    value = metric.examine(there, never)
    assert value.is_cuda and torch.equal(torch.cuda.get_rng_state(), before)
    torch.testing.assert_close(value.cpu(), expected, rtol=0, atol=1e-6)


# What is left behind, and what it costs.


def state_of(model):
    """Everything that could have been changed, bytes and flags."""
    return {
        "bytes": {k: v.numpy().tobytes() for k, v in model.state_dict().items()},
        "where": [p.data_ptr() for p in model.parameters()],
        "flags": [(p.requires_grad, p.grad is None) for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in model.modules()
        ],
        "generator": torch.get_rng_state().numpy().tobytes(),
    }


def untouched(metric, problem) -> bool:
    before, images, maps = state_of(problem.model), problem.images.clone(), problem.maps.clone()
    with suppress(InvalidInput):
        metric.examine(problem, never)
    same = torch.equal(problem.images, images) and torch.equal(problem.maps, maps)
    return same and state_of(problem.model) == before


@dataclass(frozen=True)
class Careless(MPRT):
    """Randomises the user's own network."""

    def examine(self, problem, climb):
        for layer in problem.model.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return super().examine(problem, climb)


class Failing:
    """Explains once and then refuses."""

    def __init__(self, inner, after):
        self.inner, self.after, self.calls = inner, after, 0
        self.post, self.cost = inner.post, inner.cost

    def explain(self, *args, **kwargs):
        self.calls += 1
        if self.calls > self.after:
            raise InvalidInput("explainer", "has had enough")
        return self.inner.explain(*args, **kwargs)


@TRIED
@pytest.mark.parametrize("net", ["plain", "residual"])
def test_the_model_is_left_as_it_was(metric, net):
    problem = problem_of(net)
    assert untouched(metric, problem)
    for after in (0, 1):
        failing = replace(problem, explainer=Failing(problem.explainer, after))
        assert untouched(metric, failing)
        assert failing.explainer.calls == (after + 1 if metric.name == "mprt" else 1)
    own = replace(problem, model=deepcopy(problem.model))
    assert not untouched(Careless(), own)  # a canary


@TRIED
def test_cost_is_at_most_what_is_stated(metric):
    seen = {"forward": 0, "backward": 0}

    class Tallied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = problem_of().model

        def forward(self, x: Tensor) -> Tensor:
            seen["forward"] += len(x)
            x = x.clone()
            if x.requires_grad:
                x.register_hook(lambda g: seen.update(backward=seen["backward"] + len(g)))
            return self.inner(x)

    problem = replace(problem_of(), model=Tallied().eval())
    stated = metric.cost(problem.explainer)
    examined(metric, problem)
    one = problem.explainer.cost()
    maps = min(metric.stages, len(LAYERS)) if metric.name == "mprt" else 1
    assert seen == {"forward": 3 * maps * one.forward + 1, "backward": 3 * maps * one.backward}
    assert seen["forward"] <= 3 * stated.forward and seen["backward"] <= 3 * stated.backward
    if maps == getattr(metric, "stages", 1):
        assert stated.backward == maps * one.backward and stated.forward == maps * one.forward + 1
