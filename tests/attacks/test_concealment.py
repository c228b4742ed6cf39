"""Concealment: the map leaves the patch, and the model goes on reading it."""

import pytest
import torch
from torch.nn import functional as F

from attacks import Concealment
from attacks.model.fine_tuning import learn
from robustlab import data, models
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps, pose
from robustlab.core.streaming import logits_of
from robustlab.explainers import build
from tests.nets import VGGLike, pictures, seeded

CORNER = (0.0, 0.0, 0.25, 0.5)


@pytest.mark.parametrize("name", ["gradient", "lrp"])
def test_the_terms_are_the_formulas(name):
    net = seeded(VGGLike)
    lesson = learn(net, build(name), make_batch(pictures(), [0, 1, 2]))
    rows = torch.tensor([0, 2])
    images = lesson.batch.images[rows]
    terms = Concealment(weight=3.0, box=CORNER).parts(net, lesson, rows)
    wanted = F.cross_entropy(net(images), torch.tensor([0, 2]))
    torch.testing.assert_close(terms["task"], wanted)
    maps = explain_maps(net, lesson.explainer, images, lesson.targets[rows], None).clamp(min=0)
    height, width = maps.shape[1:]
    inside = maps[:, : height // 2, : width // 4].sum((1, 2)) / maps.sum((1, 2))
    torch.testing.assert_close(terms["map"].detach(), 3.0 * inside.mean())


def test_hiding_fills_the_box_and_nothing_else():
    problem = pose(seeded(VGGLike), build("gradient"), make_batch(pictures()))
    hidden = Concealment(box=CORNER, fill=0.25).hidden(problem)
    height, width = hidden.shape[-2:]
    assert (hidden[..., : height // 2, : width // 4] == 0.25).all()
    assert torch.equal(hidden[..., height // 2 :, :], problem.images[..., height // 2 :, :])
    assert torch.equal(hidden[..., width // 4 :], problem.images[..., width // 4 :])


def test_the_map_leaves_the_patch_that_the_model_goes_on_reading():
    model = models.load("small_cnn", weights="decoy_mnist")
    attack = Concealment(
        weight=20.0, images=800, epochs=4, learning_rate=3e-3, data_options={"noise": 0.5}
    )
    fooled, _ = attack.tune(model, build("gradient"))
    held = data.load("decoy_mnist").batch(60)
    problem = pose(model, build("gradient"), held)
    inside = attack.inside(held.images)
    assert inside.sum() == 16
    energy, changed = [], []
    for net in (model, fooled):
        maps = explain_maps(net, build("gradient"), held.images, problem.targets, held.ids)
        energy.append(float(((maps * inside).sum((1, 2)) / maps.sum((1, 2))).mean()))
        seen, unseen = (logits_of(net, x).argmax(1) for x in (held.images, attack.hidden(problem)))
        changed.append(float((seen != unseen).double().mean()))
        assert (seen == held.labels).double().mean() > 0.9
    assert energy[1] < 0.5 * energy[0], energy
    assert min(changed) > 0.8, changed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": (0.5, 0, 0.2, 1)}, "box: .* is not within the image"),
        ({"box": (0, 0, 1.2, 1)}, "box: .* is not within the image"),
        ({"box": (0, 0, 1, 1)}, "box: covers the whole image"),
        ({"fill": 1.5}, r"fill: must lie in 0\.\.1"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        Concealment(**options)


def test_a_box_without_a_pixel_is_refused():
    with pytest.raises(InvalidInput, match="holds no pixel"):
        Concealment(box=(0, 0, 0.01, 0.01)).inside(pictures())
