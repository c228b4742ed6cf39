"""`rl.explain`, `rl.attack` and `drift` on a user's own tensors."""

import pytest
import torch
from torch import nn

import attacks
import robustlab as rl
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.models import Classifier

BUDGET = rl.Budget("linf", 0.1)


@pytest.fixture(scope="module")
def model():
    return rl.models.load("small_cnn")


@pytest.fixture(scope="module")
def gradient():
    return rl.explainers.build("gradient")


@pytest.fixture(scope="module")
def digits():
    batch = rl.data.load("mnist_5k").batch(3)
    return rl.data.from_tensors(batch.images, batch.labels, ["a", "b", "c"])


@pytest.fixture(scope="module")
def top_k():
    return attacks.build("top_k", k=20, steps=3)


@pytest.fixture(scope="module")
def result(model, gradient, digits, top_k):
    return rl.attack(model, gradient, top_k, digits, BUDGET)


def batch_of(images, labels=None):
    """A batch that nothing has checked."""
    count = len(images)
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    return rl.Batch(images, labels, tuple(map(str, range(count))), ("",) * count)


# --- explain -------------------------------------------------------------------------------


def test_maps_are_the_explainers_own(model, gradient, digits):
    maps = rl.explain(model, gradient, digits)
    images = digits.images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model(images).amax(1).sum(), images)
    assert maps.shape == (3, 28, 28)
    assert torch.allclose(maps, slopes.abs().sum(1), rtol=1e-5, atol=1e-6 * float(maps.max()))
    assert not maps.requires_grad


def test_the_explained_class_can_be_chosen(model, gradient, digits):
    predictions = model(digits.images).argmax(1)
    by_prediction = rl.explain(model, gradient, digits)
    for c in range(2):
        maps = rl.explain(model, gradient, digits, target=c)
        for i, predicted in enumerate(predictions.tolist()):
            assert torch.equal(maps[i], by_prediction[i]) == (predicted == c)
    assert torch.equal(rl.explain(model, gradient, digits, target="current"), by_prediction)
    second = model(digits.images).sort(1, descending=True).indices[:, 1]
    by_hand = torch.cat(
        [
            rl.explain(model, gradient, digits[i : i + 1], target=int(t))
            for i, t in enumerate(second)
        ]
    )
    found = rl.explain(model, gradient, digits, target="runner_up")
    torch.testing.assert_close(found, by_hand, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found, by_prediction)
    wrong = rl.data.from_tensors(digits.images, (digits.labels + 1) % 10)
    by_label = rl.explain(model, gradient, wrong, target="label")
    assert not torch.equal(by_label, by_prediction)
    for target in (10, -1, True, "mine"):
        with pytest.raises(InvalidInput, match="target"):
            rl.explain(model, gradient, digits, target=target)
    unlabelled = rl.data.from_tensors(digits.images)
    assert torch.equal(rl.explain(model, gradient, unlabelled), by_prediction)
    with pytest.raises(InvalidInput, match="'label' was asked for"):
        rl.explain(model, gradient, unlabelled, target="label")


def test_a_plain_module_is_as_good_as_ours(gradient, digits):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 3))
    labels = rl.data.from_tensors(digits.images)
    assert rl.explain(net.eval(), gradient, labels).shape == (3, 28, 28)


# --- attack --------------------------------------------------------------------------------


def test_a_result_has_everything_that_was_judged(result, model, digits):
    assert result.images.shape == digits.images.shape
    assert result.maps.shape == result.clean_maps.shape == (3, 28, 28)
    assert result.prediction_kept.dtype == torch.bool
    assert result.radius.shape == result.prediction_kept.shape == (3,)
    assert len(result.outcomes) == 3
    assert result.forwards > 0
    assert result.backwards > 0


