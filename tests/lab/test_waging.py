"""Who is measured on which model, what is waged against whom, and what is left out."""

import pytest

from robustlab import data
from robustlab.core.errors import InvalidInput
from robustlab.lab.plan import make_plan
from tests.lab import tiny

DIGITS = data.load("mnist_5k")


def plan(**changes):
    return make_plan(tiny.spec(**changes), DIGITS)


def refusal(**changes) -> str:
    with pytest.raises(InvalidInput) as caught:
        plan(**changes)
    return str(caught.value)


def test_an_explainer_is_measured_on_its_own_models_only():
    made = plan(
        models=["small_cnn", "small_resnet"],
        explainers=["gradient", {"name": "cam", "models": "small_resnet"}],
    )
    measured = {(c.model.label, m.label) for c in made.cells for m in c.measured}
    assert measured == {
        ("small_cnn", "gradient"),
        ("small_resnet", "gradient"),
        ("small_resnet", "cam"),
    }
    aimed = {(c.model.label, c.against.label) for c in made.cells if c.against}
    assert aimed == measured


def test_an_attack_is_made_on_its_own_models_only():
    made = plan(
        models=["small_cnn", "small_resnet"],
        attacks=["none", {"name": "pgd", "steps": 2, "models": ["small_resnet"]}],
    )
    waged = {(c.model.label, c.waged.label) for c in made.cells if c.waged.role != "control"}
    assert waged == {
        ("small_cnn", "none"),
        ("small_resnet", "none"),
        ("small_resnet", "pgd"),
    }


def test_a_list_of_aims_is_each_of_these():
    attack = {"name": "top_k", "k": 20, "steps": 2, "against": ["gradient", "lrp"]}
    made = plan(explainers=["gradient", "grad_cam", "lrp"], attacks=[attack])
    for cell in made.cells:
        assert cell.measured == (cell.against,)
    assert {c.against.label for c in made.cells} == {"gradient", "lrp"}


def test_each_leaves_out_what_has_no_gradient_and_says_so():
    made = plan(explainers=["gradient", "lime"])
    assert made.left_out == (("top_k", "lime"),)
    aimed = [c for c in made.cells if c.against]
    assert {c.against.label for c in aimed} == {"gradient"}
    assert {c.waged.role for c in aimed} == {"attack", "control"}
    assert any(m.label == "lime" for c in made.cells for m in c.measured), "measured all the same"


@pytest.mark.parametrize("against", ["lime", ["gradient", "lime"]])
def test_a_gradient_attack_on_what_has_none_is_refused_with_what_works(against):
    message = refusal(
        explainers=["gradient", "lime"],
        attacks=[{"name": "top_k", "k": 20, "steps": 2, "against": against}],
    )
    assert "attacks.0.against" in message
    assert "black_box attacks any explainer" in message


def test_a_disturbed_model_needs_no_budget_and_has_no_control():
    made = plan(attacks=["none", {"name": "random_weights", "share": 0.5}], budgets=[])
    assert {(w.label, w.role, w.disturbs) for w in made.waged} == {
        ("none", "none", "image"),
        ("random_weights", "attack", "model"),
    }
    assert {c.budget.epsilon for c in made.cells} == {0.0}
    assert len(made.cells) == 2 * tiny.CHUNKS


def test_an_attack_on_images_needs_a_budget():
    assert "'pgd' disturbs images and needs at least one" in refusal(budgets=[])


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        (
            {"explainers": [{"name": "gradient", "models": ["smallcnn"]}]},
            ["explainers.0.models", "did you mean 'small_cnn'"],
        ),
        ({"attacks": [{"name": "none", "models": "cnn"}]}, ["attacks.0.models", "small_cnn"]),
        (
            {"models": ["small_cnn", "small_resnet"],
             "explainers": [{"name": "gradient", "models": "small_cnn"}]},
            ["explainers", "none makes a map of 'small_resnet'"],
        ),
        (
            {"attacks": [{"name": "top_k", "against": ["gradient", "gradcam"]}]},
            ["attacks.0.against", "did you mean 'grad_cam'"],
        ),
        ({"explainers": ["activation_maximization"]}, ["none makes a map of 'small_cnn'"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(changes, fragments):
    message = refusal(**changes)
    assert all(fragment in message for fragment in fragments), message


def test_keys_of_earlier_experiments_do_not_depend_on_who_is_measured_where():
    whole = plan()
    named = plan(explainers=[{"name": "gradient", "models": "small_cnn"}, "grad_cam"])
    assert [c.key for c in whole.cells] == [c.key for c in named.cells]


def test_an_attack_may_have_seeds_of_its_own():
    attacks = ["none", {"name": "top_k", "k": 20, "steps": 2, "seeds": [3]}, {"name": "pgd"}]
    made = make_plan(tiny.spec(attacks=attacks, seeds=[0, 1]), data.load("mnist_5k"))
    seeds = {}
    for cell in made.cells:
        seeds.setdefault(cell.waged.label, set()).add(cell.seed)
    assert seeds == {
        "none": {0, 1}, "top_k": {3}, "random_sign (top_k)": {3}, "pgd": {0, 1},
        "random_sign": {0, 1},
    }  # fmt: skip


@pytest.mark.parametrize("seeds", [[], [1, 1], ["a"]])
def test_seeds_of_an_attack_are_checked(seeds):
    with pytest.raises(InvalidInput, match=r"attacks\.0\.seeds|attacks.0.top_k.seeds"):
        tiny.spec(attacks=[{"name": "top_k", "k": 20, "seeds": seeds}])
