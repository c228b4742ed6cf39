"""Aggregates, sparsified SmoothGrad with its certificate, and tangent-space projection."""

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import attacks
from robustlab import data, metrics, models
from robustlab.core.batch import make_batch
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import pose, propose
from robustlab.core.maps import to_maps
from robustlab.core.randomness import normal
from robustlab.core.streaming import logits_of
from robustlab.core.tables import options_of
from robustlab.explainers import build
from robustlab.explainers.defended import neighbours
from robustlab.explainers.defended.certificate import certified_overlap
from robustlab.explainers.defended.neighbours import projected, tangent_bases
from tests.explainers.variants.defended import digits_net
from tests.nets import Normalised, ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def network():
    return seeded(lambda: Normalised(VGGLike()))


# --- aggregate -------------------------------------------------------------------------------


def by_hand(net, members):
    """Maps ``[J,B,H,W]`` of each member alone, each over its own mean."""
    maps = [
        to_maps(build(n, **o).explain(net, pictures(), TARGETS), build(n, **o).post, (12, 12))
        for n, o in members
    ]
    return np.stack([m.abs().numpy() / m.abs().mean((1, 2), keepdim=True).numpy() for m in maps])


MEMBERS = [("gradient", {"post": "signed"}), ("smooth_grad", {"samples": 3}), ("grad_cam", {})]
OF = [name if not options else {"name": name, **options} for name, options in MEMBERS]


def test_mean_aggregate_is_the_mean_of_the_members_shares():
    net = network()
    found = build("aggregate", of=OF).explain(net, pictures(), TARGETS)
    maps = by_hand(net, MEMBERS)
    np.testing.assert_allclose(found.numpy()[:, 0], maps.mean(0), rtol=1e-9)
    raw = [build(n, **o).explain(net, pictures(), TARGETS).abs().sum(1) for n, o in MEMBERS[:2]]
    assert not np.allclose(maps[:2].mean(0), torch.stack(raw).mean(0)), "shares must matter"


def test_variance_aggregate_divides_by_the_members_disagreement():
    net = network()
    found = build("aggregate", of=OF, combine="variance", c=0.2).explain(net, pictures(), TARGETS)
    maps = by_hand(net, MEMBERS)
    np.testing.assert_allclose(found.numpy()[:, 0], maps.mean(0) / (maps.std(0) + 0.2), rtol=1e-9)
    assert not np.allclose(found.numpy()[:, 0], maps.mean(0) / (maps.std(0, ddof=1) + 0.2))


def test_members_that_agree_on_nothing_leave_a_finite_derivative():
    class Idle(nn.Module):
        def forward(self, x):
            half = x[..., :6].flatten(1).square().sum(1)  # the other half counts for nothing
            return torch.stack([half, -half], 1)

    images = pictures().requires_grad_()
    explainer = build("aggregate", of=["gradient", "input_x_gradient"], combine="variance")
    raw = explainer.explain(Idle(), images, TARGETS.clamp(max=1), create_graph=True)
    (found,) = torch.autograd.grad(raw.square().sum(), images)
    assert torch.isfinite(found).all() and found.any()


def test_members_are_stored_in_one_form_however_they_are_written():
    given = build("aggregate", of=["gradient", {"name": "smooth_grad", "samples": 3}])
    again = build("aggregate", **json.loads(json.dumps(options_of(given))))
    direct = type(given)(of=("gradient", ("smooth_grad", (("samples", 3),))))
    assert given == again == direct and hash(given) == hash(again) == hash(direct)
    assert given.members == (build("gradient"), build("smooth_grad", samples=3))
    assert given != build("aggregate", of=[{"name": "smooth_grad", "samples": 3}, "gradient"])
    recorded = dict(given.of[1][1])
    assert recorded == options_of(build("smooth_grad", samples=3)), "a record leaves nothing open"


def test_members_settle_their_layers_and_warn_attacks_together():
    net = seeded(ResNetLike)
    settled = build("aggregate", of=["gradient", "grad_cam"]).resolved(net, pictures())
    assert settled.members[1] == build("grad_cam").resolved(net, pictures()) != build("grad_cam")
    assert settled.resolved(net, pictures()) == settled
    assert settled.surrogate_helps
    assert not build("aggregate", of=["gradient", "lrp"]).surrogate_helps


