"""SSR: the closed form of the loss's largest curvature against autograd's Hessian."""

import pytest
import torch
from torch.nn import functional as F

from robustlab.training import build
from robustlab.training.objectives.ssr import (
    class_gradients,
    largest_eigenvalue,
    root_of_softmax,
)
from tests.training.problems import CLASSES, PIXELS, dense, examples, images, lively, total


def hessians(net, x, labels):
    """∇² of each image's cross entropy, [B,d,d]."""
    return torch.stack(
        [
            torch.autograd.functional.hessian(
                lambda z, y=y: F.cross_entropy(net(z[None]), y[None]), v
            ).view(PIXELS, PIXELS)
            for v, y in zip(x, labels, strict=True)
        ]
    )


def closed_form(net, x):
    leaf = x.clone().requires_grad_()
    logits = net(leaf)
    return largest_eigenvalue(logits, leaf), logits, class_gradients(logits, leaf)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_closed_form_is_the_hessians_largest_eigenvalue(seed):
    net, x = lively(dense(seed=seed)), images(4, seed)
    labels = torch.arange(4)
    found, logits, gradients = closed_form(net, x)
    wanted = torch.linalg.eigvalsh(hessians(net, x, labels))[:, -1]
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-8, atol=0)
    root = root_of_softmax(logits).detach()
    # L is not symmetric: the other way round it is another number
    inner = gradients @ root.mT
    other = torch.linalg.eigvalsh(inner.mT @ inner)[:, -1]
    assert ((other - wanted).abs() > 1e-3 * wanted).any()


def test_the_root_is_one():
    logits = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0)).double()
    p = torch.softmax(logits, 1)
    root = root_of_softmax(logits)
    wanted = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    torch.testing.assert_close(root @ root.mT, wanted)


def test_it_never_passes_half_the_squared_norm_of_the_gradients():
    for seed in range(10):
        found, _, gradients = closed_form(lively(dense(seed=seed)), images(3, seed))
        assert (found <= torch.linalg.matrix_norm(gradients, 2).square() / 2).all()


def test_two_classes_reach_that_bound():
    """At p = ½ and opposite gradients λ_max = ½‖W‖²: it is tight."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(PIXELS, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight[1] = -net[1].weight[0]
    x = images(1)
    with torch.no_grad():  # orthogonal to the weights
        w = net[1].weight[0].view_as(x)
        x -= (x * w).sum() / w.square().sum() * w
    found, _, gradients = closed_form(net, x)
    torch.testing.assert_close(found.detach(), torch.linalg.matrix_norm(gradients, 2).square() / 2)


def test_holding_the_eigenvector_is_exact_and_holding_the_softmax_is_not():
    net, given = lively(dense()), examples()
    weights = [*net.parameters()]
    x = given.images.clone().requires_grad_()
    logits = net(x)
    columns = [
        torch.autograd.grad(logits[:, c].sum(), x, create_graph=True)[0].flatten(1)
        for c in range(CLASSES)
    ]
    inner = torch.stack(columns, 2) @ root_of_softmax(logits)
    through_all = torch.linalg.eigvalsh(inner.mT @ inner)[:, -1].mean()
    wanted = torch.autograd.grad(through_all, weights, retain_graph=True, materialize_grads=True)
    term = build("ssr", weight=1.0).terms(net, given)["curvature"]
    found = torch.autograd.grad(term, weights, materialize_grads=True)
    for slope, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(slope, exact)
    held = torch.stack(columns, 2) @ root_of_softmax(logits).detach()
    broken = torch.linalg.eigvalsh(held.mT @ held)[:, -1].mean()
    (slope,) = torch.autograd.grad(broken, weights[0], materialize_grads=True)
    assert (slope - wanted[0]).abs().max() > 1e-3


def test_certainty_leaves_the_slope_finite():
    """Where p is one-hot to the last digit, √p has no derivative and the root of it has."""
    net = dense()
    with torch.no_grad():
        net[3].weight *= 1e4
    given = examples()
    p = torch.softmax(net(given.images), 1)
    assert (p.amax(1) == 1).all() and (p == 0).any()
    total(build("ssr", weight=1.0).terms(net, given)).backward()
    assert all(torch.isfinite(w.grad).all() for w in net.parameters())
    (naive,) = torch.autograd.grad(p.sqrt().sum(), net[3].weight)
    assert naive.isnan().any()
