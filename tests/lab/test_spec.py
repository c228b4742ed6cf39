"""What an experiment file may say, and how it refuses everything else."""

import copy
import dataclasses
import math
from typing import get_args, get_type_hints

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.tables import build
from robustlab.data import Dataset
from robustlab.lab.catalogue import tables
from robustlab.lab.plan import make_plan
from robustlab.lab.spec import load_spec, parse_spec
from tests.lab import tiny

DIGITS = Dataset(
    name="digits",
    ids=("a", "b", "c"),
    labels=(0, 1, 2),
    names=("", "", ""),
    read=lambda i: pytest.fail("a plan needs no pixels"),
)


def refusal(values):
    """What is said against plain values, by the spec or by the plan made from it."""
    with pytest.raises(InvalidInput) as caught:
        make_plan(parse_spec(values, "file.yaml"), DIGITS)
    return str(caught.value)


# --- values --------------------------------------------------------------------------------


def test_defaults_are_those_of_the_documentation():
    spec = tiny.spec()
    assert (spec.chunk, spec.target, spec.seeds) == (2, "prediction", (0,))
    values = tiny.raw()
    for key in ("images", "chunk", "gallery"):
        del values[key]
    spec = parse_spec(values)
    assert (spec.images, spec.chunk, spec.gallery.images) == (None, 4, 4)
    assert spec.gallery.epsilon is None  # pictures at every radius


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5/255", 0.5 / 255),
        ("8/255", 8 / 255),
        (" 1 / 4 ", 0.25),
        ("0.1", 0.1),
        ("1e-2", 0.01),
        (0.1, 0.1),
        (0, 0.0),
        (1, 1.0),
    ],
)
def test_a_radius_may_be_a_number_or_a_fraction(text, value):
    for written in (text, [text]):
        spec = tiny.spec(budgets=[{"epsilon": written}], gallery={"epsilon": written})
        assert spec.budgets[0].epsilon == (value,)
        assert spec.gallery.epsilon == (value,)
        assert [b.epsilon for b in spec.budgets[0].budgets()] == [value]


