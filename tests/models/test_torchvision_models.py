"""torchvision:NAME from files, from the cache, at random; never from the network unasked."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch

import robustlab.models as models
from robustlab.core.errors import InvalidInput
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models.torchvision_models import TorchvisionModel
from robustlab.models.weight_files import save_weights

NAME, FILE = "torchvision:shufflenet_v2_x0_5", "shufflenetv2_x0.5-f707e7126e.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty torch cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def no_network(url, *_, **__):
        raise AssertionError(f"tried to download {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def random_model():
    return models.load(NAME, weights="none", seed=4)


def same(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_random_weights_belong_to_the_seed(random_model):
    before = torch.get_rng_state()
    assert same(models.load(NAME, weights="none", seed=4), random_model)
    assert not same(models.load(NAME, weights="none", seed=5), random_model)
    assert torch.equal(torch.get_rng_state(), before)


def test_facts(random_model):
    assert random_model.name == NAME
    assert random_model.input_size == (3, 224, 224)
    assert random_model.class_names[1] == "goldfish"
    assert not random_model.training
    torch.testing.assert_close(random_model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(random_model.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path, random_model, suffix):
    path = tmp_path / f"mine.{suffix}"
    if suffix == "pth":
        torch.save(random_model.net.state_dict(), path)
    else:
        save_weights(random_model.net, path)
    for given in (path, str(path)):
        assert same(models.load(NAME, weights=given), random_model)


def test_a_fine_tuned_file_with_its_own_classes(tmp_path):
    source = models.load(NAME, weights="none", classes=7)
    save_weights(source.net, tmp_path / "mine.safetensors")
    loaded = models.load(NAME, weights=str(tmp_path / "mine.safetensors"), classes=7)
    assert loaded.class_names == tuple("0123456")
    assert same(loaded, source)
    with pytest.raises(InvalidInput, match=r"fc\.weight has shape \(7, 1024\)"):
        models.load(NAME, weights=str(tmp_path / "mine.safetensors"))


def test_an_empty_cache_says_which_file_is_expected_where(cache):
    words = (
        rf"{NAME}\.weights: {FILE} is not in {cache}; put https://\S+{FILE} there.*download=True"
    )
    with pytest.raises(InvalidInput, match=words):
        models.load(NAME)


@pytest.mark.parametrize("weights", [None, "IMAGENET1K_V1"])
def test_weights_from_the_cache(cache, random_model, weights):
    cache.mkdir(parents=True)
    torch.save(random_model.net.state_dict(), cache / FILE)
    assert same(models.load(NAME, weights=weights), random_model)


def test_an_unsafe_file_in_the_cache_is_refused_before_torchvision_reads_it(cache, random_model):
    cache.mkdir(parents=True)
    torch.save(random_model.net, cache / FILE)
    with pytest.raises(InvalidInput, match="would run code when read"):
        models.load(NAME)


def test_a_foreign_file_in_the_cache_is_refused(cache):
    cache.mkdir(parents=True)
    torch.save({"x": torch.zeros(1)}, cache / FILE)
    with pytest.raises(InvalidInput, match=rf"{FILE} does not fit shufflenet_v2_x0_5"):
        models.load(NAME)


def test_download_happens_only_when_allowed_and_checks_the_hash(monkeypatch, cache, random_model):
    asked = []

    def fetch(url, path, hash_prefix, **_):
        asked.append((url, hash_prefix))
        torch.save(random_model.net.state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert same(models.load(NAME, download=True), random_model)
    assert [(url.rsplit("/", 1)[-1], prefix) for url, prefix in asked] == [(FILE, "f707e7126e")]


def test_a_failed_download_says_what_else_helps(monkeypatch):
    def fail(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InvalidInput, match=r"\.download: .*could not be fetched.*no route.*FILE"):
        models.load(NAME, download=True)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("torchvision:resnet81", {}, r"no image classifier 'resnet81'; did you mean resnet18"),
        ("resnet18", {}, "did you mean 'torchvision:resnet18'"),
        ("torchvision:", {}, "no image classifier ''"),
        ("torchvison:resnet18", {}, "did you mean 'torchvision:NAME'"),
        (NAME, {"weights": "IMAGENET1K_V9"}, "known: none, IMAGENET1K_V1, or a file"),
        (NAME, {"classes": 7}, r"\.classes: the official weights have 1000 classes, not 7"),
        (NAME, {"classes": 1}, r"\.classes: must be at least 2"),
        (NAME, {"arch": "resnet18"}, r"\.arch: the architecture is already in the name"),
        (NAME, {"seeds": 1}, r"\.seeds: .*did you mean 'seed'"),
    ],
)
def test_misuse_names_the_field(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        models.load(name, **options)


def test_a_transformer_says_which_size_it_takes():
    model = models.load("torchvision:vit_b_32", weights="none", classes=2)
    with pytest.raises(InvalidInput, match="takes 224×224 pixels, got 64×64"):
        model(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("file", "switched_on"), [("googlenet-1378be20.pth", True), ("my_own.pth", False)]
)
def test_ported_weights_bring_their_own_normalisation(monkeypatch, tmp_path, file, switched_on):
    """A local copy of the official GoogLeNet must run as torchvision runs it."""
    tv_models = import_torchvision().models
    small = {"num_classes": 1000, "init_weights": False}
    source = tv_models.googlenet(weights=None, **small)
    torch.save(source.state_dict(), tmp_path / file)
    original = tv_models.get_model
    monkeypatch.setattr(tv_models, "get_model", lambda *a, **k: original(*a, **{**small, **k}))
    loaded = models.load("torchvision:googlenet", weights=str(tmp_path / file))
    assert loaded.net.transform_input is switched_on
    assert loaded(torch.rand(1, 3, 64, 64)).shape == (1, 1000)


def test_options_take_paths_with_a_tilde(monkeypatch, tmp_path, random_model):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_weights(random_model.net, tmp_path / "w.safetensors")
    assert Path("~/w.safetensors").expanduser() == tmp_path / "w.safetensors"
    recipe = TorchvisionModel("shufflenet_v2_x0_5", weights="~/w.safetensors")
    assert same(recipe.load("mine"), random_model)
