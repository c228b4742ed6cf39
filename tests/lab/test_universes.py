"""A multiverse's variants: every combination once, each under a label that says what it is."""

import json
from itertools import product

import pytest

from robustlab import data
from robustlab.core.errors import InvalidInput
from robustlab.lab.plan import make_plan
from robustlab.lab.run import run_experiment
from robustlab.lab.universes import expanded
from robustlab.lab.waging import all_measured
from tests.lab import tiny

CHOICES = {"score": ["logit", "prob"], "post": ["own", "signed"], "target": ["prediction", "label"]}


def made(explainers, choices):
    return expanded(all_measured(tiny.spec(explainers=explainers)), choices)


def test_every_combination_is_one_universe_with_one_variant_of_each():
    variants, universes = made(["gradient", "grad_cam"], CHOICES)
    assert [u.choices for u in universes] == [
        tuple(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())
    ]
    by_label = {v.label: v for v in variants}
    for universe in universes:
        wanted = dict(universe.choices)
        for base, label in universe.members:
            one = by_label[label]
            assert one.name == base
            assert one.explainer.score == wanted["score"]
            assert one.target == wanted["target"]
            own = {"gradient": "abs_sum", "grad_cam": "signed"}[base]
            assert one.explainer.post == (own if wanted["post"] == "own" else "signed")


def test_variants_that_are_the_same_are_one_and_the_explainer_itself_keeps_its_label():
    variants, universes = made(["gradient", "grad_cam"], {"post": ["own", "signed"]})
    assert [v.label for v in variants] == ["gradient", "gradient (post=signed)", "grad_cam"]
    assert [dict(u.members)["grad_cam"] for u in universes] == ["grad_cam", "grad_cam"]


def test_a_choice_that_an_explainer_does_not_have_leaves_it_alone():
    variants, universes = made(["gradient", "lrp"], {"score": ["logit", "prob"]})
    assert [v.label for v in variants] == ["gradient", "gradient (score=prob)", "lrp"]
    assert {dict(u.members)["lrp"] for u in universes} == {"lrp"}


def test_without_choices_nothing_is_expanded():
    variants, universes = made(["gradient", "lrp"], {})
    assert [v.label for v in variants] == ["gradient", "lrp"]
    assert universes == ()


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        ({"scor": ["logit"]}, "multiverse.scor", "did you mean 'score'"),
        ({"score": ["proob"]}, "multiverse: gradient.score", "proob"),
        ({"target": ["labell"]}, "multiverse: target", "did you mean 'label'"),
        ({"post": ["own", "own"]}, "multiverse.post", "twice"),
    ],
)
def test_impossible_choices_are_refused_by_name(choices, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        made(["gradient"], choices)
    assert caught.value.field == field


def test_the_manifest_says_who_stands_for_whom_and_every_variant_is_attacked(tmp_path):
    spec = tiny.spec(
        images=2, saving=[], explainers=["gradient", "lrp"], multiverse={"score": ["logit", "prob"]}
    )
    assert run_experiment(spec, tmp_path, workers=1).crashed == ()
    said = json.loads((tmp_path / "experiment.json").read_text())
    assert said["universes"] == [
        {"choices": {"score": "logit"}, "members": {"gradient": "gradient", "lrp": "lrp"}},
        {
            "choices": {"score": "prob"},
            "members": {"gradient": "gradient (score=prob)", "lrp": "lrp"},
        },
    ]
    assert {c["against"] for c in said["plan"]} >= {"gradient", "gradient (score=prob)", "lrp"}


def test_an_experiment_without_choices_is_the_same_experiment_as_before():
    spec = tiny.spec()
    dataset = data.load(spec.data.name)
    one = make_plan(spec, dataset)
    other = make_plan(tiny.spec(multiverse={}), dataset)
    assert one.fingerprint == other.fingerprint
    assert [c.key for c in one.cells] == [c.key for c in other.cells]
