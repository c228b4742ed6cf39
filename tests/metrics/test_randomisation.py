"""Other weights and other classes: against networks randomised by hand, and known maps."""

import dataclasses
import math
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from attacks.model.randomisation import RandomWeights
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps, pose
from robustlab.core.tables import options_of
from robustlab.core.types import ExplainerMetric, MapMetric, ModelMetric, Problem, RegionMetric
from robustlab.explainers import build as explainer
from robustlab.metrics import METRICS, build
from robustlab.metrics.randomisation import MPRT, RandomLogit
from tests.attacks.problems import posed
from tests.nets import pictures, seeded

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
BOTH = ("mprt", "random_logit")
SIMILARITIES = ("spearman", "kendall", "pearson", "cosine", "ssim")
ORDERS = ("top_down", "bottom_up", "independent")
# of the network "plain" of tests.attacks.problems, the first to run first
LAYERS = ("net.features.0", "net.features.2", "net.features.5", "net.head.0", "net.head.2")


def never(*_):
    raise AssertionError("nothing is searched")


def spearman(a, b):
    """SciPy's, and 0 with a constant map."""
    lines = [(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)]
    varied = [bool(x.min() < x.max() and y.min() < y.max()) for x, y in lines]
    pairs = zip(varied, lines, strict=True)
    return [stats.spearmanr(*line).statistic if some else 0.0 for some, line in pairs]


def examined(metric, problem) -> Tensor:
    value = metric.examine(problem, never)
    low, high = metric.bounds
    assert value.shape == (len(problem.images),) and value.dtype == torch.float64
    assert not value.requires_grad and ((low <= value) & (value <= high)).all()
    return value


def maps_on(problem: Problem, model: nn.Module) -> Tensor:
    return explain_maps(model, problem.explainer, problem.images, problem.targets, problem.ids)


@cache
def problem_of(net="plain", name="gradient", **options) -> Problem:
    return posed(net, explainer(name, **options))


class Reset(nn.Module):
    """x Wᵀ whose "fresh" weights are told: what a layer becomes is known."""

    def __init__(self, weight: Tensor, spare: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.register_buffer("spare", spare.double())

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(self.spare)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def linear(*layers: Reset, classes=2, name="gradient", count=2) -> Problem:
    """A linear model's signed gradient maps are the rows of its product, whatever the image."""
    net = nn.Sequential(*layers).eval()
    images = pictures(count, 12, 1)
    batch = make_batch(images, torch.arange(count) % classes, [f"i{j}" for j in range(count)])
    return pose(net, explainer(name, post="signed"), batch, target="label")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


# Model parameter randomisation.


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


# Random logit.


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


# Promises of both.


METRICS_TRIED = [MPRT(), MPRT(order="independent", how="shuffled"), RandomLogit(), MPRT(stages=2)]
TRIED = pytest.mark.parametrize("metric", METRICS_TRIED, ids=range(len(METRICS_TRIED)))


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
