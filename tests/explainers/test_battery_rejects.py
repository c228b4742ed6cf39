"""Explainers broken on purpose, each in one way: the battery must name every breach."""

import pytest
import torch

from robustlab.explainers.cam.grad_cam import GradCAM
from tests.explainers.battery import check_explainer
from tests.explainers.broken import (
    blind,
    dependent,
    leaving,
    lying,
    returning,
    unattackable,
)
from tests.nets import ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
FILES = (leaving, dependent, returning, lying, unattackable, blind)
BROKEN = [case for file in FILES for case in file.BROKEN]


@pytest.mark.parametrize(
    ("broken", "breach"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN]
)
def test_battery_rejects_a_broken_explainer(broken, breach):
    net = seeded(ResNetLike if isinstance(broken, leaving.WritesABuffer) else VGGLike)
    exact = not isinstance(broken, GradCAM)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception), match=breach):
            check_explainer(broken, net, pictures(), TARGETS, exact_cost=exact)
    finally:  # what the broken one left behind must not reach other tests
        torch.set_grad_enabled(True)
        while torch._C._len_torch_function_stack():
            torch._C._pop_torch_function_stack()
