"""The battery over all explainers and kinds of nets."""

import pytest
import torch
from torch import nn

from robustlab.core.tables import options_of
from robustlab.explainers import EXPLAINERS, build
from tests.explainers.battery import check_explainer
from tests.nets import Functional, Normalised, ResNetLike, Softplus, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
NETS = {
    "vgg": lambda: seeded(VGGLike),
    "functional": lambda: Functional(seeded(VGGLike)).eval(),
    "resnet": lambda: seeded(ResNetLike),
    "normalised": lambda: seeded(lambda: Normalised(VGGLike())),
    "softplus": lambda: seeded(Softplus),
}
# A count of whole-model passes cannot see half a pass (Grad-CAM goes back to its layer only)
# nor the convolutions of LRP's rules, which test_lrp counts one by one.
CLAIMS = {"lrp": {"exact_cost": False}, "grad_cam": {"exact_cost": False}}
VARIANTS = [
    ("gradient", {}),
    ("input_x_gradient", {}),
    ("guided_backprop", {}),
    ("smooth_grad", {"samples": 3}),
    ("integrated_gradients", {"steps": 3}),
    ("lrp", {}),
    ("grad_cam", {}),
]
