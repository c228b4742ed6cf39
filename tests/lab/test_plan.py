"""From a spec to cells: complete, free of duplicates, and with keys that mean their numbers."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import InvalidInput
from robustlab.data import Dataset
from robustlab.lab.plan import make_plan
from robustlab.lab.spec import parse_spec
from tests.lab import tiny

IDS = tuple(f"digit/{i}" for i in range(9))
DIGITS = Dataset(
    name="digits",
    ids=IDS,
    labels=(0,) * len(IDS),
    names=("",) * len(IDS),
    read=lambda i: pytest.fail("a plan needs no pixels"),
)


def plan(device="cpu", **changes):
    return make_plan(parse_spec(tiny.raw(**changes)), DIGITS, device=device)


def keys(made, *attacks):
    """Keys of the cells of these attacks, of all by default."""
    return {cell.key for cell in made.cells if not attacks or cell.waged.label in attacks}


# --- any spec ------------------------------------------------------------------------------

thorough = settings(max_examples=30, deadline=None)  # a plan of hundreds of cells takes a while
EXPLAINERS = ["gradient", "grad_cam", {"name": "gradient", "post": "max_abs", "label": "largest"}]
LABELS = ["gradient", "grad_cam", "largest"]
ATTACKS = [
    "none",
    "random_sign",
    "random_noise",
    "fgsm",
    {"name": "pgd", "steps": 2},
    {"name": "top_k", "k": 20, "steps": 3},
    {"name": "top_k", "k": 20, "steps": 3, "label": "aimed", "against": "gradient"},
    {"name": "mass_center", "steps": 2},
]


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique_by=str)


@st.composite
def specs(draw):
    explainers = ["gradient", *draw(some(EXPLAINERS[1:]))]
    return tiny.raw(
        models=draw(some(["small_cnn", {"name": "small_cnn", "label": "twin"}])),
        images=draw(st.none() | st.integers(1, 10)),
        chunk=draw(st.integers(2, 10)),
        explainers=draw(st.permutations(explainers)),
        attacks=draw(some(ATTACKS)),
        budgets=[{"norm": "linf", "epsilon": draw(some([0.0, 0.1, 0.2]))}, {"epsilon": "1/255"}],
        seeds=draw(st.lists(st.integers(0, 5), min_size=1, max_size=2, unique=True)),
        gallery={"images": draw(st.integers(0, 3))},
    )


@given(specs())
@thorough
def test_every_image_and_explainer_is_measured_once_under_every_attack(values):
    spec = parse_spec(values)
    made = make_plan(spec, DIGITS)
    radii = [e for budget in spec.budgets for e in budget.epsilon]
    found = Counter(
        (cell.model.label, cell.seed, cell.waged.label, cell.budget.epsilon, image, m.label)
        for cell in made.cells
        for image in cell.ids
        for m in cell.measured
    )
    expected = Counter(
        place
        for w in made.waged
        for place in product(
            [m.shown for m in spec.models],
            spec.seeds,
            [w.label],
            [0.0] if w.role == "none" else radii,
            IDS[: spec.images],
            [e.shown for e in spec.explainers],
        )
    )
    assert found == expected


@given(specs())
@thorough
def test_chunks_hold_all_images_once_and_in_order(values):
    spec = parse_spec(values)
    groups = {}
    for cell in make_plan(spec, DIGITS).cells:
        aim = cell.against and cell.against.label
        place = (cell.model.label, cell.seed, cell.waged.label, aim, cell.budget)
        groups.setdefault(place, []).append(cell.ids)
    for chunks in groups.values():
        assert sum(chunks, ()) == IDS[: spec.images]
        assert all(len(chunk) == spec.chunk for chunk in chunks[:-1])
        assert 1 <= len(chunks[-1]) <= spec.chunk


@given(specs())
@thorough
def test_keys_are_distinct_and_the_same_every_time(values):
    first, second = (make_plan(parse_spec(values), DIGITS) for _ in range(2))
    assert [c.key for c in first.cells] == [c.key for c in second.cells]
    assert first.fingerprint == second.fingerprint
    assert len(keys(first)) == len(first.cells)
    assert all(key.isalnum() for key in keys(first))  # it becomes a file name


@given(specs())
@thorough
def test_every_attack_that_can_have_a_control_has_one_and_no_more(values):
    made = make_plan(parse_spec(values), DIGITS)
    labels = [w.label for w in made.waged]
    assert len(labels) == len(set(labels))
    own = Counter(w.control_of for w in made.waged if w.control_of)
    assert own == Counter(w.label for w in made.waged if w.name in ("top_k", "mass_center"))
    shared = [w for w in made.waged if w.role == "control" and w.control_of is None]
    wanted = {"random_sign", "fgsm", "pgd"} & {w.name for w in made.waged if not w.control_of}
    assert len(shared) == bool(wanted)


@given(specs())
@thorough
def test_costs_are_positive_and_pictures_are_of_the_first_images(values):
    spec = parse_spec(values)
    pictured = set(IDS[: spec.images][: spec.gallery.images])
    for cell in make_plan(spec, DIGITS).cells:
        assert cell.cost > 0
        assert math.isfinite(cell.cost)
        expected = len(pictured & set(cell.ids)) if cell.seed == spec.seeds[0] else 0
        assert cell.keep == expected


# --- controls ------------------------------------------------------------------------------


def test_an_attack_on_explanations_gets_a_control_of_equal_tries_and_selection():
    made = plan(attacks=["none", {"name": "top_k", "k": 20, "steps": 7, "against": "grad_cam"}])
    attack, control = made.waged[1:]
    assert (control.label, control.control_of) == ("random_sign (top_k)", "top_k")
    assert (control.name, control.role, control.against) == ("random_sign", "control", "grad_cam")
    assert control.attack.tries == attack.attack.steps == 7
    assert control.attack.like == attack.attack


def test_attacks_on_the_prediction_share_one_control():
    made = plan(attacks=["fgsm", {"name": "pgd", "steps": 3}, {"name": "pgd", "label": "again"}])
    controls = [w for w in made.waged if w.role == "control"]
    assert [(w.label, w.control_of, w.against) for w in controls] == [("random_sign", None, "")]
    assert controls[0].attack.tries == 1


@pytest.mark.parametrize("attacks", [["random_sign", "pgd"], ["fgsm", "random_sign", "pgd"]])
def test_a_control_that_the_spec_names_is_not_added_again(attacks):
    made = plan(attacks=attacks)
    assert [w.label for w in made.waged] == attacks
    assert [w.role for w in made.waged if w.name == "random_sign"] == ["control"]
    made = plan(attacks=[{"name": "random_sign", "label": "noise"}, "pgd"])
    assert [w.label for w in made.waged] == ["noise", "pgd"]


def test_doing_nothing_has_one_budget():
    made = plan(budgets=[{"norm": "l2", "epsilon": [1.0, 2.0]}, {"epsilon": 0.1}], chunk=5)
    (cell,) = (c for c in made.cells if c.waged.label == "none")
    assert (cell.budget.norm, cell.budget.epsilon) == ("l2", 0.0)
    assert cell.waged.role == "none"
    radii = {(c.budget.norm, c.budget.epsilon) for c in made.cells if c.waged.label == "pgd"}
    assert radii == {("l2", 1.0), ("l2", 2.0), ("linf", 0.1)}


# --- aims ----------------------------------------------------------------------------------


def _aims(made, label="top_k"):
    return [
        (c.against.label, [m.label for m in c.measured])
        for c in made.cells
        if c.waged.label == label
    ]


def test_against_each_measures_the_explainer_it_aims_at():
    made = plan(attacks=[{"name": "top_k", "k": 20}], chunk=5)
    expected = [("gradient", ["gradient"]), ("grad_cam", ["grad_cam"])]
    assert _aims(made) == _aims(made, "random_sign (top_k)") == expected


def test_against_one_measures_all():
    made = plan(attacks=[{"name": "top_k", "k": 20, "against": "grad_cam"}], chunk=5)
    expected = [("grad_cam", ["gradient", "grad_cam"])]
    assert _aims(made) == _aims(made, "random_sign (top_k)") == expected


def test_against_goes_by_label():
    explainers = [{"name": "gradient", "label": "mine"}, "grad_cam"]
    made = plan(attacks=[{"name": "top_k", "k": 20, "against": "mine"}], explainers=explainers)
    assert {c.against.label for c in made.cells if c.against} == {"mine"}
    with pytest.raises(InvalidInput, match=r"attacks\.0\.against: no explainer is labelled"):
        plan(attacks=[{"name": "top_k", "against": "gradient"}], explainers=explainers)


def test_each_explainer_has_its_own_target():
    explainers = ["gradient", {"name": "gradient", "label": "new", "target": "current"}]
    made = plan(explainers=explainers, target="label")
    assert {m.label: m.target for m in made.measured} == {"gradient": "label", "new": "current"}


# --- what a key means ----------------------------------------------------------------------

PGD, TOP_K = {"name": "pgd", "steps": 2}, {"name": "top_k", "k": 20, "steps": 2}
ALL = ("none", "pgd", "random_sign", "top_k", "random_sign (top_k)")
RADIUS = ALL[1:]


def attacks_with(**changes):
    return {"attacks": ["none", PGD, {**TOP_K, **changes}]}


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"budgets": [{"epsilon": [0.1 + 1e-9]}]}, RADIUS),
        ({"budgets": [{"norm": "l2", "epsilon": [0.1]}]}, ALL),
        ({"seeds": [1]}, ALL),
        ({"chunk": 3}, ALL),
        ({"target": "label"}, ALL),
        ({"target": 0}, ALL),
        ({"explainers": [{"name": "gradient", "score": "prob"}, "lrp"]}, ALL),
        ({"metrics": [{"name": "top_k_intersection", "k": 51}, "spearman"]}, ALL),
        ({"models": [{"name": "small_cnn", "seed": 1}]}, ALL),
        ({"models": [{"name": "small_cnn", "label": "other"}]}, ALL),
        ({"data": {"name": "mnist_5k", "split": "train"}}, ALL),
        ({"data": {"name": "mnist_5k", "label": "other"}}, ALL),
        ({"device": "cuda"}, ALL),
        (attacks_with(k=21), ALL[3:]),
        (attacks_with(steps=3), ALL[3:]),
        (attacks_with(random_start=True), ALL[3:]),
        (attacks_with(label="other"), ALL[3:]),
        ({"attacks": ["none", {**PGD, "steps": 3}, TOP_K]}, ("pgd",)),
        ({"attacks": ["none", {**PGD, "step_size": 0.05}, TOP_K]}, ("pgd",)),
        ({"attacks": ["none", {**PGD, "against": "label"}, TOP_K]}, ("pgd",)),
    ],
    ids=str,
)
def test_a_key_changes_with_whatever_its_numbers_depend_on(changes, affected):
    before, after = plan(), plan(**changes)
    assert not keys(before, *affected) & keys(after)
    untouched = [label for label in ALL if label not in affected]
    if untouched:
        assert keys(before, *untouched) <= keys(after)
    assert before.fingerprint != after.fingerprint


def test_an_option_of_one_explainer_leaves_attacks_on_the_other_alone():
    changed = plan(explainers=["gradient", {"name": "grad_cam", "relu": False}])
    same = keys(plan()) & keys(changed)
    assert same == {c.key for c in changed.cells if c.against and c.against.label == "gradient"}


@pytest.mark.parametrize(
    "changes",
    [
        {"gallery": {"images": 0}},
        {"gallery": {"images": 5, "epsilon": [0.1]}},
        {"smoke": {"images": 1}},
        {"question": "Another?"},
        {"name": "other"},
        {"device": "cpu:0"},
        # the same numbers, written in another way
        {"budgets": [{"norm": "linf", "epsilon": "1/10"}]},
        {"attacks": ["none", {"name": "pgd", "steps": 2.0}, {**TOP_K, "k": "20"}]},
        {"attacks": ["none", {**PGD, "random_start": False}, {**TOP_K, "against": "each"}]},
        {"explainers": [{"name": "gradient", "score": "logit"}, {"name": "grad_cam"}]},
    ],
    ids=str,
)
def test_a_key_does_not_change_with_anything_else(changes):
    assert [c.key for c in plan().cells] == [c.key for c in plan(**changes).cells]


def numbered(revision=0):
    """The digits as if they were the user's own, digit 2 of another revision."""
    return replace(DIGITS, fingerprint=lambda i: f"{i} {revision if i == 2 else 0}")


