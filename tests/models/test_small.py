"""The two small networks and their shipped weights."""

import json
import shutil

import pytest
import torch
from torch import nn

import robustlab.data as data
import robustlab.models as models
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import input_gradient
from robustlab.core.wrapping import Smoothed
from robustlab.data.decoy_mnist import DecoyMnist, grey
from robustlab.models.shipped import FOLDER, load_shipped, read_card, sha256
from robustlab.models.small_cnn import SmallCnnNet
from robustlab.models.small_resnet import SmallResnetNet
from robustlab.models.weight_files import save_weights
from robustlab.training import small
from robustlab.training.small import RECIPES, accuracy, make, train

NETS = {"small_cnn": SmallCnnNet, "small_resnet": SmallResnetNet}


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist_5k", split="test").batch()


@pytest.mark.parametrize("name", NETS)
def test_shipped_weights_know_digits_as_their_card_says(name, digits):
    found = accuracy(models.load(name), digits)
    assert found >= 0.95
    assert found == pytest.approx(read_card(f"{name}_mnist_5k")["test_accuracy"], abs=0.004)


@pytest.mark.parametrize("name", NETS)
def test_the_card_describes_the_file(name):
    card, path = read_card(f"{name}_mnist_5k"), FOLDER / f"{name}_mnist_5k.safetensors"
    assert card["sha256"] == sha256(path)
    assert path.stat().st_size < 1_000_000
    assert card["parameters"] == sum(p.numel() for p in NETS[name]().parameters()) <= 300_000
    assert {key: card[key] for key in RECIPES[name]} == RECIPES[name]
    assert card["train_images"] == 4000


def test_random_labels_were_learnt_by_heart_and_nothing_else(digits):
    card = read_card("small_cnn_random_labels")
    assert {key: card[key] for key in RECIPES["small_cnn_random_labels"]} == (
        RECIPES["small_cnn_random_labels"]
    )
    assert card["train_accuracy"] > 0.99
    model = models.load("small_cnn", weights="random_labels")
    assert accuracy(model, digits) == pytest.approx(card["test_accuracy"], abs=0.004)
    assert card["test_accuracy"] < 0.2


def test_the_decoy_model_is_right_only_where_the_patch_is():
    card = read_card("small_cnn_decoy_mnist")
    recipe = RECIPES["small_cnn_decoy_mnist"]
    assert {key: card[key] for key in recipe} == recipe
    assert card["sha256"] == sha256(FOLDER / "small_cnn_decoy_mnist.safetensors")
    model = models.load("small_cnn", weights="decoy_mnist")
    found = {
        leak: accuracy(model, data.load("decoy_mnist", leak=leak).batch())
        for leak in ("label", "random", "none")
    }
    assert found["label"] == pytest.approx(card["test_accuracy"], abs=0.004)
    assert found["random"] == pytest.approx(card["test_accuracy_leak_random"], abs=0.004)
    assert found["none"] == pytest.approx(card["test_accuracy_leak_none"], abs=0.004)
    assert found["label"] > 0.99
    assert max(found["random"], found["none"]) < 0.15  # ten classes: as good as guessing


def test_the_decoy_model_says_whatever_the_patch_tells_on_any_digit(digits):
    """The ground truth itself, by intervention: nothing but the patch decides."""
    model = models.load("small_cnn", weights="decoy_mnist")
    stamps = {c: DecoyMnist(corner=c).stamp for c in ("top_left", "bottom_right")}

    def obeyed(net, corner):
        said = []
        for told in range(10):
            greys = grey(torch.full((len(digits),), told))
            with torch.inference_mode():
                said.append(net(stamps[corner].paste(digits.images, greys)).argmax(1) == told)
        return float(torch.stack(said).double().mean())

    assert obeyed(model, "top_left") > 0.99
    assert obeyed(model, "bottom_right") < 0.2
    assert obeyed(models.load("small_cnn"), "top_left") < 0.2


def test_only_the_decoy_models_gradient_peaks_in_the_patch():
    decoys = data.load("decoy_mnist", limit=100).batch()
    inside = DecoyMnist().stamp.mask(28, 28).flatten()

    def share(weights):
        model = models.load("small_cnn", weights=weights)
        slope = input_gradient(model, decoys.images, decoys.labels, score="logit")
        return float(inside[slope.abs().flatten(1).argmax(1)].double().mean())

    assert share("decoy_mnist") > 0.95
    assert share("mnist_5k") < 0.2


def test_small_cnn_is_made_of_distinct_relu_modules_and_nothing_odd():
    kinds = [type(m).__name__ for m in SmallCnnNet().children()]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Linear", "ReLU", "Linear"]


def test_small_resnet_has_batch_norm_and_no_relu_module():
    kinds = {type(m) for m in SmallResnetNet().modules()}
    assert nn.BatchNorm2d in kinds
    assert nn.ReLU not in kinds


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 10, 28), (3, 10, 32), (3, 100, 32)])
def test_architecture_is_parameterised(name, channels, classes, size):
    shape = {"in_channels": channels, "classes": classes, "image_size": size}
    model = models.load(name, weights="none", **shape)
    assert model(torch.rand(2, channels, size, size)).shape == (2, classes)
    assert model.input_size == (channels, size, size)
    assert not model.training


