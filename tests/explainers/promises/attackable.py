"""Whether an explainer can be attacked as it says: exact graphs and exact products."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustlab.core.types import Explainer, HessianVector
from robustlab.core.untouched import frozen
from tests.explainers.promises.comparing import IDS, close, micro_batches_of, noise

PROBE = 1e-5  # small enough that the error of central differences is far below PRODUCT
PRODUCT = 1e-4


def check_graph(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """``create_graph`` gives the same numbers, with a graph."""
    plain = explainer.explain(net, images, targets, ids=IDS)
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    close(raw.detach(), plain, "create_graph changes the numbers")
    assert raw.requires_grad, "create_graph gives no graph"
    learnt = nn.Parameter(images.clone())  # an image that is being optimised is still an image
    raised = explainer.explain(net, 1 * learnt, targets, ids=IDS, create_graph=True)
    close(raised.detach(), plain, "takes an image made of a parameter for a weight")
    # A batch of one has its own strides, and frozen weights may take another path.
    with micro_batches_of(1, images):
        parts = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    with frozen(net):
        constant = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    whole, split, fixed = (_pulled_back(out, leaf) for out in (raw, parts, constant))
    close(split, whole, "the derivative depends on the size of a micro-batch")
    close(fixed, whole, "the derivative depends on which parameters are trainable")


def _pulled_back(raw: Tensor, leaf: Tensor) -> Tensor:
    """A vector-Jacobian product; zero where the map does not depend on the images."""
    found = None
    if raw.requires_grad:
        (found,) = torch.autograd.grad(raw, leaf, noise(raw, 1), allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def check_derivative(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """The vector-Jacobian product of the graph equals central differences of the raw map.

    In the images, for attacks, and in the model's weights, for manipulated models. Piecewise
    smooth nets are no exception: the kinks have measure zero.
    """
    weights = [w for w in net.parameters() if w.requires_grad]
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    cotangent = noise(raw, 1)
    gradients = [
        torch.zeros_like(x) if g is None else g
        for x, g in zip(
            (leaf, *weights),
            torch.autograd.grad(raw, (leaf, *weights), cotangent, allow_unused=True),
            strict=True,
        )
    ]

    def projected(images: Tensor) -> float:
        found = explainer.explain(net, images, targets, ids=IDS)
        return float((found.detach() * cotangent).sum())

    for seed in (2, 3):
        direction = noise(images, seed)
        _equals_slope(
            [gradients[0]],
            [direction],
            lambda t, d=direction: projected(images + t * d),
            "create_graph is not the exact derivative in the images",
        )
    directions = [noise(w, 4 + i) for i, w in enumerate(weights)]

    def reweighted(t: float) -> float:
        with shifted(weights, directions, t):
            return projected(images)

    _equals_slope(
        gradients[1:],
        directions,
        reweighted,
        "create_graph is not the exact derivative in the weights",
    )


def _equals_slope(
    gradients: list[Tensor], directions: list[Tensor], value: Callable[[float], float], breach: str
) -> None:
    """Σ gradient·direction is the slope of ``value`` at 0, for at least one probe length."""
    products = torch.cat([(g * d).flatten() for g, d in zip(gradients, directions, strict=True)])
    claimed = float(products.sum())
    scale = float(products.norm()) + abs(claimed)
    here, gaps = abs(value(0.0)), []
    for h in (1e-6, 1e-5, 1e-7):  # a kink or a steep place may spoil one of them
        slope = (value(h) - value(-h)) / (2 * h)
        gaps.append((abs(slope - claimed), 1e-5 * scale + 1e-14 * here / h))
        if gaps[-1][0] <= gaps[-1][1]:
            return
    raise AssertionError(f"{breach}: off by {gaps[0][0]:.3g} where {claimed:.6g} is claimed")


@contextmanager
def shifted(weights: list[Tensor], directions: list[Tensor], t: float) -> Iterator[None]:
    """The weights moved by ``t`` times the directions; restored bit for bit."""
    kept = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, d in zip(weights, directions, strict=True):
            w.add_(d, alpha=t)
    try:
        yield
    finally:
        with torch.no_grad():
            for w, before in zip(weights, kept, strict=True):
                w.copy_(before)


def check_products(
    explainer: HessianVector, net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """On a smooth net a product with a small step is the exact vector-Jacobian product."""
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    cotangent = noise(raw, 1)
    (exact,) = torch.autograd.grad(raw, leaf, cotangent)
    for given in (images, leaf):
        product = explainer.transpose_product(net, given, targets, cotangent, step=PROBE, ids=IDS)
        assert not product.requires_grad, "carries a graph that nobody asked for"
        close(product, exact, "transpose_product is not the vector-Jacobian product", PRODUCT)
    nothing = explainer.transpose_product(
        net, images, targets, torch.zeros_like(cotangent), step=PROBE, ids=IDS
    )
    assert not nothing.any(), "transpose_product of nothing is something"