def test_what_ships_has_a_key_of_names_alone():
    for cell in plan().cells:
        assert cell.key == cell.place
        assert (cell.model.revision, cell.data_revision) == ("", "")


def test_a_changed_picture_changes_the_keys_of_the_cells_that_show_it_and_no_other():
    spec = parse_spec(tiny.raw(images=6, chunk=2))
    before, after = (make_plan(spec, numbered(revision)) for revision in (0, 1))
    for old, new in zip(before.cells, after.cells, strict=True):
        assert old.place == new.place
        assert (old.key == new.key) == (IDS[2] not in new.ids)
    assert before.fingerprint == after.fingerprint == plan(images=6, chunk=2).fingerprint
    assert not keys(before) & keys(plan(images=6, chunk=2))


def test_a_picture_that_no_cell_shows_changes_nothing():
    spec = parse_spec(tiny.raw(images=2))
    before, after = (make_plan(spec, numbered(revision)) for revision in (0, 1))
    assert before.cells == after.cells


def test_changed_weights_change_every_key_of_their_model(tmp_path):
    path = tmp_path / "w.pth"
    models = ["small_cnn", {"name": "small_cnn", "label": "mine", "weights": str(path)}]
    path.write_bytes(b"one")
    before = plan(models=models)
    path.write_bytes(b"two")
    after = plan(models=models)
    for old, new in zip(before.cells, after.cells, strict=True):
        assert old.place == new.place
        assert (old.key == new.key) == (new.model.label == "small_cnn")
    assert before.fingerprint == after.fingerprint


def test_more_of_something_keeps_what_is_there():
    base = keys(plan(images=4))
    for more in (
        {"seeds": [0, 1]},
        {"images": 6},
        {"budgets": [{"epsilon": [0.1, 0.2]}]},
        {"attacks": [*tiny.TINY["attacks"], "fgsm"]},
        {"models": ["small_cnn", {"name": "small_cnn", "label": "twin", "seed": 1}]},
    ):
        assert base < keys(plan(**{"images": 4, **more}))
