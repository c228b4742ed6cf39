"""What every explainer must keep: one function that raises on the first breach.

All numbers are float64, so that a disagreement is a mistake and not rounding.
"""

from torch import Tensor, nn

from robustlab.core.types import Explainer, HessianVector
from robustlab.core.wrapping import Smoothed
from tests.explainers.promises.attackable import check_derivative, check_graph, check_products
from tests.explainers.promises.comparing import close, micro_batches_of
from tests.explainers.promises.declared import check_cost, check_declaration, is_control
from tests.explainers.promises.failing import check_blindness, check_failures
from tests.explainers.promises.left_behind import check_contexts, check_purity
from tests.explainers.promises.returned import check_batches, check_raw
from tests.explainers.promises.untouched import snapshot, untouched

__all__ = [  # what other tests need of it
    "check_declaration",
    "check_derivative",
    "check_explainer",
    "check_graph",
    "close",
    "is_control",
    "micro_batches_of",
    "snapshot",
    "untouched",
]

SMOOTH_BETA = 5.0


def check_explainer(
    explainer: Explainer,
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    exact_cost: bool = True,
) -> None:
    """Raise AssertionError where ``explainer`` breaks its promises on three images.

    Args:
        net: float64, in eval mode; may have kinks, its softplus surrogate is made here.
        exact_cost: cost() counts whole-model passes and nothing else. Otherwise it may
            state more than a count of whole passes can see (a rule's own convolutions).
    """
    check_declaration(explainer)
    check_purity(explainer, net, images, targets)  # first: later, the damage may be done
    check_raw(explainer, net, images, targets)
    check_batches(explainer, net, images, targets)
    check_contexts(explainer, net, images, targets)
    if is_control(explainer):
        check_blindness(explainer, net, images, targets)
    else:
        check_failures(explainer, net, images, targets)
    check_cost(explainer, net, images, targets, exact_cost)
    smooth = Smoothed(net, SMOOTH_BETA)
    if explainer.differentiable != "none":
        check_graph(explainer, net, images, targets)
    if explainer.differentiable == "exact":
        for each in (net, smooth):
            check_derivative(explainer, each, images, targets)
    if isinstance(explainer, HessianVector):
        check_products(explainer, smooth, images, targets)