def test_methods_that_no_gradient_reaches_and_makers_of_images_are_refused():
    for name, words in (
        ("meaningful_perturbation", "no exact derivative"),
        ("activation_maximization", "makes images"),
    ):
        with pytest.raises(InvalidInput, match=words) as caught:
            build("aggregate", of=["gradient", name])
        assert caught.value.field == "aggregate.of"


# --- sparsified SmoothGrad -------------------------------------------------------------------


def sparsified_by_hand(gradient, gamma, tau):
    """One image's b by sorting, ``[C,H,W]`` to ``[H,W]``."""
    importance = np.abs(gradient.numpy()).sum(0)
    order = np.sort(importance.flatten())[::-1]
    keep = math.ceil(tau * len(order))
    scaled = np.minimum(importance / order[math.ceil(gamma * len(order)) - 1], 1)
    scaled[importance < order[keep - 1]] = 0
    return scaled


@pytest.mark.parametrize("explained", ["target", "prediction"])
@pytest.mark.parametrize("gamma", [0.02, 0.25])
def test_sparsified_smooth_grad_by_sorting(explained, gamma):
    net, images, ids = network(), pictures(), ("a", "b", "c")
    options = {"samples": 5, "sigma": 0.4, "gamma": gamma, "tau": 0.25, "seed": 3}
    explainer = build("sparsified_smooth_grad", explained=explained, **options)
    found = explainer.explain(net, images, TARGETS, ids=ids)
    expected, classes = np.zeros((3, 12, 12)), set()
    for j in range(5):
        copies = images + 0.4 * normal(images, ids, 3, f"smooth_grad/{j}")
        own = logits_of(net, copies).argmax(1)
        chosen = TARGETS if explained == "target" else own
        classes.update(own.tolist())
        for i, gradient in enumerate(build("gradient").explain(net, copies, chosen)):
            expected[i] += sparsified_by_hand(gradient, gamma, 0.25) / 5
    np.testing.assert_allclose(found[:, 0].numpy(), expected, **EXACT)
    assert classes != set(TARGETS.tolist()), "the copies' own classes must be others"


def test_equal_shares_give_the_version_of_zeros_and_ones():
    raw = build("sparsified_smooth_grad", samples=1, gamma=0.1, tau=0.1).explain(
        network(), pictures(), TARGETS
    )
    assert {*raw.unique().tolist()} == {0.0, 1.0}
    assert raw.flatten(1).sum(1).tolist() == [15.0] * 3  # ⌈14.4⌉


def test_an_idle_net_gives_an_empty_map():
    raw = build("sparsified_smooth_grad", samples=2).sparsified(torch.zeros(2, 3, 6, 6))
    assert not raw.any()


def formula(values, k, radius, sigma, samples, confidence):
    """The certificate of one map, term by term."""
    d, ordered = len(values), sorted(values, reverse=True)
    err = math.sqrt(math.log(2 * d / (1 - confidence)) / (2 * samples))
    certified = 0
    for i in range(1, k + 1):
        if ordered[i - 1] - err <= 0:
            continue
        lowest = norm.cdf(norm.ppf(ordered[i - 1] - err) - 2 * radius / sigma) - err
        certified += lowest > ordered[2 * k - i]  # g_(2k+1-i), counted from 1
    return certified


def test_certificate_is_the_papers_formula():
    maps = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0)) ** 3
    for radius, samples in ((0.0, 10_000), (0.05, 10_000), (0.02, 300), (1.0, 10**6)):
        options = {"sigma": 0.3, "samples": samples, "confidence": 0.9}
        found = certified_overlap(maps, 36, radius, **options)
        expected = [formula(m.flatten().tolist(), 36, radius, 0.3, samples, 0.9) for m in maps]
        assert found.tolist() == expected


def worst_overlap(values, k, radius, sigma):
    """The top shifted down and the rest up as far as the radius lets them: what is left."""
    order = np.argsort(-values)
    quantiles = norm.ppf(values)
    quantiles[order[:k]] -= radius / sigma
    quantiles[order[k:]] += radius / sigma
    return len({*order[:k]} & {*np.argsort(-quantiles)[:k]})


def test_without_sampling_error_the_certificate_is_the_worst_case():
    generator = np.random.default_rng(1)
    for radius in (0.0, 0.01, 0.1, 0.4):
        values = generator.beta(0.5, 3, 100)
        found = certified_overlap(torch.tensor(values).view(1, 10, 10), 20, radius, sigma=0.5,
                                  samples=10**16)  # fmt: skip
        assert int(found) == worst_overlap(values, 20, radius, 0.5)


