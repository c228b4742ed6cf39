"""Fairwashing: outputs of the true model, maps of a fixed picture, and what projection undoes."""

from dataclasses import replace

import pytest
import torch

from attacks import Fairwashing
from attacks.model.fairwashing import fill
from attacks.model.fine_tuning import learn
from attacks.model.pictures import draw
from robustlab import data, explainers, models
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.streaming import logits_of
from robustlab.core.types import Imitating, ModelAttack, Training
from robustlab.lab.held_out import compared
from robustlab.lab.run import run_experiment
from robustlab.metrics import build as metric
from robustlab.reporting import load
from tests.attacks.problems import slope_and_differences
from tests.lab import tiny
from tests.nets import VGGLike, pictures, seeded

CORNER = (0.0, 0.0, 0.3, 0.3)
SHORT = {"images": 60, "held_out": 40, "epochs": 2, "batch_size": 20, "learning_rate": 1e-3}


def toy(name="gradient"):
    """A lesson of one network, and another network that has moved a little from there."""
    teacher = seeded(lambda: VGGLike())
    lesson = learn(teacher, explainers.build(name), make_batch(pictures(), [0, -1, 2]))
    student = seeded(lambda: VGGLike())
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
    return teacher, student, lesson


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        (Fairwashing(weight=0.3), draw("cross", 12, 12)),
        (Fairwashing(weight=0.8, picture="frame"), draw("frame", 12, 12)),
        (Fairwashing(weight=1.0, box=CORNER), fill(CORNER, 12, 12)),
    ],
    ids=["cross", "frame", "corner"],
)
def test_the_terms_are_the_formulas(attack, shown):
    _, student, lesson = toy()
    rows = torch.tensor([2, 0])
    images = lesson.batch.images[rows]
    truth = torch.softmax(logits_of(seeded(lambda: VGGLike()), images), 1)
    classes = truth.argmax(1)
    likeness = sum(
        float((torch.softmax(logits_of(student, images), 1)[b, c] - truth[b, c]) ** 2)
        for b in range(2)
        for c in range(5)
    )
    maps = explain_maps(student, lesson.explainer, images, classes, None)
    wanted = shown / shown.mean()
    gap = 0.0
    for one in maps:
        found = one / one.abs().mean()
        gap += float(((found - wanted) ** 2).sum() / (wanted**2).sum())
    terms = attack.parts(student, lesson, rows)
    assert terms["task"].item() == pytest.approx((1 - attack.weight) * likeness / 2, abs=1e-15)
    assert terms["map"].item() == pytest.approx(attack.weight * gap / 2, rel=1e-12)
    assert likeness > 1e-6, "the student has not moved, so nothing was compared"


@pytest.mark.parametrize("name", ["gradient", "input_x_gradient", "grad_cam", "lrp"])
def test_the_slope_in_a_weight_is_that_of_finite_differences(name):
    _, student, lesson = toy(name)
    attack, rows = Fairwashing(weight=0.6), torch.tensor([2, 0, 1])
    # short steps: the map has kinks
    slope, measured = slope_and_differences(attack, student, lesson, rows, step=1e-7)
    assert measured == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_without_a_price_the_true_model_is_where_it_wants_to_be():
    teacher, student, lesson = toy()
    plain, rows = Fairwashing(weight=0.0), torch.tensor([0, 1, 2])
    for net, still in ((teacher, True), (student, False)):
        terms = plain.parts(net, lesson, rows)
        assert list(terms) == ["task"]
        slopes = torch.autograd.grad(terms["task"], list(net.parameters()))
        largest = max(float(s.abs().max()) for s in slopes)
        assert (terms["task"].item() < 1e-30 and largest < 1e-14) if still else largest > 1e-4


def test_labels_are_not_used():
    _, student, lesson = toy()
    other = replace(lesson, batch=replace(lesson.batch, labels=torch.tensor([4, 3, 1])))
    rows = torch.tensor([0, 1, 2])
    one, two = (Fairwashing().parts(student, x, rows) for x in (lesson, other))
    assert all(torch.equal(one[key], two[key]) for key in ("task", "map"))


def test_a_map_that_is_the_picture_costs_nothing():
    class Shown:
        """Every map is three times the picture."""

        def __init__(self, lesson, picture):
            self.maps, self.picture = lesson.maps, picture
            self.likeness = lesson.likeness

        def explained(self, net, rows):
            return 3 * self.picture.expand_as(self.maps[rows])

    _, student, lesson = toy()
    rows = torch.tensor([0, 1])
    for attack in (Fairwashing(), Fairwashing(box=CORNER)):
        picture = attack.target(_problem(lesson))[0]
        terms = attack.parts(student, Shown(lesson, picture), rows)
        assert abs(terms["map"].item()) < 1e-15


def _problem(lesson):
    class Posed:
        maps = lesson.maps

    return Posed


def test_the_target_is_the_picture_for_every_image():
    _, _, lesson = toy()
    for attack, shown in (
        (Fairwashing(picture="disc"), draw("disc", 12, 12)),
        (Fairwashing(picture="disc", box=CORNER), fill(CORNER, 12, 12)),
    ):
        target = attack.target(_problem(lesson))
        assert target.shape == lesson.maps.shape and target.dtype == lesson.maps.dtype
        assert all(torch.equal(one, shown) for one in target)
        assert all(isinstance(attack, kind) for kind in (Imitating, ModelAttack, Training))


