"""What an explainer leaves behind: nothing, in any context of its caller."""

import torch
from torch import Tensor, nn

from robustlab.core.types import Explainer, HessianVector, Resolvable
from robustlab.core.untouched import frozen
from tests.explainers.promises.comparing import IDS, close
from tests.explainers.promises.untouched import untouched


def check_purity(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with untouched(net, images, targets):
        first = explainer.explain(net, images, targets, ids=IDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = explainer.explain(net, images, targets, ids=IDS)
    assert torch.equal(first, second), "a second call differs"
    with untouched(net, images, targets):
        if isinstance(explainer, Resolvable):
            explainer.resolved(net, images)
        if explainer.differentiable != "none":
            explainer.explain(net, images, targets, ids=IDS, create_graph=True)
        if isinstance(explainer, HessianVector):
            explainer.transpose_product(net, images, targets, images, step=0.01, ids=IDS)


def check_contexts(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    expected = explainer.explain(net, images, targets, ids=IDS)
    with torch.no_grad():
        with untouched(net, images, targets):
            inside = explainer.explain(net, images, targets, ids=IDS)
        close(inside, expected, "differs inside no_grad")
        if isinstance(explainer, HessianVector):
            explainer.transpose_product(net, images, targets, images, step=0.01, ids=IDS)
    with frozen(net), untouched(net, images, targets):
        without = explainer.explain(net, images, targets, ids=IDS)
    close(without, expected, "differs when the parameters are frozen")
    leaf = images.clone().requires_grad_()
    with untouched(net, leaf, targets):
        tracked = explainer.explain(net, leaf, targets, ids=IDS)
    close(tracked, expected, "differs when the images want a gradient")
    for raw in (expected, inside, without, tracked):
        assert not raw.requires_grad, "carries a graph that nobody asked for"
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    for laid_out in (strided, images.contiguous(memory_format=torch.channels_last)):
        with untouched(net, laid_out, targets):
            again = explainer.explain(net, laid_out, targets, ids=IDS)
        close(again, expected, "depends on strides")
