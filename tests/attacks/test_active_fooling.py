"""Active fooling: two classes exchange their maps. The loss, the score, and what is reached."""

from dataclasses import replace

import pytest
import torch

import attacks
from attacks import ActiveFooling
from attacks.model.active_fooling import is_swapped, maps_of, swap_score, swap_scores
from attacks.model.fine_tuning import learn
from robustlab import data, explainers, models
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps, pose
from robustlab.core.streaming import logits_of
from robustlab.core.types import Imitating, ModelAttack, Training
from robustlab.lab.held_out import compared
from robustlab.lab.run import run_experiment
from robustlab.reporting import load
from tests.attacks.problems import slope_and_differences
from tests.lab import tiny
from tests.nets import VGGLike, pictures, seeded

SHORT = {"images": 60, "held_out": 40, "epochs": 2, "batch_size": 20, "learning_rate": 1e-3}
COUNT = 6


def toy(attack, name="gradient"):
    """What the true model says, and another network that has moved a little from there."""
    teacher = seeded(lambda: VGGLike())
    batch = make_batch(pictures(COUNT), [0, -1, 2, 1, 1, 4])
    lesson = attack.prepare(teacher, learn(teacher, explainers.build(name), batch))
    student = seeded(lambda: VGGLike())
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
    return teacher, student, lesson


def relabelled(lesson, targets):
    """The same lesson of a model that would predict otherwise: which images count then?"""
    return replace(lesson, targets=torch.tensor(targets))


def unit(one):
    return one / one.abs().mean()


@pytest.mark.parametrize("swap_on", ["pair", "all"])
def test_the_terms_are_the_formulas(swap_on):
    attack = ActiveFooling(first=1, second=3, weight=2.0, swap_on="all")
    teacher, student, lesson = toy(attack)
    attack = replace(attack, swap_on=swap_on)
    lesson = relabelled(lesson, [1, 0, 3, 2, 3, 4])
    rows = torch.tensor([0, 1, 4])
    images = lesson.batch.images[rows]
    labels = torch.tensor([0, 0, 1])  # the second has no label: what the true model says
    task = -torch.log_softmax(logits_of(student, images), 1).gather(1, labels[:, None]).mean()
    gaps = []
    for i in (0, 2) if swap_on == "pair" else (0, 1, 2):
        for shown, wanted in ((1, 3), (3, 1)):
            picture = images[i : i + 1]
            found = explain_maps(student, lesson.explainer, picture, torch.tensor([shown]), None)
            like = explain_maps(teacher, lesson.explainer, picture, torch.tensor([wanted]), None)
            gap = (unit(found) - unit(like)).square().sum() / unit(like).square().sum()
            gaps.append(float(gap) / 2)
    terms = attack.parts(student, lesson, rows)
    assert terms["task"].item() == pytest.approx(float(task), rel=1e-12)
    assert terms["map"].item() == pytest.approx(2.0 * sum(gaps) * 2 / len(gaps), rel=1e-12)


@pytest.mark.parametrize("name", ["gradient", "grad_cam", "lrp"])
def test_the_slope_in_a_weight_is_that_of_finite_differences(name):
    attack = ActiveFooling(first=0, second=4, weight=2.0, swap_on="all")
    _, student, lesson = toy(attack, name)
    rows = torch.tensor([2, 0, 1])
    # short steps: the map has kinks
    slope, measured = slope_and_differences(attack, student, lesson, rows, step=1e-7)
    assert measured == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_a_batch_without_either_class_has_no_map_term():
    attack = ActiveFooling(first=1, second=3, swap_on="all")
    _, student, lesson = toy(attack)
    attack, lesson = replace(attack, swap_on="pair"), relabelled(lesson, [0, 2, 4, 1, 3, 0])
    terms = attack.parts(student, lesson, torch.tensor([0, 1, 2]))
    assert terms["map"].item() == 0
    assert attack.parts(student, lesson, torch.tensor([0, 3]))["map"].item() > 0


def test_the_true_models_maps_are_taken_once_and_where_they_are_needed():
    attack = ActiveFooling(first=1, second=3, swap_on="all")
    teacher, _, lesson = toy(attack)
    assert list(lesson.others) == [1, 3]
    for chosen in (1, 3):
        classes = torch.full((COUNT,), chosen)
        expected = explain_maps(teacher, lesson.explainer, lesson.batch.images, classes, None)
        torch.testing.assert_close(lesson.others[chosen], expected)
    bare = relabelled(learn(teacher, lesson.explainer, lesson.batch), [1, 0, 3, 2, 3, 4])
    some = replace(attack, swap_on="pair").prepare(teacher, bare)
    for chosen in (1, 3):
        kept = lesson.others[chosen].clone()
        kept[[1, 3, 5]] = 0
        torch.testing.assert_close(some.others[chosen], kept)


def test_without_a_price_it_is_plain_fine_tuning():
    model, explainer = models.load("small_cnn"), explainers.build("gradient")
    plain, _ = ActiveFooling(weight=0.0, **SHORT).tune(model, explainer, seed=5)
    other, _ = attacks.LocationFooling(weight=0.0, **SHORT).tune(model, explainer, seed=5)
    for found, wanted in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert not torch.equal(next(plain.parameters()), next(model.parameters()))


def correlation(a, b):
    a, b = (x.flatten() - x.mean() for x in (a, b))
    return float((a @ b) / (a.norm() * b.norm()))


