"""Is a network smooth enough to have curvature?"""

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal
from robustlab.core.untouched import frozen
from robustlab.training.objectives.slopes import leaf, outputs, slope


def bends(net: nn.Module, images: Tensor) -> bool:
    """Have the logits a second derivative in the image that is not zero altogether?

    The test is a Hessian-vector product: of a random mixture of the logits, in a random
    direction, at the given images. A piecewise linear network, such as one of ReLU and
    max-pooling, gives exact zeros.
    """
    with frozen(net), torch.enable_grad():
        point = leaf(images)
        logits = outputs(net, point)
        mixture = normal(logits, None, 0, "smooth mixture")
        first = slope(logits, point, mixture)
        if not first.requires_grad:
            return False
        direction = normal(point, None, 0, "smooth direction")
        (second,) = torch.autograd.grad(first, point, direction, materialize_grads=True)
    return bool((second != 0).any())


def refuse_kinks(net: nn.Module, images: Tensor, why: str) -> None:
    """Refuse a network whose logits are piecewise linear.

    Raises:
        InvalidInput: with ``why`` it matters and what would do.
    """
    if not bends(net, images):
        raise InvalidInput(
            "model",
            f"its logits are piecewise linear in the image (ReLU?), and {why}",
            "take a network of smooth activations, such as small_cnn with beta=10",
        )
