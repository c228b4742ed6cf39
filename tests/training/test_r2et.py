"""R2ET: the pairs one by one, and the curvature with the right constant."""

import pytest
import torch

from robustlab.core.errors import InvalidInput
from robustlab.training import build
from robustlab.training.objectives.r2et import overtaking, unit_sign
from tests.training.problems import PIXELS, SHAPE, examples, linear


def by_pairs(values, k):
    """The authors' list of pairs on the sorted map: (i, k−1) for i < k−1, (k−1, k+i) for i < k."""
    ordered = sorted(values, reverse=True)
    pairs = [(i, k - 1) for i in range(k - 1)] + [(k - 1, k + i) for i in range(k)]
    return sum(ordered[j] - ordered[i] for i, j in pairs)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_the_pairs_of_the_kth(k):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 3, 4, generator=generator, dtype=torch.float64)
    found = overtaking(maps, k)
    wanted = torch.tensor([by_pairs(m.flatten().tolist(), k) for m in maps]).double()
    torch.testing.assert_close(found, wanted)
    assert (found < 0).all()


def test_a_map_by_hand():
    """Sorted 9 7 4 3 1 0, k = 2: (7 − 9) + (4 − 7) + (3 − 7) = −9."""
    maps = torch.tensor([[[4.0, 9.0, 1.0], [0.0, 7.0, 3.0]]])
    assert overtaking(maps, 2).item() == -9.0
    flat = maps.flatten()
    places = flat.argsort(descending=True)
    broken = flat.sort(descending=True).values[places]  # sorted values by unsorted places
    assert by_hand_unsorted(broken, 2) != -9.0


def by_hand_unsorted(values, k):
    salient, last, rest = values[: k - 1], values[k - 1], values[k : 2 * k]
    return float((last - salient).sum() + (rest - last).sum())


def softmax_gradient(net, x, labels):
    """∇ℓ = Wᵀ(p − e_y) and H = Wᵀ(diag(p) − p pᵀ)W of a linear network."""
    weight = net[1].weight.detach()
    p = torch.softmax(net(x), 1).detach()
    each = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    hot = torch.nn.functional.one_hot(labels, p.shape[1])
    return (p - hot) @ weight, weight.T @ each @ weight


def test_the_terms_of_a_linear_network_are_known():
    net, given = linear(4), examples()
    gradient, hessian = softmax_gradient(net, given.images, given.labels)
    maps = gradient.view(-1, *SHAPE).abs().sum(1)
    ranking = sum(by_pairs(m.flatten().tolist(), 2) for m in maps) / 3
    unit = gradient.sign() / PIXELS**0.5
    curvature = (hessian @ unit.unsqueeze(2)).squeeze(2).norm(dim=1).mean()
    objective = build("r2et", k=2, weight=0.5, curvature=0.3, probe=1e-5)
    terms = objective.terms(net, given)
    assert terms["ranking"].item() == pytest.approx(0.5 * ranking)
    assert terms["curvature"].item() == pytest.approx(0.3 * curvature.item(), rel=1e-5)
    # per image, and not of the mean loss, whose map shrinks with the batch
    assert abs(terms["ranking"].item() - 0.5 * ranking / 3) > 0.1 * abs(ranking)


def test_the_probe_has_the_length_that_its_change_is_divided_by():
    """The authors' probe is h · sign/d long in each pixel and so h/√d in all."""
    gradient = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    lengths = unit_sign(gradient).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3).double())
    theirs = (gradient.sign() / PIXELS).flatten(1).norm(dim=1)
    torch.testing.assert_close(theirs, torch.full((3,), PIXELS**-0.5).double())
    gradient[:, :, 0, 0] = 0  # dead pixels shorten nothing
    torch.testing.assert_close(unit_sign(gradient).flatten(1).norm(dim=1), torch.ones(3).double())
    assert not unit_sign(torch.zeros(1, *SHAPE)).any()


def test_the_curvature_does_not_depend_on_the_probe_where_the_gradient_is_straight():
    """Wrong constants show here: half the probe, the same number."""
    net, given = linear(4), examples()
    long, short = (
        build("r2et", k=2, curvature=1.0, probe=h).terms(net, given)["curvature"].item()
        for h in (2e-4, 1e-4)
    )
    assert long == pytest.approx(short, rel=1e-4) and long > 1e-2


def test_more_pairs_than_pixels_are_refused():
    with pytest.raises(InvalidInput, match=r"k: 4 salient pixels and as many others: .* has 6"):
        build("r2et", k=4).terms(linear(4), examples())