def test_a_component_is_a_name_or_a_name_with_options():
    spec = tiny.spec(
        explainers=["gradient", {"name": "smooth_grad", "samples": 3, "label": "smooth"}],
    )
    plain, smooth = spec.explainers
    assert (plain.name, plain.shown, plain.options) == ("gradient", "gradient", {})
    assert (smooth.name, smooth.shown, smooth.options) == ("smooth_grad", "smooth", {"samples": 3})


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "place", "guess"),
    [
        ({"chunks": 2}, "chunks", "'chunk'"),
        ({"explainer": ["gradient"]}, "explainer", "'explainers'"),
        ({"budgets": [{"epsilon": 0.1, "nrom": "l2"}]}, "budgets.0.nrom", "'norm'"),
        ({"budgets": [{"epsilom": 0.1, "epsilon": 0.1}]}, "budgets.0.epsilom", "'epsilon'"),
        ({"gallery": {"image": 2}}, "gallery.image", "'images'"),
        ({"explainers": [{"name": "smooth_grad", "sample": 4}]}, "explainers.0", "'samples'"),
        ({"attacks": ["none", {"name": "pgd", "step": 4}]}, "attacks.1", "'steps'"),
        ({"metrics": ["spearman", {"name": "top_k_intersection", "K": 4}]}, "metrics.1", "k"),
        ({"explainers": ["gradent"]}, "explainers.0", "'gradient'"),
        ({"attacks": ["topk"]}, "attacks.0", "'top_k'"),
        ({"metrics": ["speerman"]}, "metrics.0", "'spearman'"),
        (
            {"attacks": [{"name": "top_k", "k": 9, "against": "gradcam"}]},
            "attacks.0.against",
            "'grad_cam'",
        ),
    ],
    ids=str,
)
def test_a_misspelt_key_or_name_is_located_and_guessed(changes, place, guess):
    message = refusal(tiny.raw(**changes))
    assert place in message
    assert guess in message
    assert "known: " in message


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"chunk": "many"}, ["chunk", "'many'"]),
        ({"chunk": 0}, ["chunk", "0"]),
        # what YAML reads `yes` as
        ({"chunk": True}, ["chunk", "valid integer", "True"]),
        ({"images": True}, ["images", "valid integer", "True"]),
        ({"seeds": [True]}, ["seeds.0", "valid integer", "True"]),
        ({"seeds": [5, False]}, ["seeds.1", "valid integer", "False"]),
        ({"target": True}, ["target", "True"]),
        ({"explainers": [{"name": "gradient", "target": True}]}, ["explainers.0.target", "True"]),
        ({"gallery": {"images": True}}, ["gallery.images", "valid integer", "True"]),
        ({"gallery": {"epsilon": True}}, ["gallery.epsilon", "True"]),
        ({"gallery": {"epsilon": [0.1, float("nan")]}}, ["gallery.epsilon.1", "nan"]),
        ({"gallery": {"epsilon": "inf"}}, ["gallery.epsilon.0", "inf"]),
        ({"budgets": [{"epsilon": True}]}, ["budgets.0.epsilon", "True"]),
        ({"chunk": "8"}, ["chunk", "valid integer", "'8'"]),
        ({"data": {"name": 3}}, ["data.name", "valid string", "got 3"]),
        ({"images": 0}, ["images", "0"]),
        ({"images": 1.5}, ["images", "1.5"]),
        ({"seeds": ["a"]}, ["seeds.0", "'a'"]),
        ({"seeds": []}, ["seeds", "at least one"]),
        ({"seeds": [1, 1]}, ["seeds", "distinct"]),
        ({"target": "mine"}, ["target", "'mine'"]),
        ({"models": []}, ["models"]),
        ({"models": "small_cnn"}, ["models", "'small_cnn'"]),
        ({"attacks": [{"steps": 3}]}, ["attacks.0.name", "missing"]),
        ({"attacks": [3]}, ["attacks.0", "3"]),
        ({"attacks": [{"name": "pgd", "steps": "few"}]}, ["attacks.0", "pgd.steps", "'few'"]),
        ({"attacks": [{"name": "pgd", "steps": 0}]}, ["attacks.0", "pgd.steps", "0"]),
        ({"attacks": [{"name": "pgd", "steps": True}]}, ["attacks.0", "pgd.steps", "True"]),
        ({"budgets": []}, ["budgets"]),
        ({"budgets": [{"norm": "l1", "epsilon": 0.1}]}, ["budgets.0.norm", "'l1'"]),
        ({"budgets": [{"norm": "linf"}]}, ["budgets.0.epsilon", "missing"]),
        ({"budgets": [{"epsilon": []}]}, ["budgets.0.epsilon"]),
        ({"budgets": [{"epsilon": "eight"}]}, ["budgets.0.epsilon", "'eight'", "8/255"]),
        ({"budgets": [{"epsilon": "1/0"}]}, ["budgets.0.epsilon", "'1/0'"]),
        ({"budgets": [{"epsilon": -0.1}]}, ["epsilon", "-0.1"]),
        ({"budgets": [{"epsilon": "-1/255"}]}, ["epsilon", "at least 0"]),
        ({"budgets": [{"epsilon": 8}]}, ["epsilon", "8/255, not 8"]),
        ({"budgets": [{"norm": "l2", "epsilon": float("inf")}]}, ["budgets.0.epsilon", "inf"]),
        ({"budgets": [{"epsilon": float("nan")}]}, ["budgets.0.epsilon", "nan"]),
        ({"gallery": {"images": -1}}, ["gallery.images", "-1"]),
        ({"gallery": {"epsilon": "all"}}, ["gallery.epsilon", "'all'"]),
        ({"smoke": [1, 2]}, ["smoke", "[1, 2]"]),
        ({"explainers": ["gradient", "gradient"]}, ["explainers", "'gradient' appears twice"]),
        ({"attacks": ["pgd", {"name": "pgd", "steps": 3}]}, ["attacks", "'pgd' appears twice"]),
        (
            {"metrics": ["spearman", {"name": "kendall", "label": "spearman"}]},
            ["metrics", "'spearman' appears twice", "label"],
        ),
        ({"models": ["small_cnn", "small_cnn"]}, ["models", "'small_cnn' appears twice"]),
    ],
    ids=str,
)
def test_a_wrong_value_is_located_and_shown(changes, fragments):
    message = refusal(tiny.raw(**changes))
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("key", ["question", "models", "data", "explainers", "attacks", "metrics"])
def test_a_missing_key_is_named(key):
    values = tiny.raw()
    del values[key]
    assert f"{key}: is missing" in refusal(values)


