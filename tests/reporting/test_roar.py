"""The curves of retrained networks, against the records' own numbers."""

from dataclasses import replace

import pytest

from robustlab.records import TrainingRecord
from robustlab.reporting import Run
from robustlab.reporting.report import report_html
from robustlab.reporting.roar import asked_of, retrained, sentences
from robustlab.reporting.wording import percent
from tests.reporting.page import parse

ACCURACY = {
    ("gradient", 0.3, 0): 0.80, ("gradient", 0.3, 1): 0.84,
    ("gradient", 0.9, 0): 0.50, ("gradient", 0.9, 1): 0.56,
    ("lrp", 0.3, 0): 0.60, ("lrp", 0.3, 1): 0.70,
    ("lrp", 0.9, 0): 0.20, ("lrp", 0.9, 1): 0.34,
    ("random", 0.3, 0): 0.75, ("random", 0.3, 1): 0.77,
    ("random", 0.9, 0): 0.40, ("random", 0.9, 1): 0.44,
}  # fmt: skip


def record(label: str, seed: int, accuracy: float, remove: object) -> TrainingRecord:
    return TrainingRecord(
        key=label, model=label, attack="natural", against="", seed=seed, outcome="ok",
        data="fashion_mnist", train_images=100, held_out=2500, accuracy_after=accuracy,
        options={"remove": remove},
    )  # fmt: skip


@pytest.fixture
def roar(run: Run) -> Run:
    model = {"name": "zoo:x", "label": None}
    trainings = [record(f"whole, {s}", s, 0.9 + s / 100, None) for s in (0, 1)]
    for (order, share, seed), accuracy in ACCURACY.items():
        remove = {"explainer": {"name": order, "label": None}, "model": model, "share": share}
        trainings.append(record(f"{order} {share:.0%}, {seed}", seed, accuracy, remove))
    own = record(str(run.manifest.models[0]), 0, 0.5, None)  # a model of the experiment
    spec = {**run.manifest.spec, "roar": {"explained": model}}
    manifest = replace(run.manifest, spec=spec)
    return replace(run, manifest=manifest, trainings=(own, *trainings))


def test_curves_hold_every_seed_and_begin_with_the_whole_images(roar: Run) -> None:
    made = retrained(roar)
    assert made is not None
    assert [curve.order for curve in made.curves] == ["lrp", "gradient", "random"]
    for curve in made.curves:
        assert curve.points[0].accuracies == (0.90, 0.91)
        for point in curve.points[1:]:
            expected = tuple(ACCURACY[curve.order, point.share, seed] for seed in (0, 1))
            assert point.accuracies == expected
            assert curve.at(point.share) == pytest.approx(sum(expected) / 2)
        assert curve.at(0.5) is None
    assert (made.explained, made.seeds, made.shares) == ("zoo:x", 2, [0.0, 0.3, 0.9])


def test_orders_are_held_against_random_seed_by_seed(roar: Run) -> None:
    made = retrained(roar)
    assert made is not None
    lrp, gradient, random = made.curves
    # lrp: seed 0 (0.15 + 0.20) / 2, seed 1 (0.07 + 0.10) / 2
    assert (lrp.lowest, lrp.highest) == pytest.approx((0.085, 0.175))
    assert lrp.beyond == pytest.approx(0.13)
    assert gradient.highest == pytest.approx(-0.075)
    assert random.beyond is None
    said = " ".join(sentences(made))
    assert "Better than a random order with every seed, in points of accuracy: lrp (+13.0)." in said
    assert "Worse than a random order with every seed: gradient (−8.5)." in said
    assert "1.0 points" in said  # √(0.25 / 2500)


def test_holes_that_tell_the_class_are_named(roar: Run) -> None:
    """A network that sees less cannot do better, but by what it learns from the holes."""
    whole = [one for one in roar.trainings if one.model.startswith("whole")]
    others = [one for one in roar.trainings if one not in whole]
    said = []
    for accuracy in (0.9, 0.81, 0.79):  # gradient has 0.82 at 30 %; √(0.25 / 2500) is 0.01
        now = [replace(one, accuracy_after=accuracy) for one in whole]
        made = retrained(replace(roar, trainings=(*now, *others)))
        assert made is not None
        said.append(" ".join(sentences(made)))
    assert "than networks that saw all" not in said[0] + said[1]
    assert "than networks that saw all: gradient. What is removed tells the class" in said[2]


def test_what_the_holes_alone_tell_stands_beside_and_in_no_curve(roar: Run) -> None:
    before = retrained(roar)
    gone = {"explainer": {"name": "lrp"}, "model": {}, "share": 0.3, "alone": True}
    alone = [record(f"lrp 30% alone, {s}", s, 0.6 + s / 10, gone) for s in (0, 1)]
    made = retrained(replace(roar, trainings=(*roar.trainings, *alone)))
    assert before is not None
    assert made is not None
    assert [replace(curve, holes=()) for curve in made.curves] == list(before.curves)
    (point,) = made.curves[0].holes
    assert (made.curves[0].order, point.share, point.accuracies) == ("lrp", 0.3, (0.6, 0.7))
    said = " ".join(sentences(made))
    expected = f"nothing but which {percent(0.3)} of the pixels are gone: lrp {percent(0.65)}."
    assert expected in said
    assert "nothing but" not in " ".join(sentences(before))


def test_the_page_tells_them_apart_from_models_that_were_trained_to_be_looked_at(roar: Run) -> None:
    page = parse(report_html(roar))
    section, taught = page.section("roar"), page.section("taught")
    assert section is not None
    assert taught is not None
    assert "+13.0" in section.text
    assert "whole, 0" not in taught.text
    assert next(one.model for one in asked_of(roar)) == "whole, 0"


def test_without_it_there_is_nothing(run: Run, roar: Run) -> None:
    assert retrained(run) is None
    unfinished = replace(roar, trainings=roar.trainings[:1])
    assert retrained(unfinished) is None
    assert parse(report_html(unfinished)).section("roar") is None
