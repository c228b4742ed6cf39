"""timm:NAME: the same promises through an optional package."""

import sys

import pytest
import torch

import robustlab.models as models
from robustlab.core.errors import InvalidInput, MissingDependency
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models.weight_files import save_weights

import_torchvision()  # before timm does it
pytest.importorskip("timm")
hub = pytest.importorskip("huggingface_hub")

NAME = "timm:resnet10t"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def no_network(repo, *_, **__):
        raise AssertionError(f"tried to download {repo}")

    monkeypatch.setattr(hub, "hf_hub_download", no_network)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", no_network)
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def random_model():
    return models.load(NAME, weights="none", seed=4)


def same(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_random_weights_and_facts(random_model):
    assert same(models.load(NAME, weights="none", seed=4), random_model)
    assert not same(models.load(NAME, weights="none", seed=5), random_model)
    assert (random_model.classes, random_model.input_size) == (1000, (3, 176, 176))
    assert not random_model.training
    torch.testing.assert_close(random_model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(random_model.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_weights_from_a_file(tmp_path):
    source = models.load(NAME, weights="none", classes=3)
    save_weights(source.net, tmp_path / "mine.safetensors")
    assert same(models.load(NAME, weights=tmp_path / "mine.safetensors", classes=3), source)


def test_weights_from_the_cache(cache, random_model):
    repo = cache / "models--timm--resnet10t.c3_in1k"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    save_weights(random_model.net, snapshot / "model.safetensors")
    assert same(models.load(NAME), random_model)
    assert same(models.load("timm:resnet10t.c3_in1k"), random_model)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            NAME,
            {},
            r"model\.safetensors of timm/resnet10t\.c3_in1k is not in .*hub; .*download=True",
        ),
        ("timm:resnett18", {}, "timm has no image classifier 'resnett18'; did you mean resnet18"),
        ("timm:resnet10t.zzz", {}, r"\.arch: timm: Invalid pretrained tag"),
        (NAME, {"weights": "nowhere.pth"}, "'nowhere.pth' is neither 'none' nor a file"),
        (NAME, {"classes": 3}, r"\.classes: the pretrained weights have 1000 classes"),
    ],
)
def test_misuse_names_the_field(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        models.load(name, **options)


def test_a_failed_download_says_what_else_helps(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(InvalidInput, match=r"\.download: .*could not be fetched: no route"):
        models.load(NAME, download=True)


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match=r"robustlab\[timm\]"):
        models.load(NAME)