def test_certificate_shrinks_with_the_radius_and_grows_with_samples_and_noise():
    maps = torch.rand(4, 14, 14, generator=torch.Generator().manual_seed(2)) ** 4
    k, base = 40, {"sigma": 0.3, "samples": 5000}
    radii = [certified_overlap(maps, k, r, **base) for r in (0.0, 0.02, 0.1, 0.3, 1.0)]
    samples = [
        certified_overlap(maps, k, 0.05, sigma=0.3, samples=n) for n in (100, 1000, 10**4, 10**6)
    ]
    noise = [certified_overlap(maps, k, 0.05, sigma=s, samples=5000) for s in (0.05, 0.2, 0.5, 2.0)]
    for rising in (radii[::-1], samples, noise):
        assert all((a <= b).all() for a, b in pairwise(rising))
        assert (rising[0] < rising[-1]).all()
    assert certified_overlap(maps, k, 0.0, sigma=0.3, samples=10**16).tolist() == [k] * 4


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"maps": torch.full((1, 4, 4), 1.1)}, "maps"),
        ({"maps": torch.full((1, 4, 4), float("nan"))}, "maps"),
        ({"k": 9}, "k"),
        ({"k": 0}, "k"),
        ({"radius": -1.0}, "radius"),
        ({"radius": float("nan")}, "radius"),
        ({"sigma": 0.0}, "sigma"),
        ({"samples": 0}, "samples"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_certificate_refuses_what_means_nothing(changed, field):
    given = {"maps": torch.zeros(1, 4, 4), "k": 8, "radius": 0.1, "sigma": 0.1, "samples": 9}
    with pytest.raises(InvalidInput) as caught:
        certified_overlap(**(given | changed))
    assert caught.value.field == field


def test_no_attack_beats_the_certificate():
    """Sound: L2 attacks on the map and on the prediction leave at least what is certified."""
    model, batch = models.load("small_cnn"), data.load("mnist_5k").batch(2)
    k, sigma, n = 60, 0.3, 1000
    aimed_at = build("sparsified_smooth_grad", samples=16, sigma=sigma)
    problem = pose(model, aimed_at, batch)

    def explained(images, seed):
        explainer = build("sparsified_smooth_grad", samples=n, sigma=sigma, seed=seed)
        return explainer.explain(model, images, problem.targets, ids=batch.ids)

    before = explained(batch.images, 0)
    overlap = metrics.build("top_k_intersection", k=k)
    certified, kept = {}, {}
    for radius in (0.03, 0.6):
        certified[radius] = certified_overlap(before, k, radius, sigma=sigma, samples=n)
        for name, options in (("top_k", {"k": k, "steps": 5}), ("pgd", {"steps": 5})):
            found = propose(attacks.build(name, **options), problem, Budget("l2", radius)).images
            kept[name, radius] = k * overlap(before[:, 0], explained(found, 1)[:, 0])
            assert (certified[radius] <= kept[name, radius] + 1e-9).all(), (name, radius)
    assert (certified[0.03] > 0).all(), "a certificate of nothing would be sound as well"
    assert (kept["top_k", 0.6] < kept["top_k", 0.03]).all(), "the attack must be one"


# --- tangent-space projection ----------------------------------------------------------------


def digits(count=3):
    return data.load("mnist_5k").batch(count).images.double()


def neighbourhood(image, label, count):
    """Nearest training digits of a class ``[count,784]``, in a plain loop."""
    training = data.load("mnist_5k", split="train").batch()
    distances = [
        (float(np.linalg.norm(other.double().numpy() - image.numpy())), i)
        for i, other in enumerate(training.images)
        if int(training.labels[i]) == label
    ]
    rows = [i for _, i in sorted(distances)[:count]]
    return training.images[rows].double().flatten(1).numpy()


def projector(image, label, count=32, dims=16):
    """P ``[784,784]`` by numpy's singular value decomposition."""
    points = neighbourhood(image, label, count)
    rows = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][:dims]
    return rows.T @ rows