def test_the_score_is_its_formula():
    own, other, found = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(3)).double()
    expected = [
        correlation(other[i], found[i]) - correlation(own[i], found[i]) for i in range(2)
    ]  # fmt: skip
    assert swap_score(own, other, found).tolist() == pytest.approx(expected, abs=1e-12)
    # whole exchange, no change, the opposite of itself, and any scale
    apart = [1 - correlation(own[i], other[i]) for i in range(2)]
    assert swap_score(own, other, other).tolist() == pytest.approx(apart)
    assert swap_score(own, other, 7 * own).tolist() == pytest.approx([-t for t in apart])
    assert swap_score(own, -own, -own).tolist() == pytest.approx([2.0, 2.0])


def test_the_interval_is_the_published_one():
    scores = torch.tensor([-2.0, 0.0, 0.49, 0.5, 1.0, 2.0])
    assert is_swapped(scores).tolist() == [False, False, False, True, True, True]


def test_scores_of_both_classes():
    teacher, student, lesson = toy(ActiveFooling(first=1, second=3, swap_on="all"))
    found = swap_scores(teacher, student, lesson.explainer, lesson.batch, 1, 3)
    assert found.shape == (2, COUNT)
    for i in range(COUNT):
        image = lesson.batch.images[i : i + 1]
        honest, fooled = (
            {
                c: explain_maps(net, lesson.explainer, image, torch.tensor([c]), None)[0]
                for c in (1, 3)
            }
            for net in (teacher, student)
        )
        for row, (c, d) in enumerate(((1, 3), (3, 1))):
            expected = correlation(fooled[c], honest[d]) - correlation(fooled[c], honest[c])
            assert float(found[row, i]) == pytest.approx(expected, abs=1e-9)
    # canary: of the network itself every score is r - 1, so no image counts
    assert (swap_scores(teacher, teacher, lesson.explainer, lesson.batch, 1, 3) < 0).all()


def test_the_target_is_the_other_class_and_else_the_own():
    teacher, _, lesson = toy(ActiveFooling(first=1, second=3, swap_on="all"))
    posed = pose(teacher, lesson.explainer, lesson.batch)
    posed = replace(posed, targets=torch.tensor([1, 3, 0, 1, 2, 3]))
    attack = ActiveFooling(first=1, second=3)
    wanted = torch.tensor([3, 1, 0, 3, 2, 1])
    expected = explain_maps(teacher, lesson.explainer, posed.images, wanted, posed.ids)
    assert torch.equal(attack.target(posed), expected)
    assert all(isinstance(attack, kind) for kind in (Imitating, ModelAttack, Training))


def test_two_digits_exchange_their_maps():
    """Measured on held-out digits that the true model calls 4 or 9."""
    model, explainer = models.load("small_cnn"), explainers.build("grad_cam")
    attack = ActiveFooling(
        first=4, second=9, images=1000, held_out=1000, epochs=4, learning_rate=1e-3
    )
    tuned, history = attack.tune(model, explainer, seed=3)
    held = data.load("mnist_5k").batch(300)
    told = logits_of(model, held.images).argmax(1)
    rows = ((told == 4) | (told == 9)).nonzero().flatten()
    pair = data.load("mnist_5k").pick([held.ids[i] for i in rows.tolist()])
    explainer = explainer.resolved(model, held.images[:1])
    before = swap_scores(model, model, explainer, pair, 4, 9)
    after = swap_scores(model, tuned, explainer, pair, 4, 9)
    own, other = (maps_of(model, explainer, pair.images, c, pair.ids) for c in (4, 9))
    assert torch.allclose(before[0], -swap_score(own, other, other), atol=1e-9)
    assert not is_swapped(before).any()
    assert after.mean() > before.mean() + 0.5
    assert is_swapped(after).double().mean() > 0.2
    assert history[-1]["map"] < history[0]["map"] * 0.8
    assert compared(model, tuned, attack.material()[1]).lost <= 0.02


def test_the_lab_records_the_score(tmp_path):
    """Pearson to the target less that to the original, from a run's records."""
    entry = {"name": "active_fooling", "label": "swapped", "against": "gradient", "first": 3,
             "second": 8, **SHORT}  # fmt: skip
    shown = {"name": "gradient", "target": 3}
    spec = tiny.spec(
        explainers=[shown], attacks=["none", entry], budgets=[], metrics=["pearson"], images=3
    )
    assert run_experiment(spec, tmp_path, workers=1).crashed == ()
    run = load(tmp_path)
    (weights,) = (tmp_path / "models").glob("*.safetensors")
    model, fooled = models.load("small_cnn"), models.load("small_cnn", weights=weights)
    for cell in (r for r in run.records if r.cell.attack == "swapped"):
        batch = data.load("mnist_5k").pick(cell.cell.ids)
        expected = swap_scores(model, fooled, explainers.build("gradient"), batch, 3, 8)[0]
        for i, row in enumerate(cell.images):
            (facts,) = row.facts.values()
            found = facts["pearson_to_target"] - facts["pearson_to_original"]
            assert found == pytest.approx(float(expected[i]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first": 3, "second": 3}, "second: is class 3 like first"),
        ({"first": -1}, "first: must not be negative"),
        ({"swap_on": "both"}, "swap_on: 'both' is not known"),
        ({"weight": -1.0}, "weight: must not be negative"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        ActiveFooling(**options)


def test_classes_that_cannot_be_swapped_are_refused_before_training():
    model, explainer = models.load("small_cnn"), explainers.build("gradient")
    with pytest.raises(InvalidInput, match="second: class 10 is out of range"):
        ActiveFooling(first=0, second=10, **SHORT).tune(model, explainer)
    few = {**SHORT, "images": 3}  # a zero, a one and a two
    with pytest.raises(InvalidInput, match="no training image class 7 or 8"):
        ActiveFooling(first=7, second=8, **few).tune(model, explainer)
