"""IGR: its terms from the explainer's own maps, and why a cosine is worth raising."""

from math import asin, pi

import pytest
import torch

from robustlab.explainers import build as explainer
from robustlab.metrics import build as metric
from robustlab.training import build
from tests.training.problems import cross_entropy, dense, examples


def test_its_terms_are_made_of_the_explainers_maps():
    net, given = dense(), examples()
    found = build("igr", points=4, weight=0.6).terms(net, given)
    ig = explainer("integrated_gradients", steps=4)
    clean, moved = (
        ig.explain(net, x, given.labels).flatten(1) for x in (given.images, given.search.found)
    )
    cosines = (clean * moved).sum(1) / (clean.norm(dim=1) * moved.norm(dim=1))
    torch.testing.assert_close(found["alignment"].detach(), 0.6 * (1 - cosines.mean()))
    wanted = cross_entropy(net, given.search.found, given.labels).mean()
    torch.testing.assert_close(found["task"], wanted)
    plain, there = (
        v / x.flatten(1) for v, x in ((clean, given.images), (moved, given.search.found))
    )
    without = (plain * there).sum(1) / (plain.norm(dim=1) * there.norm(dim=1))
    assert (without - cosines).abs().max() > 1e-4  # the factor x belongs to the maps


def test_its_adversary_is_one_of_the_prediction():
    net, given = dense(), examples()
    build("igr").terms(net, given)
    ((gain, _),) = given.search.asked
    loss = cross_entropy(net, given.images, given.labels)
    torch.testing.assert_close(gain(given.images), loss)


@pytest.mark.parametrize("cosine", [-0.6, 0.0, 0.3, 0.9])
def test_kendalls_tau_of_normal_maps_is_known_from_their_cosine(cosine):
    """Greiner: E[τ] = (2/π) asin(cos)."""
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 40, 20, 20, generator=generator).double()
    second = cosine * first + (1 - cosine**2) ** 0.5 * other
    found = metric("kendall")(first, second)
    assert found.mean().item() == pytest.approx(2 / pi * asin(cosine), abs=0.02)
