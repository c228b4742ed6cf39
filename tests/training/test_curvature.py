"""The price on curvature: the estimator against the exact Hessian."""

from math import sqrt

import torch

from robustlab.training import build
from robustlab.training.objectives.curvature import hessian_square
from tests.training.problems import PIXELS, SHAPE, examples, images, smooth


def exact(net, x, classes):
    """‖H‖²_F of each image's logit."""
    found = []
    for v, c in zip(x, classes, strict=True):
        hessian = torch.autograd.functional.hessian(lambda z, c=c: net(z[None])[0, c], v)
        found.append(hessian.square().sum())
    return torch.stack(found)


def estimate(net, x, classes, probes):
    leaf = x.clone().requires_grad_()
    return hessian_square(net(leaf).gather(1, classes[:, None])[:, 0], leaf, probes).detach()


def test_over_all_axes_the_estimator_is_the_frobenius_norm():
    """Probes √d·e_i have the covariance of N(0, I), so their mean must be exact."""
    net, x, classes = smooth(), images(), torch.tensor([0, 3, 1])
    axes = torch.eye(PIXELS).double().view(PIXELS, 1, *SHAPE).expand(-1, 3, *SHAPE)
    mean = torch.stack([estimate(net, x, classes, sqrt(PIXELS) * v) for v in axes]).mean(0)
    wanted = exact(net, x, classes)
    torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=0)
    unit = torch.stack([estimate(net, x, classes, v) for v in axes]).mean(0)
    torch.testing.assert_close(PIXELS * unit, wanted)  # probes of length 1 lack the factor d


def test_over_many_steps_the_term_is_the_frobenius_norm():
    """The probes that training draws: standard normal, others in each step and image."""
    net, count = smooth(), 600
    objective = build("curvature", weight=1.0, of="label")
    found = torch.stack(
        [objective.terms(net, examples(step=s))["curvature"].detach() for s in range(count)]
    )
    wanted = exact(net, examples().images, examples().labels).mean()
    error = found.std() / sqrt(count)
    assert (found.mean() - wanted).abs() < 4 * error < 0.25 * wanted
    given = examples()
    probes = given.normal("hutchinson")
    assert not torch.equal(probes[0], probes[1])


def test_the_class_is_the_prediction_or_the_label():
    net, given = smooth(), examples()
    predicted = net(given.images).argmax(1)
    assert not torch.equal(predicted, given.labels)
    probes = given.normal("hutchinson")
    for of, classes in (("prediction", predicted), ("label", given.labels)):
        term = build("curvature", weight=2.0, of=of).terms(net, given)["curvature"]
        wanted = 2 * estimate(net, given.images, classes, probes).mean()
        torch.testing.assert_close(term.detach(), wanted)
