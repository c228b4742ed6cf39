"""The zoo: every network is the file of its card, and does what the card says."""

import json

import pytest
import torch

from robustlab import data, models
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import logits_of
from robustlab.lab.catalogue import catalogue, describe
from robustlab.models import zoo
from robustlab.training import TRAINING

# a shipped part of the test set of what each was trained on
TEST = {"fashion_mnist": "fashion_3k", "mnist": "mnist_1k"}


@pytest.mark.parametrize("name", zoo.zoo())
def test_it_is_as_accurate_as_its_card_says(name):
    card = zoo.card(name)
    batch = data.load(TEST[card["data"]]).batch()
    model = models.load(f"zoo:{name}")
    right = (logits_of(model, batch.images).argmax(1) == batch.labels).double().mean()
    assert abs(float(right) - card["accuracy"]) < 0.03  # 1,000 images; the card has others
    assert not model.training
    assert card["objective"]["name"] in TRAINING
    assert len(card["commit"]) == 12 and card["command"].startswith("robustlab train zoo_")
    assert (zoo.FOLDER / f"{name}.safetensors").stat().st_size < 2_000_000


def test_a_smooth_network_is_built_smooth():
    kinds = {type(m) for m in models.load("zoo:mnist_softplus").modules()}
    assert torch.nn.Softplus in kinds and torch.nn.ReLU not in kinds


def test_the_catalogue_names_every_one():
    entries = {e["name"]: e for e in catalogue("models")}
    assert {f"zoo:{name}" for name in zoo.zoo()} <= set(entries)
    assert "natural" in entries["zoo:mnist_natural"]["summary"]
    title, text = describe("zoo:mnist_natural")
    assert title == "models: zoo:mnist_natural"
    assert json.loads(text) == zoo.card("mnist_natural")
    with pytest.raises(InvalidInput, match="did you mean 'zoo:mnist_natural'"):
        describe("zoo:mnist_naturel")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("zoo:mnist_naturel", {}, r"zoo:mnist_naturel\.arch: .*did you mean 'mnist_natural'"),
        ("zoo:", {}, "the zoo has no ''"),
        ("zoo:mnist_natural", {"weights": "none"}, "no such option"),
    ],
)
def test_what_is_not_there_is_refused(name, options, words):
    with pytest.raises(InvalidInput, match=words):
        models.load(name, **options)
