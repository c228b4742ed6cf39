"""A scorecard survives the disk bit for bit, and what no measurement can have said is refused."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.records.plain import dumps
from robustlab.records.scorecard import LARGEST, ModelCard, Scene, Scorecard
from robustlab.records.scores import (
    Accuracy,
    Estimate,
    Faithfulness,
    Robustness,
    Stability,
    Threat,
)

shares = st.floats(0, 1)
texts = st.text(max_size=8)
options = st.dictionaries(texts, st.none() | shares | texts | st.integers(0, 9), max_size=2)
counts = st.integers(0, 2**40)
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@st.composite
def estimates(draw: Any) -> Estimate:
    n = draw(st.integers(0, 500))
    if n == 0:
        return Estimate()
    low, mean, high = sorted(draw(st.lists(shares, min_size=3, max_size=3)))
    known = draw(st.booleans())
    return Estimate(n=n, mean=mean, low=low if known else None, high=high if known else None)


threats = st.builds(
    Threat, label=texts, name=texts, options=options, norm=texts, epsilon=shares, against=texts
)
stabilities = st.builds(
    Stability,
    label=texts,
    options=options,
    ones=estimates(),
    dropped=estimates(),
    seed_range=st.none() | shares,
    random_sign=estimates(),
    difference=estimates(),
    chance=st.none() | shares,
)
faithful = st.builds(
    Faithfulness,
    label=texts,
    options=options,
    **dict.fromkeys(("clean", "clean_random", "attacked", "attacked_random"), estimates()),
)
robust = st.builds(
    Robustness,
    explainer=texts,
    name=texts,
    options=options,
    attack=threats,
    **dict.fromkeys(("images", "seeds", "infeasible", "kept", "changed", "left_out"), counts),
    **dict.fromkeys(("intersection", "kendall"), st.none() | stabilities),
    deletion=st.none() | faithful,
)
pictures = ("clean", "map_before", "attacked", "map_after")
told = ("image_id", "label_name", "explainer", "attack", "outcome", "before", "after")
scenes = st.builds(
    Scene,
    protocol=st.sampled_from(("published", "strict")),
    **dict.fromkeys(told, texts),
    intersection=st.none() | shares,
    kendall=st.none() | shares,
    signed=st.booleans(),
    size=counts,
    **dict.fromkeys(pictures, st.just(PIXEL)),
)
models = st.builds(
    ModelCard,
    label=st.text(min_size=1, max_size=8),
    **dict.fromkeys(("arch", "objective", "trained_on", "command", "sha256"), texts),
    settings=options,
    train_images=st.none() | counts,
    minutes=st.none() | shares,
)
cards = st.builds(
    Scorecard,
    model=models,
    data=texts,
    dataset=texts,
    clean=st.none() | st.builds(Accuracy, share=estimates()),
    adversarial=st.none() | st.builds(Accuracy, share=estimates(), attack=threats),
    published=st.none() | robust,
    strict=st.lists(robust, max_size=2).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
    **dict.fromkeys(("experiment", "fingerprint", "commit"), texts),
    scenes=st.lists(scenes, max_size=1).map(tuple),
)


def example() -> Scorecard:
    seen = Estimate(n=9, mean=0.5, low=0.4, high=0.6)
    threat = Threat(label="a", name="pgd", options={"steps": 3}, norm="linf", epsilon=0.1)
    drift = Stability(
        label="tau",
        options={},
        ones=seen,
        dropped=seen,
        seed_range=None,
        random_sign=seen,
        difference=Estimate(n=9, mean=-0.1, low=-0.2, high=0.0),
        chance=0.0,
    )
    one = Robustness(
        explainer="ig",
        name="integrated_gradients",
        options={},
        attack=threat,
        images=9,
        seeds=1,
        infeasible=0,
        kept=9,
        changed=0,
        left_out=0,
        kendall=drift,
        deletion=Faithfulness(
            label="d", options={}, clean=seen, clean_random=seen, attacked=seen,
            attacked_random=seen,
        ),
    )  # fmt: skip
    scene = Scene(
        protocol="strict",
        **dict.fromkeys(told, "x"),
        intersection=0.5,
        kendall=None,
        signed=False,
        size=28,
        **dict.fromkeys(pictures, PIXEL),
    )
    return Scorecard(
        model=ModelCard(label="m"),
        data="d",
        dataset="mnist",
        clean=Accuracy(share=seen),
        adversarial=Accuracy(share=seen, attack=threat),
        published=one,
        strict=(one,),
        scenes=(scene,),
    )


@settings(max_examples=60, deadline=None)
@given(cards)
def test_round_trip_is_exact(card: Scorecard) -> None:
    assert Scorecard.from_dict(json.loads(dumps(card.to_dict()))) == card


def test_the_order_of_keys_is_that_of_the_fields() -> None:
    shape = example().to_dict()
    names = [field.name for field in fields(Scorecard)]
    assert list(shape) == ["schema", *names[:-1]]
    assert list(shape["model"]) == [field.name for field in fields(ModelCard)]
    assert names[-2:] == ["scenes", "schema"]  # pictures come last: numbers are what is reviewed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "schema: this version reads 1, the file has 2"),
        (lambda d: d.pop("notes"), "notes: missing"),
        (lambda d: d.update(rank=1), "rank: unknown field"),
        (lambda d: d["model"].update(label=""), r"model\.label: must not be empty"),
        (lambda d: d["model"].update(stars=5), r"model\.stars: unknown field"),
        (lambda d: d["model"].update(train_images=-1), r"model\.train_images: cannot be -1"),
        (lambda d: d["clean"]["share"].update(mean=0.7), r"mean: not within its own interval"),
        (lambda d: d["clean"]["share"].update(n=0), r"clean\.share\.n: 0 images do not go"),
        (
            lambda d: d["adversarial"]["share"].update(mean=1.2, high=1.3),
            r"adversarial\.share: a share lies between 0 and 1",
        ),
        (lambda d: d["published"].update(kept=2.5), r"published\.kept: expected a whole number"),
        (lambda d: d["published"].update(images=-3), r"published\.images: cannot be -3"),
        (
            lambda d: d["strict"][0]["kendall"].update(chance="0"),
            r"strict\[0\]\.kendall\.chance: expected a number",
        ),
        (
            lambda d: d["strict"][0]["deletion"]["clean"].pop("low"),
            r"strict\[0\]\.deletion\.clean\.low: missing",
        ),
        (lambda d: d["strict"][0]["attack"].update(norm=None), r"attack\.norm: expected text"),
        (lambda d: d["scenes"][0].update(protocol="mine"), "protocol: expected published or"),
        (
            lambda d: d["scenes"][0].update(clean="https://elsewhere.example/a.png"),
            r"scenes\[0\]\.clean: not a data URI",
        ),
        (
            lambda d: d["scenes"][0].update(clean="data:image/svg+xml;base64,AAAA"),
            r"scenes\[0\]\.clean: not a data URI",
        ),
        (lambda d: d["scenes"][0].update(clean=PIXEL + '" x="'), "not a data URI"),
        (
            lambda d: d["scenes"][0].update(clean="data:image/png;base64," + "A" * LARGEST),
            "not a data URI of a small",
        ),
        (lambda d: d.update(strict={}), "strict: expected a list"),
    ],
)
def test_refuses_by_name(change: Any, message: str) -> None:
    shape = json.loads(dumps(example().to_dict()))
    assert Scorecard.from_dict(shape) == example()
    change(shape)
    with pytest.raises(ValueError, match=message):
        Scorecard.from_dict(shape)


@pytest.mark.parametrize(
    ("data", "label", "name"),
    [
        ("mnist", "mnist_art", "mnist--mnist_art.json"),
        ("mnist", "zoo:mnist_art", "mnist--zoo-mnist_art.json"),
        ("../..", "../../etc/passwd", "-..--..-..-etc-passwd.json"),
        (".hidden", "a b", "hidden--a-b.json"),
    ],
)
def test_file_names_stay_in_the_folder(data: str, label: str, name: str) -> None:
    card = replace(example(), data=data, model=ModelCard(label=label))
    assert card.file_name == name
    assert "/" not in name