def test_a_result_is_inside_the_budget_and_true_to_the_model(result, model, gradient, digits):
    moved = (result.images - digits.images).flatten(1).abs().amax(1)
    assert torch.equal(result.radius, moved)
    assert bool((result.radius <= BUDGET.epsilon + 1e-6).all())
    assert bool(((result.images >= 0) & (result.images <= 1)).all())
    predictions = model(digits.images).argmax(1)
    assert torch.equal(result.prediction_kept, model(result.images).argmax(1) == predictions)
    assert torch.equal(result.clean_maps, rl.explain(model, gradient, digits))
    assert set(result.outcomes) == {"ok"}


def test_drift_is_the_metric_between_the_two_maps(result):
    for name, options in (("top_k_intersection", {"k": 50}), ("spearman", {}), ("ssim", {})):
        metric = rl.metrics.build(name, **options)
        expected = metric(result.clean_maps, result.maps)
        assert torch.equal(result.drift(name, **options), expected)
        assert expected.shape == (3,)
    assert bool((result.drift("top_k_intersection", k=20) < 1).all())


@pytest.mark.parametrize(
    ("metric", "options", "problem"),
    [
        ("speerman", {}, "did you mean 'spearman'"),
        ("top_k_intersection", {"k": 785}, "784 pixels"),
        ("spearman", {"k": 3}, "no such option"),
        ("energy_in_region", {}, "a region"),
        ("deletion", {}, "one map, not two"),
    ],
)
def test_drift_refuses_what_it_cannot_measure(result, metric, options, problem):
    with pytest.raises(InvalidInput, match=problem):
        result.drift(metric, **options)


def test_same_seed_same_result(model, gradient, digits):
    noise = attacks.build("random_noise")
    first, second, other = (
        rl.attack(model, gradient, noise, digits, BUDGET, seed=seed).images for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_attack_leaves_the_users_things_alone(model, gradient, digits, top_k):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images, flags = digits.images.clone(), [p.requires_grad for p in model.parameters()]
    rl.attack(model, gradient, top_k, digits, BUDGET)
    assert torch.equal(digits.images, images)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_the_current_prediction_is_followed_after_the_attack(model, gradient, digits):
    fgsm = attacks.build("fgsm")
    wide = rl.Budget("linf", 0.3)
    kept = rl.attack(model, gradient, fgsm, digits, wide)
    followed = rl.attack(model, gradient, fgsm, digits, wide, target="current")
    assert torch.equal(kept.images, followed.images)
    changed = ~kept.prediction_kept
    assert bool(changed.any())
    same = (kept.maps == followed.maps).flatten(1).all(1)
    assert torch.equal(same, ~changed)


@pytest.mark.parametrize(
    ("attack", "outcome"),
    [
        (attacks.build("none"), "ok"),  # staying is what it is for
        (attacks.build("random_sign"), "ok"),
        (attacks.build("random_noise"), "ok"),
        (attacks.build("fgsm"), "infeasible"),
        (attacks.build("pgd", steps=2), "infeasible"),
        (attacks.build("top_k", k=20, steps=2), "infeasible"),
        (attacks.build("random_sign", tries=2, like=attacks.build("top_k", k=20)), "infeasible"),
    ],
    ids=str,
)
def test_an_attack_that_finds_nothing_is_infeasible_but_doing_nothing_is_not(
    gradient, digits, attack, outcome
):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(flat[1].weight)  # no gradient, and no map that could move
    result = rl.attack(flat.eval(), gradient, attack, digits, BUDGET)
    assert result.outcomes == (outcome,) * 3
    moved = attack in (attacks.build("random_sign"), attacks.build("random_noise"))
    assert result.radius.bool().tolist() == [moved] * 3


def test_a_map_to_imitate(model, gradient, digits):
    attack = attacks.build("target_map", steps=3)
    wanted = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    result = rl.attack(model, gradient, attack, digits, BUDGET, target_maps=wanted)
    assert result.maps.shape == (3, 28, 28)
    with pytest.raises(InvalidInput, match="target_maps: expected shape"):
        rl.attack(model, gradient, attack, digits, BUDGET, target_maps=wanted[:2])


# --- refusals ------------------------------------------------------------------------------


@pytest.fixture(params=["explain", "attack"])
def ask(request, gradient, top_k):
    """Both functions refuse the same things."""

    def call(model, batch, explainer=gradient):
        if request.param == "explain":
            return rl.explain(model, explainer, batch)
        return rl.attack(model, explainer, top_k, batch, BUDGET)

    return call


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda x: x.index_fill(3, torch.tensor([0]), float("nan")), "NaN"),
        (lambda x: x.index_fill(3, torch.tensor([0]), float("inf")), "infinite"),
        (lambda x: x * 255, r"must lie in \[0, 1\]"),
        (lambda x: x - 0.5, r"must lie in \[0, 1\]"),
        (lambda x: (x * 255).to(torch.uint8), "float tensor"),
        (lambda x: x[0], "float tensor"),
        (lambda x: x[:0], "empty"),
        (lambda x: x.expand(-1, 3, -1, -1), "takes 1 channels, got 3"),
        (lambda x: x[..., :20], "takes 28×28 pixels"),
    ],
)
def test_images_that_are_none_are_refused(ask, model, digits, spoil, problem):
    with pytest.raises(InvalidInput, match=problem) as caught:
        ask(model, batch_of(spoil(digits.images)))
    assert caught.value.field == "images"


