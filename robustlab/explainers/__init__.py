"""Explainers of image classifiers, one file per family, all batched and attackable.

Each is a frozen dataclass of hyper-parameters without a model inside::

    explainer = build("integrated_gradients", steps=32)
    raw = explainer.explain(model, images, targets)
"""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.tables import build as _build
from robustlab.core.types import Explainer
from robustlab.explainers.activation.generated import DGNAM
from robustlab.explainers.activation.maximization import ActivationMaximization
from robustlab.explainers.attention.branch import ClassAttention
from robustlab.explainers.attention.gated import CBAMAttention, SEAttention
from robustlab.explainers.attention.rollout import AttentionRollout
from robustlab.explainers.cam.cam import CAM
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.cam.grad_cam_pp import GradCAMpp
from robustlab.explainers.cam.guided_grad_cam import GuidedGradCAM
from robustlab.explainers.cam.layer_cam import LayerCAM
from robustlab.explainers.cam.score_cam import ScoreCAM
from robustlab.explainers.cam.smooth_grad_cam_pp import SmoothGradCAMpp
from robustlab.explainers.control.fixed import FixedMap
from robustlab.explainers.defended.aggregate import Aggregate
from robustlab.explainers.defended.sparsified import SparsifiedSmoothGrad
from robustlab.explainers.defended.tangent import TangentProjected
from robustlab.explainers.gradient.expected import ExpectedGradients
from robustlab.explainers.gradient.full_grad import FullGrad
from robustlab.explainers.gradient.path import IntegratedGradients
from robustlab.explainers.gradient.plain import Gradient, InputXGradient
from robustlab.explainers.gradient.rectified import (
    Deconvnet,
    GuidedBackprop,
    RectifiedGradient,
)
from robustlab.explainers.gradient.smoothed import SmoothGrad, VarGrad
from robustlab.explainers.perturbation.extremal import ExtremalPerturbation
from robustlab.explainers.perturbation.fido import FIDO
from robustlab.explainers.perturbation.meaningful import MeaningfulPerturbation
from robustlab.explainers.perturbation.occlusion import Occlusion
from robustlab.explainers.perturbation.rise import RISE
from robustlab.explainers.relevance.contrastive import CLRP, SGLRP
from robustlab.explainers.relevance.deep_lift import DeepLift
from robustlab.explainers.relevance.deep_taylor import DeepTaylor
from robustlab.explainers.relevance.excitation import ExcitationBackprop
from robustlab.explainers.relevance.lrp import LRP
from robustlab.explainers.surrogate.kernel_shap import KernelSHAP
from robustlab.explainers.surrogate.lime import Lime

EXPLAINERS: Final[Mapping[str, type[Explainer]]] = {
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "guided_backprop": GuidedBackprop,
    "deconvnet": Deconvnet,
    "rectified_gradient": RectifiedGradient,
    "smooth_grad": SmoothGrad,
    "var_grad": VarGrad,
    "integrated_gradients": IntegratedGradients,
    "expected_gradients": ExpectedGradients,
    "full_grad": FullGrad,
    "lrp": LRP,
    "deep_taylor": DeepTaylor,
    "clrp": CLRP,
    "sglrp": SGLRP,
    "excitation_backprop": ExcitationBackprop,
    "deep_lift": DeepLift,
    "occlusion": Occlusion,
    "rise": RISE,
    "meaningful_perturbation": MeaningfulPerturbation,
    "extremal_perturbation": ExtremalPerturbation,
    "fido": FIDO,
    "lime": Lime,
    "kernel_shap": KernelSHAP,
    "cam": CAM,
    "grad_cam": GradCAM,
    "grad_cam_pp": GradCAMpp,
    "smooth_grad_cam_pp": SmoothGradCAMpp,
    "score_cam": ScoreCAM,
    "layer_cam": LayerCAM,
    "guided_grad_cam": GuidedGradCAM,
    "se_attention": SEAttention,
    "cbam_attention": CBAMAttention,
    "class_attention": ClassAttention,
    "attention_rollout": AttentionRollout,
    "aggregate": Aggregate,
    "sparsified_smooth_grad": SparsifiedSmoothGrad,
    "tangent_projected": TangentProjected,
    "fixed_map": FixedMap,
    "activation_maximization": ActivationMaximization,
    "dgn_am": DGNAM,
}


def build(name: str, **options: Any) -> Explainer:
    """The explainer of that name; unknown names and options get the nearest spelling."""
    return _build(EXPLAINERS, "explainer", name, options)


__all__ = [
    "CAM",
    "CLRP",
    "DGNAM",
    "EXPLAINERS",
    "FIDO",
    "LRP",
    "RISE",
    "SGLRP",
    "ActivationMaximization",
    "Aggregate",
    "AttentionRollout",
    "CBAMAttention",
    "ClassAttention",
    "Deconvnet",
    "DeepLift",
    "DeepTaylor",
    "ExcitationBackprop",
    "ExpectedGradients",
    "ExtremalPerturbation",
    "FixedMap",
    "FullGrad",
    "GradCAM",
    "GradCAMpp",
    "Gradient",
    "GuidedBackprop",
    "GuidedGradCAM",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "MeaningfulPerturbation",
    "Occlusion",
    "RectifiedGradient",
    "SEAttention",
    "ScoreCAM",
    "SmoothGrad",
    "SmoothGradCAMpp",
    "SparsifiedSmoothGrad",
    "TangentProjected",
    "VarGrad",
    "build",
]
