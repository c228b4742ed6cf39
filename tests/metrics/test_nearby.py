"""What every metric of images nearby declares, refuses and keeps, sampled or searched."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attacks.explanation.climbing import climb_to
from robustlab.core import streaming
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.core.types import ExplainerMetric, Passes, Problem
from robustlab.core.wrapping import Counted
from robustlab.explainers.gradient.plain import Gradient
from robustlab.metrics import METRICS, build
from tests.attacks.problems import posed
from tests.metrics.nearby import ALL, RELATIVE, SEARCHED, Scaled, Told, examined, never, problem_of
from tests.nets import pictures


@pytest.mark.parametrize("name", ALL)
def test_class_describes_and_rebuilds_itself(name):
    cls = METRICS[name]
    metric = build(name, samples=3, radius=0.1)
    assert cls.name == name and isinstance(metric, ExplainerMetric) and not callable(metric)
    assert build(name, **options_of(metric)) == metric and hash(metric)
    assert all(f.kw_only for f in dataclasses.fields(cls))
    assert isinstance(metric.cost(Gradient()), Passes)
    words = ("one float64 number", "ties", "constant", "all", "hance", "ost", "Source:", "[B]")
    text = " ".join(cls.__doc__.split()).replace("One float", "one float").replace("Ties", "ties")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("name", "options", "field", "words"),
    [
        ("max_sensitivity", {"samples": 0}, "samples", "at least 1"),
        ("max_sensitivity", {"steps": 0}, "steps", "at least 1"),
        ("max_sensitivity", {"radius": 0}, "radius", "above 0"),
        ("max_sensitivity", {"radius": 8}, "radius", "at most 1"),
        ("max_sensitivity", {"search": "gradients"}, "search", "gradient"),
        ("max_sensitivity", {"compare": "maps"}, "compare", "map"),
        ("avg_sensitivity", {"search": "gradient"}, "search", "where the search has been"),
        ("local_lipschitz", {"floor": 0}, "floor", "above 0"),
        ("ris", {"floor": 1}, "floor", "below 1"),
        ("ros", {"eps_min": 0}, "eps_min", "above 0"),
        ("rrs", {"eps_min": -1}, "eps_min", "above 0"),
    ],
)
def test_impossible_options_are_refused(name, options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **options)
    assert caught.value.field == f"{name}.{field}"


@pytest.mark.parametrize("name", ALL)
def test_scale(name):
    one, more = (replace(problem_of("plain"), explainer=Scaled(factor=f)) for f in (1.0, 1e-18))
    more = replace(more, maps=1e-18 * one.maps, raw=1e-18 * one.raw)
    values = [examined(name, p, samples=4, compare="raw") for p in (one, more)]
    factor = 1e-18 if name == "local_lipschitz" else 1.0
    torch.testing.assert_close(values[1], factor * values[0], rtol=1e-9, atol=0)


def part_of(problem: Problem, where: slice) -> Problem:
    cut = {k: v[where] for k, v in vars(problem).items() if isinstance(v, Tensor | tuple)}
    return replace(problem, **cut)


@pytest.mark.parametrize("name", ALL)
def test_neither_the_batch_nor_the_program_plays_a_part(name, monkeypatch):
    problem = posed("residual", "gradient", pictures(5))
    searching = {} if name == "avg_sensitivity" else {"search": "gradient", "steps": 3}
    options = {"samples": 3, **searching}
    whole = examined(name, problem, climb_to, **options)
    assert whole.std() > 0
    state = torch.get_rng_state()
    weights = [p.clone() for p in problem.model.parameters()]
    flags = [p.requires_grad for p in problem.model.parameters()]
    for side in (1, 3):
        monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", side * 144)
        parts = [
            examined(name, part_of(problem, slice(i, i + side)), climb_to, **options)
            for i in range(0, 5, side)
        ]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            examined(name, problem, climb_to, **options), whole, rtol=1e-6, atol=1e-9
        )
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in problem.model.parameters()] == flags
    for now, then in zip(problem.model.parameters(), weights, strict=True):
        assert torch.equal(now, then) and now.grad is None
    renamed = replace(problem, ids=(*problem.ids[:2], "another", *problem.ids[3:]))
    differs = examined(name, renamed, climb_to, **options) != whole
    assert differs.tolist() == [False, False, True, False, False]
    assert examined(name, part_of(problem, slice(0, 0)), never, samples=2).shape == (0,)


@pytest.mark.parametrize("name", ALL)
def test_the_stated_cost_is_what_is_counted(name):
    counted = Counted(problem_of("plain").model)
    problem = replace(problem_of("plain"), model=counted)
    metric = build(name, samples=5)
    metric.examine(problem, never)
    stated = metric.cost(problem.explainer)
    assert (counted.forwards, counted.backwards) == (3 * stated.forward, 3 * stated.backward)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [(0.0, 0.0, 0.0), (0.0, 3.0, 1.0), (2.0, 2.0, 0.0), (2.0, 0.0, 1.0)],
)
def test_constant_and_empty_maps_have_a_value(here, there, expected):
    base = problem_of("plain")
    problem = posed("plain", Told(known=base.images, here=here, there=there))
    for name in ("max_sensitivity", "avg_sensitivity"):
        value = examined(name, problem, samples=3)
        torch.testing.assert_close(value, torch.full((3,), expected).double())
    for name in SEARCHED:
        value = examined(name, problem, samples=3)
        assert bool((value > 0).all()) == (here != there and (here > 0 or name not in RELATIVE))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_attribution_that_is_no_number_is_refused(name, bad):
    base = problem_of("plain")
    for here, there in ((bad, 1.0), (1.0, bad)):
        problem = replace(base, explainer=Told(known=base.images, here=here, there=there))
        problem = replace(problem, raw=None)
        with pytest.raises(InvalidInput, match="explainer: its attribution contains NaN"):
            examined(name, problem, samples=2, compare="raw")
