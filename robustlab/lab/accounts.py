"""What an attribution promises of its own sum: checked on clean images, kept with the numbers."""

from torch import Tensor

from robustlab.core.streaming import logits_of
from robustlab.core.types import Problem
from robustlab.explainers.gradient import full_grad, path
from robustlab.explainers.relevance import deep_lift
from robustlab.explainers.relevance.deep_taylor import DeepTaylor
from robustlab.explainers.relevance.lrp import LRP, conservation


def account(clean: Problem) -> dict[str, Tensor]:
    """`conservation` of a relevance, `completeness_gap` of a difference of scores; or nothing."""
    explainer, raw = clean.explainer, clean.raw
    model, images, targets = clean.model, clean.images, clean.targets
    if raw is None:
        return {}
    match explainer:
        case LRP() | DeepTaylor():
            scores = logits_of(model, images).gather(1, targets[:, None]).squeeze(1)
            return {"conservation": conservation(raw, scores)}
        case path.IntegratedGradients():
            gap = path.completeness_gap(model, explainer, images, targets, raw, clean.ids)
        case deep_lift.DeepLift():
            gap = deep_lift.completeness_gap(model, explainer, images, targets, raw)
        case full_grad.FullGrad():
            gap = full_grad.completeness_gap(model, explainer, images, targets)
        case _:
            return {}
    return {"completeness_gap": gap}
