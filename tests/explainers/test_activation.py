"""Activation maximisation against closed forms and brute force; digits from the generator."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

import robustlab.explainers.activation.generated as generated
from robustlab import data, models
from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.explainers import build
from robustlab.explainers.activation.maximization import shifted
from robustlab.models.generator import GeneratorNet, load_generator
from robustlab.models.shipped import FOLDER, read_card
from robustlab.models.weight_files import save_weights
from robustlab.training import generator as training
from tests.explainers.variants.defended import digits_net
from tests.nets import Functional, VGGLike, pictures, seeded

EXACT = {"rtol": 1e-10, "atol": 1e-12}
BARE = {"tv": 0.0, "jitter": 0, "grey": 0.0, "box": False, "rule": "plain"}


def linear_net(shape=(1, 3, 4), classes=3):
    """Logits that are linear in the pixels, and their weights ``[classes, *shape]``."""
    size = torch.Size(shape).numel()
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(size, classes)))
    return net, net[1].weight.detach().view(classes, *shape)


# --- closed forms ----------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "rate"), [(1, 1 / 1.4), (200, 0.2)])
def test_a_linear_unit_under_l2_likes_its_weights_best(steps, rate):
    net, weights = linear_net()
    targets = torch.tensor([2, 0])
    made = build("activation_maximization", steps=steps, rate=rate, l2=0.7, **BARE).explain(
        net, torch.zeros(2, 1, 3, 4).double(), targets
    )
    torch.testing.assert_close(made, weights[targets] / (2 * 0.7), **EXACT)


def test_the_prior_pulls_towards_grey():
    net, weights = linear_net()
    options = {**BARE, "grey": 0.3}
    made = build("activation_maximization", steps=200, rate=0.2, l2=0.7, **options).explain(
        net, torch.zeros(1, 1, 3, 4).double(), torch.tensor([1])
    )
    torch.testing.assert_close(made[0], 0.3 + weights[1] / 1.4, **EXACT)


def test_variation_leads_to_the_solution_of_a_linear_system():
    """λ₂ and λ_tv make the optimum (2 λ₂ I + 2 λ_tv L)⁻¹ w, L the Laplacian of the grid."""
    net, weights = linear_net()
    laplacian = torch.zeros(12, 12).double()
    for a, b in itertools.combinations(range(12), 2):
        (r, c), (s, d) = divmod(a, 4), divmod(b, 4)
        if abs(r - s) + abs(c - d) == 1:
            laplacian[[a, b], [a, b]] += 1
            laplacian[[a, b], [b, a]] -= 1
    expected = torch.linalg.solve(
        2 * 0.5 * torch.eye(12).double() + 2 * 0.3 * laplacian, weights[1].flatten()
    )
    options = {**BARE, "tv": 0.3, "steps": 400, "rate": 0.15, "l2": 0.5}
    made = build("activation_maximization", **options).explain(
        net, torch.zeros(1, 1, 3, 4).double(), torch.tensor([1])
    )
    torch.testing.assert_close(made.flatten(), expected, **EXACT)


def test_in_the_box_no_image_of_a_grid_is_better():
    net, _ = linear_net((1, 2, 2))
    with torch.no_grad():
        net[1].weight *= 4  # some pixels end at the border, some inside
    l2, tv, grey = 0.5, 0.4, 0.5

    def value(images):
        across, down = images[..., 1] - images[..., 0], images[..., 1, :] - images[..., 0, :]
        far = (images - grey).square().flatten(1).sum(1)
        rough = (across.square() + down.square()).flatten(1).sum(1)
        return net(images)[:, 0] - l2 * far - tv * rough

    made = build(
        "activation_maximization", l2=l2, tv=tv, grey=grey, jitter=0, rule="plain", rate=0.2,
        steps=300,
    ).explain(net, torch.zeros(1, 1, 2, 2).double(), torch.tensor([0]))  # fmt: skip
    axis = torch.linspace(0, 1, 21).double()
    grid = torch.cartesian_prod(axis, axis, axis, axis).view(-1, 1, 2, 2)
    values = value(grid)
    assert value(made) >= values.max()
    assert (made - grid[values.argmax()]).abs().max() <= 0.05
    at_border = (made == 0) | (made == 1)
    assert at_border.any() and not at_border.all()


def test_a_normalised_step_moves_pixels_by_the_rate():
    net, weights = linear_net()
    options = {**BARE, "rule": "normalised", "noise": 0.0, "l2": 0.0, "steps": 1, "rate": 0.25}
    made = build("activation_maximization", **options).explain(
        net, torch.zeros(1, 1, 3, 4).double(), torch.tensor([0])
    )
    assert float(made.square().mean().sqrt()) == pytest.approx(0.25)
    torch.testing.assert_close(made / made.norm(), weights[:1] / weights[0].norm(), **EXACT)


def test_jitter_rolls_what_the_model_sees_and_not_the_image():
    net, weights = linear_net()
    options = {**BARE, "jitter": 2, "l2": 0.1, "steps": 40, "rate": 0.3, "noise": 0.0}
    explainer = build("activation_maximization", **options)
    images = torch.zeros(2, 1, 3, 4).double()
    made = explainer.explain(net, images, torch.tensor([1, 1]), ids=["a", "b"])
    moves = [explainer._offsets(images, ["a", "b"], step) for step in range(40)]
    for i in range(2):
        x = images[i]
        for move in moves:
            back = torch.roll(weights[1], (-move[i]).tolist(), (1, 2))
            x = x + 0.3 * (back - 2 * 0.1 * x)
        torch.testing.assert_close(made[i], x, **EXACT)
    assert set(torch.cat(moves).flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert not torch.equal(moves[0][0], moves[0][1]) or not torch.equal(moves[1][0], moves[1][1])


def test_shifted_is_a_roll_of_each_image():
    images, offsets = pictures(3, 5), torch.tensor([[0, 2], [-1, 3], [4, -5]])
    rolled = [torch.roll(i, o.tolist(), (1, 2)) for i, o in zip(images, offsets, strict=True)]
    assert torch.equal(shifted(images, offsets), torch.stack(rolled))


# --- units -----------------------------------------------------------------------------------


class OneUnit(nn.Module):
    """The unit itself as a classifier of one class, written without hooks."""

    def __init__(self, net, read):
        super().__init__()
        self.net, self.read = net, read

    def forward(self, x):
        return self.read(self.net, x)


@pytest.mark.parametrize(
    ("options", "read"),
    [
        (
            {"layer": "features.2", "channel": 3, "position": (4, 7)},
            lambda net, x: net.features[:3](x)[:, 3, 4, 7].unsqueeze(1),
        ),
        (
            {"layer": "features.5", "channel": 2},
            lambda net, x: net.features[:6](x)[:, 2].mean((1, 2)).unsqueeze(1),
        ),
        (
            {"layer": "head.0", "channel": 9},
            lambda net, x: net.head[0](net.features(x).flatten(1))[:, 9:10],
        ),
    ],
    ids=["neuron", "channel", "dense"],
)  # fmt: skip
def test_a_unit_is_maximised_like_a_class(options, read):
    net, zero = seeded(VGGLike), torch.zeros(3, dtype=torch.int64)
    settings = {"steps": 4, "jitter": 1, "seed": 5}
    found = build("activation_maximization", **settings, **options).explain(net, pictures(), zero)
    twin = build("activation_maximization", **settings).explain(
        OneUnit(net, read), pictures(), zero
    )
    torch.testing.assert_close(found, twin, **EXACT)
    by_target = {key: value for key, value in options.items() if key != "channel"}
    again = build("activation_maximization", **settings, **by_target).explain(
        net, pictures(), torch.full((3,), options["channel"])
    )
    torch.testing.assert_close(again, twin, **EXACT)


def test_a_layers_output_is_read_before_the_next_layer_changes_it():
    twin = seeded(VGGLike)
    net = Functional(twin).eval()  # c2 is followed by an activation in place
    ask = {"steps": 3, "channel": 4}
    targets = torch.zeros(3, dtype=torch.int64)
    found = build("activation_maximization", layer="c2", **ask).explain(net, pictures(), targets)
    plain = build("activation_maximization", layer="features.2", **ask)
    torch.testing.assert_close(found, plain.explain(twin, pictures(), targets), **EXACT)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"layer": "features.9"}, "layer", "no module 'features.9'"),
        ({"layer": "features.0", "channel": 6}, "channel", r"channels 0\.\.5"),
        ({"layer": "features.0", "position": (12, 0)}, "position", "is not in 'features.0'"),
        ({"layer": "head.0", "position": (0, 0)}, "position", "is not in 'head.0'"),
    ],
)
def test_units_that_are_not_there_are_refused(options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("activation_maximization", **options).explain(
            seeded(VGGLike), pictures(1), torch.tensor([0])
        )
    assert caught.value.field == field


def test_given_pixels_count_for_nothing():
    make = build("activation_maximization", steps=2)
    made = [make.explain(seeded(VGGLike), x, torch.tensor([0, 1, 2]))
            for x in (pictures(), torch.zeros_like(pictures()))]  # fmt: skip
    assert torch.equal(*made)


# --- through a generator ---------------------------------------------------------------------


class Identity(nn.Identity):
    """Generates its own code."""

    def __init__(self, shape):
        super().__init__()
        self.code_shape = self.image_shape = torch.Size(shape)


def test_with_the_identity_for_a_generator_it_is_activation_maximisation(monkeypatch):
    monkeypatch.setattr(generated, "load_generator", lambda _: Identity((3, 12, 12)))
    net, targets = seeded(VGGLike), torch.tensor([1, 3, 0])
    shared = {"steps": 6, "rate": 0.3, "l2": 0.2, "noise": 1.0, "seed": 4}
    for rule in ("plain", "normalised"):
        through = build("dgn_am", rule=rule, **shared).explain(net, pictures(), targets)
        direct = build("activation_maximization", **{**BARE, "rule": rule, **shared}).explain(
            net, pictures(), targets
        )
        assert torch.equal(through, direct)


def test_code_of_a_linear_generator_in_closed_form(monkeypatch):
    net, weights = linear_net()
    make = seeded(lambda: nn.Sequential(nn.Linear(5, 12), nn.Unflatten(1, (1, 3, 4))))
    make.code_shape, make.image_shape = torch.Size([5]), torch.Size([1, 3, 4])
    monkeypatch.setattr(generated, "load_generator", lambda _: make)
    made = build("dgn_am", steps=300, rate=0.2, l2=0.8, rule="plain").explain(
        net, torch.zeros(1, 1, 3, 4).double(), torch.tensor([2])
    )
    code = make[0].weight.T @ weights[2].flatten() / (2 * 0.8)
    torch.testing.assert_close(made, make(code[None]), **EXACT)


def test_every_class_gets_its_digit():
    """Made for one network; another, trained apart, reads the same digit."""
    images, classes = torch.zeros(10, 1, 28, 28), torch.arange(10)
    made = build("dgn_am").explain(models.load("small_cnn"), images, classes)
    assert made.min() >= 0 and made.max() <= 1
    for judge in ("small_cnn", "small_resnet"):
        probabilities = models.load(judge)(made).softmax(1)
        assert torch.equal(probabilities.argmax(1), classes), judge
        assert probabilities.amax(1).min() > 0.9, judge
    pixels = build("activation_maximization").explain(models.load("small_cnn"), images, classes)
    read = models.load("small_resnet")(pixels).argmax(1)
    assert (read == classes).sum() <= 5, "in pixels the digit is another network's riddle"


def test_a_generator_of_other_images_is_refused():
    with pytest.raises(InvalidInput, match=r"images of 1×28×28.*3×12×12; activation_max") as caught:
        build("dgn_am").explain(seeded(VGGLike), pictures(), torch.tensor([1, 3, 0]))
    assert caught.value.field == "generator"


def test_a_users_generator_of_another_shape_works(tmp_path):
    mine = seeded(lambda: GeneratorNet(code=5, channels=3, size=12, widths=(6, 4))).float()
    save_weights(mine, tmp_path / "mine.safetensors")
    loaded = load_generator(str(tmp_path / "mine.safetensors"))
    codes = torch.randn(2, 5)
    assert torch.equal(loaded(codes), mine(codes))
    made = build("dgn_am", generator=str(tmp_path / "mine.safetensors"), steps=2).explain(
        seeded(VGGLike), pictures(), torch.tensor([1, 3, 0])
    )
    assert made.shape == (3, 3, 12, 12) and made.dtype == torch.float64


@pytest.mark.parametrize("kind", ["missing", "other", "damaged", "cut"])
def test_files_that_hold_no_generator_are_refused(tmp_path, kind):
    path = tmp_path / "it.safetensors"
    if kind == "other":
        save_weights(digits_net(), path)
    elif kind == "damaged":
        path.write_bytes(b"nothing")
    elif kind == "cut":
        net = GeneratorNet()
        net.fc = nn.Linear(16, 100)
        save_weights(net, path)
    words = {
        "missing": "neither ships nor is a file; known: mnist",
        "other": "holds no generator; make one: python -m",
        "damaged": "is damaged",
        "cut": "has shape",
    }[kind]
    with pytest.raises(InvalidInput, match=words):
        load_generator(str(path))


# --- the shipped generator -------------------------------------------------------------------


def test_the_card_describes_the_file():
    card, path = read_card("generator_mnist_5k"), FOLDER / "generator_mnist_5k.safetensors"
    net = load_generator("mnist")
    assert card["sha256"] == sha256(path)
    assert path.stat().st_size < 600_000
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert {key: card[key] for key in training.RECIPE} == training.RECIPE
    assert card["test_error"] < card["error_of_the_mean_image"] / 4


def test_digits_are_within_the_generators_reach():
    """Codes fitted to unseen digits come as close as the card says, with no encoder's help."""
    images, net = data.load("mnist_5k").batch(10).images, load_generator("mnist")
    codes = torch.zeros(10, 16, requires_grad=True)
    optimiser = torch.optim.Adam([codes], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (net(codes) - images).square().sum().backward()
        optimiser.step()
    error = float((net(codes) - images).square().mean().detach())
    assert error < 1.2 * read_card("generator_mnist_5k")["test_error"]


def test_training_gives_the_same_file_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "RECIPE", {**training.RECIPE, "epochs": 1, "code": 3})
    few = data.load("mnist_5k").batch(40).images
    monkeypatch.setattr(training, "_images", lambda name, split: few)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    for folder in ("a", "b"):
        training.main(["--out", str(tmp_path / folder)])
        torch.rand(1)
    for name in ("generator_mnist_5k.safetensors", "generator_mnist_5k.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    torch.set_rng_state(before)
    assert torch.get_num_threads() == threads
    assert load_generator(str(tmp_path / "a/generator_mnist_5k.safetensors")).code_shape == (3,)


def test_the_loss_is_the_negative_evidence_lower_bound():
    net = seeded(partial(training.Autoencoder, 3, 1, 8))
    images, noise = pictures(4, 8, 1), torch.randn(4, 3).double()
    mean, log_variance = net.encoder(images).chunk(2, 1)
    code = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    logits = net.generator.logits(code.mean + noise * code.stddev)
    likelihood = images * logits.sigmoid().log() + (1 - images) * (-logits).sigmoid().log()
    bound = likelihood.flatten(1).sum(1) - torch.distributions.kl_divergence(code, prior).sum(1)
    torch.testing.assert_close(net.loss(images, noise), -bound.mean(), **EXACT)


def test_data_that_the_architecture_cannot_make_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_images", lambda name, split: pictures(4, 10, 1).float())
    with pytest.raises(InvalidInput, match="multiple of 4"):
        training.make("mnist_5k", tmp_path)