def test_the_same_component_twice_is_welcome_under_two_labels():
    spec = tiny.spec(attacks=[{"name": "pgd", "label": "a"}, {"name": "pgd", "label": "b"}])
    assert [a.shown for a in spec.attacks] == ["a", "b"]


def test_an_attack_on_the_prediction_keeps_its_own_option_against():
    # `against` also says which explainer an attack on explanations aims at
    values = tiny.raw(attacks=[{"name": "fgsm", "against": "label"}, "pgd"])
    plan = make_plan(parse_spec(values), DIGITS)
    waged = {w.label: w.attack for w in plan.waged}
    assert (waged["fgsm"].against, waged["pgd"].against) == ("label", "prediction")
    for name in ("fgsm", "random_noise"):
        message = refusal(tiny.raw(attacks=[{"name": name, "against": "gradient"}]))
        assert f"attacks.0: {name}.against" in message


def _places(value, path=()):
    """The path of everything inside nested dicts and lists."""
    if path:
        yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from _places(value[key], (*path, key))


FULL = tiny.raw(
    target="prediction",
    seeds=[0, 1],
    gallery={"images": 2, "epsilon": ["8/255"]},
    smoke={"images": 2},
    attacks=[
        "none",
        {"name": "fgsm", "against": "label"},
        {"name": "random_sign", "tries": 1},
        {"name": "target_region", "box": [0, 0, 1, 1], "against": "gradient"},
    ],
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.just(10**30),
    st.floats(),
    st.sampled_from(["", "x", "8/255", "1/0", "nan", "8", "gradient", "pgd"]),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["name", "label", "epsilon", "x", 1]), inner, max_size=2),
    ),
    max_leaves=4,
)


@given(place=st.sampled_from(list(_places(FULL))), junk=JUNK)
def test_whatever_a_file_says_it_becomes_a_plan_or_a_one_line_refusal(place, junk):
    values = copy.deepcopy(FULL)
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = junk
    try:
        make_plan(parse_spec(values, "file.yaml"), DIGITS)
    except RobustlabError as error:
        assert "\n" not in str(error)


FLOATS = [
    (section, name, option)
    for section, table in tables().items()
    for name, cls in table.items()
    for option, hint in get_type_hints(cls).items()
    if option in {f.name for f in dataclasses.fields(cls)} and float in (hint, *get_args(hint))
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("section", "name", "option"), FLOATS)
def test_no_component_takes_a_number_that_is_not_finite(section, name, option, value):
    with pytest.raises(InvalidInput) as caught:
        build(tables()[section], section, name, {option: value})
    assert caught.value.field == f"{name}.{option}"


def test_an_option_that_is_not_finite_is_located():
    wrong = {"name": "integrated_gradients", "baseline": float("nan")}
    message = refusal(tiny.raw(explainers=["gradient", wrong]))
    assert "explainers.1: integrated_gradients.baseline: must be finite, got nan" in message


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"question: [a\nb: c: d\n", "is not valid YAML"),
        (b"a: 1\n\tb: 2\n", "is not valid YAML"),
        (b"question: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"just words\n", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"1: 2\n", "question: is missing"),
    ],
)
@pytest.mark.parametrize("smoke", [False, True])
def test_a_file_that_is_no_experiment(tmp_path, content, problem, smoke):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=problem) as caught:
        load_spec(path, smoke=smoke)
    assert "wrong.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            load_spec(path)


def test_the_name_is_the_files_unless_it_says_another(tmp_path):
    path = tiny.write(tmp_path / "mine.yaml")
    assert load_spec(path).name == "mine"
    path.write_text(path.read_text() + "name: other\n")
    assert load_spec(path).name == "other"


