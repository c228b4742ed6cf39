"""Explainers of image classifiers, one file per family, all batched and attackable.

Each is a frozen dataclass of hyper-parameters without a model inside::

    explainer = build("integrated_gradients", steps=32)
    raw = explainer.explain(model, images, targets)
"""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.tables import build as _build
from robustlab.core.types import Explainer
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.gradient.path import IntegratedGradients
from robustlab.explainers.gradient.plain import Gradient, InputXGradient
from robustlab.explainers.gradient.rectified import GuidedBackprop
from robustlab.explainers.gradient.smoothed import SmoothGrad
from robustlab.explainers.relevance.lrp import LRP

EXPLAINERS: Final[Mapping[str, type[Explainer]]] = {
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "guided_backprop": GuidedBackprop,
    "smooth_grad": SmoothGrad,
    "integrated_gradients": IntegratedGradients,
    "lrp": LRP,
    "grad_cam": GradCAM,
}


def build(name: str, **options: Any) -> Explainer:
    """The explainer of that name; unknown names and options get the nearest spelling."""
    return _build(EXPLAINERS, "explainer", name, options)


__all__ = [
    "EXPLAINERS",
    "LRP",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "build",
]
