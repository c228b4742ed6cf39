"""ART: its loss by hand, the mining of hard cases, and which network each part goes through."""

from math import e, log

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.training import build
from robustlab.training.objectives.art import largest, misalignment, own_and_other
from tests.training.problems import (
    CLASSES,
    PIXELS,
    cross_entropy,
    dense,
    examples,
    images,
    linear,
    nearby,
)


def vectors(*rows):
    """One image, each row a picture of two pixels."""
    return torch.tensor(rows).double().view(1, len(rows), 1, 1, 2)


def test_the_loss_of_hand_made_vectors():
    """d(x, ∇f_y) = 0 and d(x, ∇f_i) = 2: the best there is. And the other way round."""
    same, opposite = vectors([3.0, 4.0]), vectors([-6.0, -8.0])
    best = misalignment(same, same, opposite)
    torch.testing.assert_close(best, torch.tensor([log(1 + e**-2)]).double())
    worst = misalignment(same, opposite, same)
    torch.testing.assert_close(worst, torch.tensor([log(1 + e**2)]).double())
    aslant = misalignment(same, vectors([4.0, -3.0]), vectors([1.0, 0.0]))  # 1 − 0 and 1 − 0.6
    torch.testing.assert_close(aslant, torch.tensor([log(1 + e**0.6)]).double())


def test_hard_mining_takes_the_largest_positive_and_the_smallest_negative():
    anchors = vectors([1.0, 0.0], [0.0, 1.0])
    own, other = vectors([1.0, 0.0], [0.0, 1.0]), vectors([-1.0, 0.0], [0.0, 1.0])
    # x:  d to own {0, 1}, to other {2, 1}: 1 − 1.  x': d to own {1, 0}, to other {1, 0}: 1 − 0
    found = misalignment(anchors, own, other)
    torch.testing.assert_close(found, torch.tensor([(log(2) + log(1 + e)) / 2]).double())
    unmined = (log(1 + e**-2) + log(2)) / 2  # each with its own maps only
    easy = (log(1 + e**-2) + log(1 + e**-1)) / 2  # smallest positive, largest negative
    assert (found - unmined).abs() > 0.1 and (found - easy).abs() > 0.1


def test_it_is_the_loop_over_a_batch_of_twice_the_images():
    """The authors' form: 2B anchors, maps of the same image only, and a mean over all."""
    generator = torch.Generator().manual_seed(0)
    anchors, own, other = torch.randn(3, 4, 2, *(2, 2, 3), generator=generator).double()
    losses = []
    for image in range(4):
        for a in anchors[image]:
            apart = [1 - F.cosine_similarity(a.flatten(), m.flatten(), dim=0) for m in own[image]]
            close = [1 - F.cosine_similarity(a.flatten(), m.flatten(), dim=0) for m in other[image]]
            losses.append((1 + (max(apart) - min(close)).exp()).log())
    found = misalignment(anchors, own, other)
    torch.testing.assert_close(found.mean(), torch.stack(losses).mean())
    assert (torch.stack(losses).sum() - found.mean()).abs() > 1  # a sum over the batch


def test_gradients_are_of_the_smoothed_network_and_the_task_of_the_true_one():
    net, given = dense(), examples()
    beta = 5.0  # far enough from ReLU to tell
    twin = dense(lambda: nn.Softplus(beta=beta, threshold=1e6))
    pair = torch.stack([given.images, given.search.found], 1)
    own, other = [], []
    for x in pair.unbind(1):
        (jacobian,) = [torch.autograd.functional.jacobian(twin, x)]
        each = torch.arange(3)
        logits = twin(x).detach()
        second = logits.scatter(1, given.labels[:, None], -1e9).argmax(1)
        own.append(jacobian[each, given.labels, each])
        other.append(jacobian[each, second, each])
    centred = pair - pair.mean((3, 4), keepdim=True)
    wanted = misalignment(centred, torch.stack(own, 1), torch.stack(other, 1)).mean()
    terms = build("art", beta=beta, weight=0.3).terms(net, given)
    torch.testing.assert_close(terms["alignment"].detach(), 0.3 * wanted)
    task = cross_entropy(net, given.search.found, given.labels).mean()
    torch.testing.assert_close(terms["task"], task)
    assert (cross_entropy(twin, given.search.found, given.labels).mean() - task).abs() > 1e-3


def test_centring_takes_a_black_background_off():
    """A uniform lift of the image does not change what the cosine sees; without it, it does."""
    x = images()
    for centre, same in ((True, True), (False, False)):
        shown = build("art", centre=centre)
        lifted = shown.shown(x + 0.2)
        assert torch.allclose(lifted, shown.shown(x)) == same


def test_the_inner_attack_sees_the_most_important_coordinates_only():
    """On a linear network maps are constant, so the gain moves with the seen pixels alone."""
    net, given = linear(CLASSES), examples()
    build("art", share=0.25, centre=False).terms(net, given)
    ((gain, _),) = given.search.asked
    weights = net[1].weight[given.labels].abs()
    seen = weights >= weights.topk(PIXELS // 4, 1).values[:, -1:]
    moved = given.images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gain(moved).sum(), moved)
    assert torch.equal(slope.flatten(1) != 0, seen)
    # x' alone is attacked, without mining: one anchor, one pair of maps
    own, other = own_and_other(net, given.images, given.labels)
    mask = seen.view_as(own)
    single = [(v * mask).unsqueeze(1) for v in (given.images, own, other)]
    torch.testing.assert_close(gain(given.images), misalignment(*single))


def test_the_largest_share():
    maps = torch.tensor([[0.1, -5.0, 2.0, 0.0, -3.0, 1.0]]).view(1, 1, 2, 3)
    assert largest(maps, 0.5).flatten().tolist() == [False, True, True, False, True, False]
    assert largest(maps, 1.0).all()
    assert largest(maps, 0.01).sum() == 1


def test_its_attacks_slope_is_the_measured_one():
    net, given = dense(hidden=20), examples()
    build("art", beta=10.0).terms(net, given)
    ((gain, _),) = given.search.asked
    moved = nearby(given.images, 0.1, seed=9)
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(moved.shape, generator=generator, dtype=moved.dtype)
    leaf = moved.clone().requires_grad_()
    (slope,) = torch.autograd.grad(gain(leaf).sum(), leaf)
    step = 1e-6
    there, back = (gain(moved + s * direction).sum().detach() for s in (step, -step))
    torch.testing.assert_close((slope * direction).sum(), (there - back) / (2 * step), rtol=1e-5,
                               atol=0)  # fmt: skip


def test_a_share_of_more_than_all_is_refused():
    with pytest.raises(InvalidInput, match="share"):
        build("art", share=1.5)