# --- overrides -----------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tiny.write(
        tmp_path / "tiny.yaml",
        smoke={"images": 3, "chunk": 3, "explainers": ["grad_cam"], "attacks.2.steps": 1},
    )


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("chunk=8", lambda s: s.chunk, 8),
        (" chunk = 8 ", lambda s: s.chunk, 8),
        ("attacks.2.steps=7", lambda s: s.attacks[2].options["steps"], 7),
        ("attacks.-1.steps=7", lambda s: s.attacks[2].options["steps"], 7),
        ("attacks.0=fgsm", lambda s: s.attacks[0].name, "fgsm"),
        ("explainers=[lrp]", lambda s: [e.name for e in s.explainers], ["lrp"]),
        # an entry that was only a name gets options
        ("explainers.1.relu=false", lambda s: s.explainers[1].options, {"relu": False}),
        ("explainers.1.relu=false", lambda s: s.explainers[1].name, "grad_cam"),
        ("models.0.label=net", lambda s: s.models[0].shown, "net"),
        ("budgets.0.epsilon=[0.5/255]", lambda s: s.budgets[0].epsilon, (0.5 / 255,)),
        ("data={name: photos}", lambda s: s.data.name, "photos"),
        ("data.label=a=b", lambda s: s.data.label, "a=b"),
        ("gallery.epsilon=0.1", lambda s: s.gallery.epsilon, (0.1,)),
        ("images=", lambda s: s.images, None),
        ("target=3", lambda s: s.target, 3),
    ],
)
def test_an_override_reaches_its_place_and_nothing_else(path, override, read, value):
    changed, plain = load_spec(path, overrides=[override]), load_spec(path)
    assert read(changed) == value
    key = override.partition("=")[0].partition(".")[0].strip()
    rest = {name for name in type(plain).model_fields if name != key}
    assert changed.model_dump(include=rest) == plain.model_dump(include=rest)


def test_a_folder_of_pictures_is_data_by_its_path(path):
    before, _, after = path.read_text().partition("data:\n  name: mnist_5k")
    path.write_text(f"{before}data: ./mine{after}")
    data = load_spec(path, overrides=["data.size=28"]).data
    whole = {"name": "image_folder", "path": "./mine", "size": 28}
    assert data == parse_spec(tiny.raw(data=whole)).data
    assert (data.name, data.shown) == ("image_folder", "image_folder")
    assert data.options == {"path": "./mine", "size": 28}
    with pytest.raises(InvalidInput, match="data: the folder is already in the name"):
        load_spec(path, overrides=["data.path=./other"])


def test_an_option_for_data_given_by_its_bare_name(path):
    path.write_text(path.read_text().replace("data:\n  name: mnist_5k", "data: mnist_5k"))
    data = load_spec(path, overrides=["data.limit=3"]).data
    assert (data.name, data.options) == ("mnist_5k", {"limit": 3})


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("chunk", ["--set", "'chunk' has no '='"]),
        ("attacks.9.steps=3", ["attacks.9", "3 entries"]),
        ("attacks.-4.steps=3", ["attacks.-4", "3 entries"]),
        ("attacks.x.steps=3", ["attacks.x", "3 entries"]),
        ("attacks.--1.steps=3", ["attacks.--1", "3 entries"]),
        ("attacks.².steps=3", ["attacks.²", "3 entries"]),
        ("chunk.size=3", ["chunk.size", "'chunk' holds 2"]),
        ("chunk=[1", ["--set", "'chunk=[1'", "YAML"]),
        ("chunk=many", ["chunk", "'many'"]),
        ("chunky=3", ["chunky", "did you mean 'chunk'?"]),
        ("=3", ["no such key"]),
    ],
)
def test_an_override_of_nothing_is_refused(path, override, fragments):
    with pytest.raises(InvalidInput) as caught:
        load_spec(path, overrides=[override])
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_smoke_comes_first_and_set_has_the_last_word(path):
    full = load_spec(path)
    assert (full.images, full.chunk, full.attacks[2].options["steps"]) == (5, 2, 2)
    smoke = load_spec(path, smoke=True)
    assert (smoke.images, smoke.chunk, smoke.attacks[2].options["steps"]) == (3, 3, 1)
    assert [e.name for e in smoke.explainers] == ["grad_cam"]
    both = load_spec(path, smoke=True, overrides=["chunk=1", "explainers.0.relu=false"])
    assert (both.images, both.chunk) == (3, 1)
    assert both.explainers[0].options == {"relu": False}
    # only now is there no second explainer to override
    with pytest.raises(InvalidInput, match=r"explainers\.1"):
        load_spec(path, smoke=True, overrides=["explainers.1.relu=false"])


def test_smoke_overrides_are_checked_like_any_other(tmp_path):
    for smoke, problem in (({"chunks": 1}, "no such key"), ({"attacks.7.k": 1}, "3 entries")):
        path = tiny.write(tmp_path / "tiny.yaml", smoke=smoke)
        load_spec(path)
        with pytest.raises(InvalidInput, match=problem):
            load_spec(path, smoke=True)
    path.write_text(yaml.safe_dump({**tiny.raw(), "smoke": "fast"}))
    with pytest.raises(InvalidInput, match="smoke: expected keys and values, got 'fast'"):
        load_spec(path, smoke=True)
