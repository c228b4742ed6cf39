"""Gradients in the image that a training step can differentiate once more."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.linear import cheap_second_order
from robustlab.core.streaming import run_model


def leaf(images: Tensor) -> Tensor:
    """The images, ready to be differentiated in; an inner attack's own leaf stays what it is."""
    return images if images.requires_grad else images.detach().requires_grad_()


def outputs(net: nn.Module, images: Tensor) -> Tensor:
    """Logits ``[B, classes]`` whose gradients may be differentiated again.

    Where no parameter wants a gradient, which is so in an inner attack on a frozen network,
    each further derivative costs one pass.
    """
    with cheap_second_order() as mode:
        return mode.current(run_model(net, images))


def slope(values: Tensor, images: Tensor, weights: Tensor | None = None) -> Tensor:
    """∇ of each image's value ``[B,C,H,W]``, or of Σ weights · values, with its graph."""
    start = torch.ones_like(values) if weights is None else weights
    (found,) = torch.autograd.grad(values, images, start, create_graph=True)
    return found


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit ``[B]`` of each image's class."""
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def runner_up(logits: Tensor, classes: Tensor) -> Tensor:
    """The largest logit ``[B]`` among the other classes."""
    return logits.scatter(1, classes.unsqueeze(1), float("-inf")).amax(1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine ``[B]`` of images or maps as vectors; 0 where one of them is zero."""
    return F.cosine_similarity(a.flatten(1), b.flatten(1), eps=1e-12)