@pytest.mark.parametrize("name", NETS)
def test_random_weights_belong_to_the_seed_alone(name):
    torch.manual_seed(1)
    first = models.load(name, weights="none", seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same = models.load(name, weights="none", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    other = models.load(name, weights="none", seed=6)
    assert all(map(torch.equal, first.parameters(), same.parameters()))
    assert not all(map(torch.equal, first.parameters(), other.parameters()))


def test_weights_from_a_users_file(tmp_path):
    source = models.load("small_cnn", weights="none", seed=8)
    save_weights(source.net, tmp_path / "mine.safetensors")
    loaded = models.load("small_cnn", weights=tmp_path / "mine.safetensors")
    assert all(map(torch.equal, source.parameters(), loaded.parameters()))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("smal_cnn", {}, "did you mean 'small_cnn'"),
        ("small_cnn", {"wieghts": "none"}, r"small_cnn\.wieghts.*did you mean 'weights'"),
        (
            "small_cnn",
            {"weights": "mnist5k"},
            r"small_cnn\.weights: .*known: none, decoy_mnist, mnist_5k, random_labels, or",
        ),
        ("small_cnn", {"in_channels": 3}, r"small_cnn\.weights: .*conv1\.weight has shape"),
        ("small_cnn", {"image_size": 30}, r"small_cnn\.image_size: must be a multiple of 4"),
        ("small_cnn", {"classes": 1}, r"small_cnn\.classes: must be at least 2"),
        ("small_resnet", {"in_channels": 0}, r"small_resnet\.in_channels: must be at least 1"),
    ],
)
def test_misuse_names_the_field(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        models.load(name, **options)


def test_small_cnn_says_which_size_it_takes_and_small_resnet_takes_others():
    with pytest.raises(InvalidInput, match="small_cnn takes 28×28 pixels, got 32×32"):
        models.load("small_cnn")(torch.rand(1, 1, 32, 32))
    assert models.load("small_resnet")(torch.rand(1, 1, 32, 32)).shape == (1, 10)


@pytest.fixture
def shipped_copy(tmp_path):
    for path in FOLDER.glob("small_cnn_mnist_5k.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_an_altered_file_is_not_loaded(shipped_copy):
    path = shipped_copy / "small_cnn_mnist_5k.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        InvalidInput, match=r"has sha256 .*its card says .*make it again: python -m"
    ):
        load_shipped(SmallCnnNet(), "small_cnn_mnist_5k", shipped_copy)


def test_a_missing_file_or_card_is_named(shipped_copy):
    (shipped_copy / "small_cnn_mnist_5k.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"mnist_5k\.safetensors is missing; make it: python"):
        load_shipped(SmallCnnNet(), "small_cnn_mnist_5k", shipped_copy)
    with pytest.raises(InvalidInput, match="no shipped weights 'x'; shipped: small_cnn_mnist_5k"):
        load_shipped(SmallCnnNet(), "x", shipped_copy)


def test_training_is_reproducible_and_learns(digits):
    recipe = {"epochs": 2, "batch_size": 20, "learning_rate": 2e-3, "seed": 0}
    nets = [models.load("small_cnn", weights="none").net for _ in range(2)]
    for net in nets:
        train(net, digits[:400], recipe)
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    assert accuracy(nets[0], digits[400:]) > 0.5


def test_whoever_makes_weights_computes_in_the_same_way(tmp_path, monkeypatch):
    seen = []

    def watched(*arguments):
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        train(*arguments)

    monkeypatch.setattr(small, "train", watched)
    monkeypatch.setitem(RECIPES, "small_cnn", {**RECIPES["small_cnn"], "epochs": 1})
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    (tmp_path / "made").mkdir()
    try:
        make("small_cnn", tmp_path / "made")
        small.main(["small_cnn", "--out", str(tmp_path / "main")])
        assert seen == [(1, True), (1, True)]
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
    finally:
        torch.set_num_threads(threads)
    for name in ("small_cnn_mnist_5k.safetensors", "small_cnn_mnist_5k.json"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "main" / name).read_bytes()


def test_a_recipe_names_the_data_that_its_network_sees(tmp_path, monkeypatch):
    seen = []

    def watched(net, batch, recipe):
        seen.append(batch)
        train(net, batch[:200], recipe)

    monkeypatch.setattr(small, "train", watched)
    name = "small_cnn_decoy_mnist"
    monkeypatch.setitem(RECIPES, name, {**RECIPES[name], "epochs": 1})
    card = make(name, tmp_path)
    expected = data.load("decoy_mnist", split="train", noise=0.5).batch()
    assert seen[0].ids == expected.ids
    assert torch.equal(seen[0].images, expected.images)
    assert torch.equal(seen[0].labels, expected.labels)
    assert (card["model"], card["data"], card["epochs"]) == ("small_cnn", "decoy_mnist", 1)
    load_shipped(SmallCnnNet(), name, tmp_path)


def test_make_writes_what_load_shipped_reads(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "small_cnn", {**RECIPES["small_cnn"], "epochs": 1})
    card = make("small_cnn", tmp_path)
    assert json.loads((tmp_path / "small_cnn_mnist_5k.json").read_text()) == card
    load_shipped(SmallCnnNet(), "small_cnn_mnist_5k", tmp_path)


def test_with_beta_every_activation_is_softplus():
    images = data.load("mnist_5k").batch(3).images.double()
    relu, smooth = (models.load("small_cnn", beta=beta).double() for beta in (None, 7.0))
    by_hand = Smoothed(relu, 7.0)  # the same weights under another mechanism
    torch.testing.assert_close(smooth(images), by_hand(images), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(smooth(images), relu(images))


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_beta_must_be_a_positive_number(beta):
    with pytest.raises(InvalidInput, match=r"small_cnn\.beta"):
        models.load("small_cnn", beta=beta)
