"""TRADES against the loop of the paper, written out."""

import torch
from torch.nn import functional as F

from attacks.inner import SignSearch
from robustlab.core.randomness import uniform
from robustlab.training import build
from robustlab.training.objectives.trades import divergence
from tests.training.problems import cross_entropy, dense, examples, lively


def test_the_whole_objective_is_the_loop():
    net, given = dense(), examples(search=SignSearch(), step=4)
    x, epsilon, steps = given.images, 0.2, 5
    p = torch.softmax(net(x), 1)
    found = x + epsilon * uniform(x, given.ids, 0, "inner start 4")
    for _ in range(steps):
        found = found.detach().requires_grad_()
        kl = F.kl_div(torch.log_softmax(net(found), 1), p.detach(), reduction="sum")
        (slope,) = torch.autograd.grad(kl, found)
        found = found + 0.03 * slope.sign()
        found = torch.min(torch.max(found, x - epsilon), x + epsilon).clamp(0, 1)
    kl = F.kl_div(torch.log_softmax(net(found.detach()), 1), p, reduction="batchmean")
    wanted = cross_entropy(net, x, given.labels).mean() + 2.5 * kl
    objective = build("trades", epsilon=epsilon, steps=steps, step_size=0.03, weight=2.5)
    terms = objective.terms(net, given)
    torch.testing.assert_close(sum(terms.values()), wanted)
    torch.testing.assert_close(terms["divergence"], 2.5 * kl)


def test_the_weights_are_reached_through_both_predictions():
    """As in the authors' code: p(x) is held in the inner attack and nowhere else."""
    net, given = lively(dense()), examples()
    weight = net[1].weight
    apart = build("trades", weight=1.0).terms(net, given)["divergence"]
    (slope,) = torch.autograd.grad(apart, weight)
    p, q = (torch.softmax(net(v), 1) for v in (given.images, given.search.found))
    (wanted,) = torch.autograd.grad((p * (p / q).log()).sum(1).mean(), weight, retain_graph=True)
    torch.testing.assert_close(slope, wanted)
    held = F.kl_div(q.log(), p.detach(), reduction="batchmean")
    (one_sided,) = torch.autograd.grad(held, weight, retain_graph=True)
    assert (one_sided - wanted).abs().max() > 1e-3
    backwards = (q * (q / p).log()).sum(1).mean()
    assert (backwards - apart).abs() > 1e-3 * apart


def test_certainty_has_a_finite_divergence():
    """p log p is 0 at p = 0, and the slope is a number."""
    sure = torch.tensor([[200.0, -900.0, 0.0]], requires_grad=True)
    kl = divergence(sure, torch.tensor([[0.0, 0.0, 0.0]]))
    kl.sum().backward()
    torch.testing.assert_close(kl.detach(), torch.tensor([3.0]).log())
    assert torch.isfinite(sure.grad).all()
