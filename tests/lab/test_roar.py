"""Removing pixels: which go, what takes their place, and that every network is trained once."""

import numpy as np
import pytest
import torch

import robustlab as rl
from robustlab import data
from robustlab.core.errors import InvalidInput
from robustlab.lab.plan import make_plan
from robustlab.lab.roar import order_of, parts_of, without
from robustlab.lab.run import run_experiment
from robustlab.lab.spec import Course, Removal
from robustlab.records import Store
from tests.lab import tiny

DATA = {"name": "fashion_3k"}
NATURAL = "zoo:fashion_mnist_natural"


def removal(explainer="gradient", share=0.25):
    return Removal(explainer=explainer, model=NATURAL, share=share)


def course(**changes):
    return Course(data=DATA, images=6, held_out=4, **changes)


def test_the_highest_pixels_of_the_predicted_class_go_and_take_the_mean_of_their_channel():
    plain = course()
    seen, unseen = parts_of(plain, "cpu")
    less, fewer = parts_of(course(remove=removal()), "cpu")
    model = rl.models.load(NATURAL)
    colour = float(seen.images.mean())
    for whole, part in ((seen, less), (unseen, fewer)):
        assert part.ids == whole.ids
        assert torch.equal(part.labels, whole.labels)
        maps = rl.explain(model, rl.explainers.build("gradient"), whole)
        for image, left, saliency in zip(whole.images, part.images, maps, strict=True):
            order = np.argsort(-saliency.numpy().ravel(), kind="stable")
            expected = image.numpy().copy().reshape(-1)
            values = saliency.numpy().ravel()
            assert values[order[195]] > values[order[196]]  # no tie where the cut is
            expected[order[:196]] = colour  # a quarter of 784
            np.testing.assert_allclose(left.numpy().ravel(), expected, atol=1e-7)


def test_the_mask_does_not_know_the_label():
    batch = data.load("fashion_3k").batch(5)
    wrong = rl.Batch(batch.images, (batch.labels + 1) % 10, batch.ids, batch.names)
    assert torch.equal(order_of(batch, removal(), "cpu"), order_of(wrong, removal(), "cpu"))


def test_of_equal_pixels_none_is_preferred():
    # a map whose pixels are nearly all equal must not take the upper rows first
    batch = data.load("fashion_3k").batch(30)
    flat = Removal(explainer="random", model=NATURAL, share=0.5)
    share = order_of(batch, flat, "cpu")[:, :392].double() < 392
    assert 0.45 < float(share.double().mean()) < 0.55
    zeros = order_of(batch, removal({"name": "lrp", "post": "positive"}), "cpu")
    last = zeros[:, -80:].double()  # where relevance is zero or nearly so
    assert 0.35 < float((last < 392).double().mean()) < 0.65


def test_removing_by_hand():
    batch = rl.data.from_tensors(torch.arange(8.0).view(1, 2, 2, 2) / 8)
    order = torch.tensor([[3, 0, 1, 2]], dtype=torch.int32)
    colour = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    found = without(batch, order, 0.5, colour).images
    expected = [[0.5, 1 / 8, 2 / 8, 0.5], [0.25, 5 / 8, 6 / 8, 0.25]]
    assert found.flatten(2).tolist() == [expected]
    assert torch.equal(without(batch, order, 0.0, colour).images, batch.images)


def test_the_holes_alone():
    whole, _ = parts_of(course(), "cpu")
    less, fewer = parts_of(course(remove=removal()), "cpu")
    seen, unseen = parts_of(course(remove=removal().model_copy(update={"alone": True})), "cpu")
    assert torch.equal(seen.images == 1, less.images != whole.images)
    for part, other in ((seen, less), (unseen, fewer)):
        assert part.images.unique().tolist() == [0, 1]
        assert (part.images.sum((1, 2, 3)) == 196).all()
        assert torch.equal(part.labels, other.labels)


def test_the_same_order_for_every_share_and_seed_is_made_once(monkeypatch):
    asked = []
    original = rl.explainers.EXPLAINERS["input_x_gradient"].explain

    def counted(self, model, images, *rest, **more):
        asked.append(len(images))
        return original(self, model, images, *rest, **more)

    monkeypatch.setattr(rl.explainers.EXPLAINERS["input_x_gradient"], "explain", counted)
    for share in (0.1, 0.9):
        for seed in (0, 1):
            parts_of(course(remove=removal("input_x_gradient", share), seed=seed), "cpu")
    assert sum(asked) == 6 + 4


def roar(**changes):
    training = {"data": DATA, "images": 40, "held_out": 40, "epochs": 1}
    asked = {
        "explained": NATURAL,
        "network": "small_cnn",
        "explainers": ["gradient"],
        "shares": [0.5],
        "seeds": [0, 1],
    }
    return tiny.spec(
        models=[{"name": NATURAL, "label": "natural"}],
        data=DATA,
        images=2,
        attacks=["none"],
        training=training,
        roar={**asked, **changes},
    )


def test_every_network_is_trained_and_a_second_run_trains_nothing(tmp_path):
    assert run_experiment(roar(), tmp_path, workers=1).crashed == ()
    trainings, _ = Store(tmp_path).load_trainings()
    assert [one.model for one in trainings] == [
        "whole, 0", "whole, 1", "gradient 50%, 0", "gradient 50%, 1", "random 50%, 0",
        "random 50%, 1",
    ]  # fmt: skip
    assert all(one.accuracy_after is not None for one in trainings)
    times = [p.stat().st_mtime_ns for p in sorted((tmp_path / "models").iterdir())]
    run_experiment(roar(), tmp_path, workers=1)
    assert times == [p.stat().st_mtime_ns for p in sorted((tmp_path / "models").iterdir())]


def test_a_course_that_removes_nothing_has_the_key_that_it_always_had():
    spec = tiny.spec(
        models=[{"name": "small_cnn", "label": "a", "train": {"data": DATA, "images": 5}}]
    )
    (one,) = make_plan(spec, data.load("mnist_5k")).trainings
    assert one.key == "85b9d76666dc456f59e3"


def test_networks_that_see_the_holes_alone_leave_the_others_keys_as_they_were():
    before, after = (make_plan(s, data.load("mnist_5k")) for s in (roar(), roar(holes=[0.5])))
    known = {one.model.label: one.key for one in before.trainings}
    now = {one.model.label: one.key for one in after.trainings}
    assert {label: now[label] for label in known} == known
    new = [label for label in now if label not in known]
    assert new == [f"{o} 50% alone, {s}" for o in ("gradient", "random") for s in (0, 1)]
    assert len(set(now.values())) == len(now)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"explainers": ["gradeint"]}, "roar.explainers.0: explainer", "did you mean 'gradient'"),
        ({"network": "small_cn"}, "models", "small_cn"),
        ({"explained": "zoo:nobody"}, "models", "nobody"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(tmp_path, changes, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        run_experiment(roar(**changes), tmp_path, workers=1)
    assert caught.value.field.startswith(field)
    assert not (tmp_path / "models").exists()