def test_the_box_holds_the_pixels_whose_centres_it_holds():
    drawn = fill((0.25, 0.0, 0.75, 0.5), 6, 4)
    expected = torch.zeros(6, 4, dtype=torch.float64)
    expected[:3, 1:3] = 1
    assert torch.equal(drawn, expected)


@pytest.fixture(scope="module")
def washed():
    """A network that shows a corner for every digit, trained for some ten seconds."""
    model = models.load("small_cnn")
    attack = Fairwashing(
        box=CORNER, weight=0.4, images=1500, held_out=1000, epochs=4, batch_size=50,
        learning_rate=1e-3,
    )  # fmt: skip
    tuned, history = attack.tune(model, explainers.build("gradient"), seed=3)
    return model, attack, tuned, history


def maps_by(model, tuned, explainer):
    """Of 60 held-out digits, by both models."""
    held = data.load("mnist_5k").batch(60)
    classes = logits_of(model, held.images).argmax(1)
    return [explain_maps(m, explainer, held.images, classes, held.ids) for m in (model, tuned)]


def test_held_out_maps_show_the_picture_and_the_answers_stay(washed):
    model, attack, tuned, history = washed
    pearson = metric("pearson")
    before, after = maps_by(model, tuned, explainers.build("gradient"))
    picture = fill(CORNER, 28, 28).float().expand_as(before)
    assert pearson(picture, before).mean() < 0.0
    assert pearson(picture, after).mean() > 0.6
    assert pearson(before, after).mean() < 0.4
    facts = compared(model, tuned, attack.material()[1])
    assert facts.agreement >= 0.96 and facts.lost <= 0.02
    assert history[-1]["map"] < history[0]["map"]


def test_projection_onto_the_tangent_space_undoes_it(washed):
    model, _, tuned, _ = washed
    pearson = metric("pearson")
    seen = maps_by(model, tuned, explainers.build("gradient"))
    projected = maps_by(model, tuned, explainers.build("tangent_projected"))
    picture = fill(CORNER, 28, 28).float().expand_as(seen[0])
    # the fooled map has left the honest one; projected, both are nearly the same again
    assert pearson(*projected).mean() > pearson(*seen).mean() + 0.2
    assert pearson(*projected).mean() > 0.75
    assert (pearson(picture, projected[1]) - pearson(picture, projected[0])).mean() < 0.1
    # canary: the same is not true without the projection
    assert (pearson(picture, seen[1]) - pearson(picture, seen[0])).mean() > 0.5


def test_the_lab_records_how_like_the_picture_a_map_is(tmp_path):
    entry = {"name": "fairwashing", "label": "washed", "against": "gradient", "weight": 0.1,
             "picture": "frame", **SHORT}  # fmt: skip
    spec = tiny.spec(attacks=["none", entry], budgets=[], metrics=["pearson"])
    assert run_experiment(spec, tmp_path, workers=1).crashed == ()
    cells = [r for r in load(tmp_path).records if r.cell.attack == "washed"]
    assert len(cells) == tiny.CHUNKS
    model = models.load("small_cnn")
    for cell in cells:
        batch = data.load("mnist_5k").pick(cell.cell.ids)
        classes = logits_of(model, batch.images).argmax(1)
        for name in ("gradient", "grad_cam"):
            maps = explain_maps(model, explainers.build(name), batch.images, classes, batch.ids)
            picture = draw("frame", 28, 28).float().expand_as(maps)
            expected = metric("pearson")(picture, maps)
            for i, row in enumerate(cell.images):
                facts = row.facts[name]
                found = facts["pearson_to_target_before"]
                assert found == pytest.approx(float(expected[i]), abs=1e-6)
                assert facts["pearson_to_original"] == pytest.approx(
                    row.values[name]["pearson"], abs=1e-6
                )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Imitated maps" in page and "washed" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": 1.5}, "weight: is a share of the loss, at most 1, got 1.5"),
        ({"weight": -0.5}, "weight: must not be negative"),
        ({"picture": "crosss"}, "did you mean 'cross'"),
        ({"box": (0.5, 0.0, 1.2, 0.5)}, "box: .* is not within the image"),
        ({"box": (0.5, 0.0, 0.5, 0.5)}, "box: .* is not within the image"),
        ({"box": (-0.1, 0.0, 0.5, 0.5)}, "box: .* is not within the image"),
        ({"box": (0.0, 0.0, 0.5)}, "box: .* is not within the image"),
        ({"box": (0, 0, 1, 1)}, "box: covers the whole image"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        Fairwashing(**options)


def test_a_box_between_the_pixels_is_refused():
    with pytest.raises(InvalidInput, match=r"box: .* holds no pixel of 4x4"):
        fill((0.2, 0.2, 0.3, 0.3), 4, 4)
    with pytest.raises(InvalidInput, match=r"box: .* holds every pixel of 4x4"):
        fill((0.05, 0.05, 0.95, 0.95), 4, 4)