@pytest.mark.parametrize("images", [torch.full((1, 1, 28, 28), 2.0), torch.zeros(1, 28, 28)])
def test_from_tensors_refuses_them_at_once(images):
    with pytest.raises(InvalidInput, match="images"):
        rl.data.from_tensors(images)


def test_labels_that_the_model_does_not_have_are_refused(ask, model, digits):
    batch = rl.data.from_tensors(digits.images, [0, 10, 3])
    with pytest.raises(InvalidInput, match=r"label 10 is out of range; .* classes 0\.\.9"):
        ask(model, batch)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.Dropout(0.1)])
def test_a_model_in_training_mode_is_refused_where_it_matters(ask, digits, layer):
    def classifier(inside):
        head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
        return Classifier(nn.Sequential(nn.Conv2d(1, 4, 3), inside, head), class_names=10)

    model = classifier(layer)
    with pytest.raises(InvalidInput, match=r"model: module 'net\.1' is in training mode"):
        ask(model.train(), digits)
    ask(model.eval(), digits)
    ask(classifier(nn.ReLU()).train(), digits)


def test_grad_cam_needs_a_convolution(ask, digits):
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), class_names=10).eval()
    ask(flat, digits)  # the gradient does not
    with pytest.raises(InvalidInput, match="needs a convolutional layer"):
        ask(flat, digits, rl.explainers.build("grad_cam"))


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ("net.conv9", "did you mean 'net.conv2'"),
        ("net.fc1", "'net.fc1' has no spatial extent"),
    ],
)
def test_grad_cam_needs_a_layer_that_is_there_and_spatial(ask, model, digits, layer, problem):
    grad_cam = rl.explainers.build("grad_cam", layer=layer)
    with pytest.raises(InvalidInput, match=problem):
        ask(model, digits, grad_cam)


def test_k_cannot_exceed_the_map(model, gradient, digits):
    attack = attacks.build("top_k", k=785, steps=1)
    with pytest.raises(InvalidInput, match=r"k: 785 is not within 1\.\.784"):
        rl.attack(model, gradient, attack, digits, BUDGET)


def test_a_gradient_attack_needs_a_gradient(model, digits, top_k):
    class Opaque(type(rl.explainers.build("gradient"))):
        differentiable = "none"
        transpose_product = None

    opaque = Opaque()
    with pytest.raises(NotDifferentiable, match="TopK needs gradients and Opaque has none"):
        rl.attack(model, opaque, top_k, digits, BUDGET)
    # an attack on the prediction does not care
    rl.attack(model, opaque, attacks.build("fgsm"), digits, BUDGET)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("linf", -0.1), "epsilon"),
        (("linf", 8), "epsilon"),
        (("linf", float("nan")), "epsilon"),
        (("l3", 0.1), "norm"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(arguments, field):
    with pytest.raises(InvalidInput) as caught:
        rl.Budget(*arguments)
    assert caught.value.field == field
