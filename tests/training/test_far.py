"""FAR: the distance of two maps, whose maps they are, and who answers for the task."""

import numpy as np
import pytest
import torch

from robustlab.explainers import build as explainer
from robustlab.training import build
from robustlab.training.objectives.far import distance
from tests.training.problems import cross_entropy, dense, examples, images, nearby


@pytest.mark.parametrize("similarity", ["pearson", "cosine"])
def test_the_distance_of_known_maps(similarity):
    first = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    second = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(distance(first, 3 * first, similarity), torch.zeros(5).double())
    torch.testing.assert_close(distance(first, -2 * first, similarity), torch.ones(5).double())
    lifted = distance(first, first + 5, similarity)  # only Pearson does not see it
    assert (lifted.abs() < 1e-12).all() == (similarity == "pearson")
    a, b = (v.flatten(1).numpy() for v in (first, second))
    if similarity == "pearson":
        alike = [np.corrcoef(u, v)[0, 1] for u, v in zip(a, b, strict=True)]
    else:
        alike = [u @ v / np.sqrt(u @ u) / np.sqrt(v @ v) for u, v in zip(a, b, strict=True)]
    found = distance(first, second, similarity)
    np.testing.assert_allclose(found.numpy(), 1 - (np.array(alike) + 1) / 2)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize(
    ("settings", "name", "options"),
    [
        ({"beta": 5.0}, "gradient", {"beta": 5.0}),
        ({"beta": None}, "gradient", {}),
        ({"map": "integrated_gradients", "points": 4, "beta": 5.0}, "integrated_gradients",
         {"steps": 4, "beta": 5.0}),
    ],
)  # fmt: skip
def test_the_maps_are_the_explainers(settings, name, options):
    net, given = dense(), examples()
    terms = build("far", weight=0.7, **settings).terms(net, given)
    clean, moved = (
        explainer(name, **options).explain(net, x, given.labels)
        for x in (given.images, given.search.found)
    )
    wanted = 0.7 * distance(clean, moved, "pearson").mean()
    torch.testing.assert_close(terms["distance"].detach(), wanted)
    ((gain, _),) = given.search.asked
    torch.testing.assert_close(gain(given.search.found).mean().detach() * 0.7, wanted)


def test_the_two_forms_differ_in_who_is_to_be_classified():
    net, given = dense(), examples()
    for form, shown in (("aat", given.images), ("adv_aat", given.search.found)):
        found = build("far", form=form).terms(net, given)["task"]
        torch.testing.assert_close(found, cross_entropy(net, shown, given.labels).mean())


def test_only_a_smooth_network_shows_its_attack_the_way():
    """The logit gradient of ReLU is constant in pieces: the surrogate is what gives a slope."""
    x = images()
    for beta, flat in ((None, True), (10.0, False)):
        given = examples()
        build("far", beta=beta).terms(dense(), given)
        ((gain, _),) = given.search.asked
        moved = nearby(x).requires_grad_()
        (slope,) = torch.autograd.grad(gain(moved).sum(), moved)
        assert bool((slope == 0).all()) == flat


def test_its_attacks_slope_is_the_measured_one():
    given = examples()
    build("far", beta=5.0, map="integrated_gradients").terms(dense(), given)
    ((gain, _),) = given.search.asked
    moved = nearby(given.images, seed=8)
    direction = torch.randn(moved.shape, generator=torch.Generator().manual_seed(3)).double()
    leaf = moved.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gain(leaf).sum(), leaf)
    there, back = (gain(moved + s * direction).sum().detach() for s in (1e-6, -1e-6))
    torch.testing.assert_close((slope * direction).sum(), (there - back) / 2e-6, rtol=1e-5, atol=0)