def test_bases_are_orthonormal_and_project():
    v = tangent_bases("mnist_5k", digits(), TARGETS, 32, 16)
    assert v.shape == (3, 16, 784)
    torch.testing.assert_close(v @ v.transpose(1, 2), torch.eye(16).double().expand(3, 16, 16))
    inside = (v.transpose(1, 2) @ torch.randn(3, 16, 1).double()).view(3, 1, 28, 28)
    torch.testing.assert_close(projected(v, inside), inside, **EXACT)
    anything = torch.randn(3, 1, 28, 28).double()
    once = projected(v, anything)
    torch.testing.assert_close(projected(v, once), once, **EXACT)
    assert (once.flatten(1).norm(dim=1) < anything.flatten(1).norm(dim=1) / 2).all()


def test_projected_gradient_by_numpy():
    net, images = seeded(digits_net), digits()
    gradient = build("gradient").explain(net, images, TARGETS)
    found = build("tangent_projected", neighbours=20, dims=5).explain(net, images, TARGETS)
    times = build("tangent_projected", neighbours=20, dims=5, base="input_x_gradient").explain(
        net, images, TARGETS
    )
    for i, target in enumerate(TARGETS.tolist()):  # not the digits' labels, 0, 1 and 2
        p = projector(images[i], target, 20, 5)
        expected = (p @ gradient[i].flatten().numpy()).reshape(1, 28, 28)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(times[i].numpy(), images[i].numpy() * expected, atol=1e-12)
        product = images[i].numpy() * gradient[i].numpy()
        other = (p @ product.flatten()).reshape(1, 28, 28)
        assert not np.allclose(times[i].numpy(), other), "project first, then multiply"


class WithSecret(nn.Module):
    """A net whose logits also follow pixels that no digit lights: it hides nothing on the data."""

    def __init__(self, inner, dead):
        super().__init__()
        self.inner = inner
        self.register_buffer("dead", dead)

    def forward(self, x):
        return self.inner(x) + 1000 * (x * self.dead).flatten(1).sum(1, keepdim=True)


def test_directions_off_the_data_are_gone():
    net, images = seeded(digits_net), digits()
    training = data.load("mnist_5k", split="train").batch().images
    dead = (training.amax(0) == 0).double()
    assert dead.sum() > 50
    for name, same in (("gradient", False), ("tangent_projected", True)):
        honest, altered = (
            build(name).explain(m, images, TARGETS) for m in (net, WithSecret(net, dead))
        )
        assert torch.allclose(honest, altered, **EXACT) is same
    assert not (altered * dead).any(), "exactly"


def test_directions_that_the_neighbours_do_not_span_are_left_out(monkeypatch):
    few = digits(4).float().repeat(10, 1, 1, 1)  # four images, ten times each: three directions
    monkeypatch.setattr(
        neighbours, "_training_images", lambda _: (few, torch.zeros(40, dtype=torch.int64))
    )
    v = tangent_bases("mnist_5k", digits(1), torch.zeros(1, dtype=torch.int64), 40, 10)[0]
    torch.testing.assert_close(v[:3].norm(dim=1), torch.ones(3).double(), **EXACT)
    assert not v[3:].any()


def test_unsuitable_data_are_refused_with_a_reason():
    images = digits(1)
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 12)))

    def refused(words, target=0, given=images, model=net, **options):
        with pytest.raises(InvalidInput, match=words) as caught:
            build("tangent_projected", **options).explain(model, given, torch.tensor([target]))
        assert caught.value.field == "data"

    refused("0 images of class 11, 32 neighbours", target=11)
    refused("400 images of class 3, 401 neighbours", target=3, neighbours=401)
    refused("cannot be loaded by its name", data="mnist")
    refused("the images of 'mnist_5k' are 1×28×28, those to explain 3×12×12", given=pictures(1),
            model=network())  # fmt: skip


def test_the_data_are_read_once(monkeypatch):
    asked = Counter()
    image, real = digits(1), data.load
    monkeypatch.setattr(data, "load", lambda name, **o: (asked.update([name]), real(name, **o))[1])
    neighbours._training_images.cache_clear()
    for _ in range(3):
        build("tangent_projected").explain(seeded(digits_net), image, TARGETS[:1])
    assert asked["mnist_5k"] == 1


def test_a_batch_of_the_users_own_works():
    batch = make_batch(digits(2).float())
    problem = pose(seeded(digits_net).float(), build("tangent_projected"), batch, target=4)
    assert problem.maps.shape == (2, 28, 28)
