"""The networks with attention: their gates as in the papers, and their shipped weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import robustlab.data as data
import robustlab.models as models
from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models.abn_cnn import AbnCnnNet
from robustlab.models.cbam_cnn import CbamCnnNet, ChannelGate, SpatialGate
from robustlab.models.se_cnn import SeCnnNet, SqueezeExcitation
from robustlab.models.shipped import FOLDER, read_card
from robustlab.models.small_vit import Attention, SmallVitNet
from robustlab.training.small import RECIPES, accuracy, objective, shifted, train
from tests.nets import seeded

NETS = {
    "se_cnn": SeCnnNet,
    "cbam_cnn": CbamCnnNet,
    "abn_cnn": AbnCnnNet,
    "small_vit": SmallVitNet,
}
EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist_5k", split="test").batch()


def features(channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, channels, 5, 4, generator=generator, dtype=torch.float64)


# --- shipped weights --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_shipped_weights_know_digits_as_their_card_says(name, digits):
    found = accuracy(models.load(name), digits)
    assert found >= (0.95 if name == "small_vit" else 0.97)
    assert found == pytest.approx(read_card(f"{name}_mnist_5k")["test_accuracy"], abs=0.004)


@pytest.mark.parametrize("name", NETS)
def test_the_card_describes_the_file(name):
    card, path = read_card(f"{name}_mnist_5k"), FOLDER / f"{name}_mnist_5k.safetensors"
    assert card["sha256"] == sha256(path)
    assert path.stat().st_size < 700_000
    assert card["parameters"] == sum(p.numel() for p in NETS[name]().parameters())
    assert {key: card[key] for key in RECIPES[name]} == RECIPES[name]
    assert card["train_images"] == 4000


def test_both_branches_of_the_attention_branch_network_know_digits(digits):
    with torch.inference_mode():
        branches = models.load("abn_cnn").net.branches(digits.images[:500])
    for logits in branches:
        assert (logits.argmax(1) == digits.labels[:500]).double().mean() > 0.9


# --- shape ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 10, 28), (3, 7, 32), (2, 2, 4)])
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


def test_only_the_transformer_insists_on_its_size():
    for name in ("se_cnn", "cbam_cnn", "abn_cnn"):
        assert models.load(name)(torch.rand(1, 1, 20, 24)).shape == (1, 10)
    with pytest.raises(InvalidInput, match="small_vit takes 28×28 pixels, got 32×32"):
        models.load("small_vit")(torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("se_cnn", {"classes": 1}, r"se_cnn\.classes: must be at least 2"),
        ("cbam_cnn", {"in_channels": 0}, r"cbam_cnn\.in_channels: must be at least 1"),
        ("abn_cnn", {"image_size": 3}, r"abn_cnn\.image_size: must be at least 4"),
        ("small_vit", {"image_size": 30}, r"small_vit\.image_size: must be a multiple of 4"),
        ("small_vit", {"weights": "imagenet"}, r"small_vit\.weights: .*known: none, mnist_5k, or"),
    ],
)
def test_misuse_names_the_field(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        models.load(name, **options)


# --- gates against other people's -------------------------------------------------------------


def copied(target, **sources):
    """``target`` with the weights of ``sources``, by the name of its submodules."""
    with torch.no_grad():
        for name, source in sources.items():
            module = target.get_submodule(name.replace("__", "."))
            module.weight.copy_(source.weight.view_as(module.weight))
            if module.bias is not None:
                module.bias.copy_(source.bias)
    return target


def test_squeeze_excitation_equals_torchvision_and_timm():
    ours = seeded(lambda: SqueezeExcitation(8, reduction=2))
    theirs = import_torchvision().ops.SqueezeExcitation(8, 4).double()
    expected = copied(theirs, fc1=ours.fc1, fc2=ours.fc2)(features(8))
    torch.testing.assert_close(ours(features(8)), expected, **EXACT)
    layers = pytest.importorskip("timm.layers")
    theirs = copied(layers.SEModule(8, rd_channels=4).double(), fc1=ours.fc1, fc2=ours.fc2)
    torch.testing.assert_close(ours(features(8)), theirs(features(8)), **EXACT)


def test_cbam_gates_equal_timm():
    cbam = pytest.importorskip("timm.layers.cbam")
    ours = seeded(lambda: nn.Sequential(ChannelGate(8, reduction=2), SpatialGate()))
    theirs = cbam.CbamModule(8, rd_channels=4).double().eval()
    theirs.spatial.conv.conv.weight.data.copy_(ours[1].conv.weight)
    theirs.spatial.conv.bn.load_state_dict(ours[1].bn.state_dict())
    copied(theirs.channel, fc1=ours[0].fc1, fc2=ours[0].fc2)
    torch.testing.assert_close(ours(features(8)), theirs(features(8)), **EXACT)
    swapped = ours[0](ours[1](features(8)))
    assert not torch.allclose(swapped, theirs(features(8))), "the order of the gates must matter"


def test_the_features_of_the_attention_branch_network_are_gated_by_one_plus_the_mask():
    net = seeded(lambda: AbnCnnNet(3, 5))
    images = torch.rand(3, 3, 12, 12, dtype=torch.float64)
    shallow = net.features(images)
    maps = net.attention.class_maps(F.relu(net.attention.bn(net.attention.conv(shallow))))
    mask = torch.sigmoid(net.attention.mask(F.relu(net.attention.mask_bn(maps))))
    assert maps.shape == (3, 5, 6, 6) and mask.shape == (3, 1, 6, 6)
    perceived = net.perception(shallow + shallow * mask).mean((2, 3))
    torch.testing.assert_close(net(images), net.fc(perceived), **EXACT)
    torch.testing.assert_close(net.branches(images)[0], maps.mean((2, 3)), **EXACT)


def test_attention_equals_pytorch():
    ours = seeded(lambda: Attention(12, 3))
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    copied(theirs, out_proj=ours.proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], **EXACT)


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["abn_cnn", "small_vit"])
def test_training_is_reproducible(name, digits):
    recipe = {**RECIPES[name], "epochs": 2, "batch_size": 10}
    nets = [models.load(name, weights="none").net for _ in range(2)]
    for net in nets:
        train(net, digits[:30], recipe)
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))


def test_both_branches_are_trained(digits):
    net, images, labels = AbnCnnNet(), digits.images[:8], digits.labels[:8]
    net.train()
    both = sum(F.cross_entropy(logits, labels) for logits in net.branches(images))
    torch.testing.assert_close(objective(net, images, labels), both)
    alone = SeCnnNet().eval()
    torch.testing.assert_close(
        objective(alone, images, labels), F.cross_entropy(alone(images), labels)
    )


def test_images_are_shifted_each_by_itself_and_nothing_wraps_around():
    images = torch.rand(40, 2, 6, 6) + 1
    moved = shifted(images, 2, torch.Generator().manual_seed(3))
    assert torch.equal(moved, shifted(images, 2, torch.Generator().manual_seed(3)))
    seen = set()
    for image, result in zip(images, moved, strict=True):
        padded = F.pad(image, (2, 2, 2, 2))
        fits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(result, padded[:, y : y + 6, x : x + 6])
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) > 12, "shifts along both axes"
    assert shifted(images, 0, torch.Generator()) is images
