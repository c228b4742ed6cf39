"""Explainers that cannot be attacked as they say."""

from dataclasses import dataclass

from robustlab.core.streaming import hessian_vector, input_gradient
from robustlab.core.untouched import frozen
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.gradient.path import IntegratedGradients
from robustlab.explainers.gradient.plain import Gradient, InputXGradient
from robustlab.explainers.gradient.rectified import GuidedBackprop
from robustlab.explainers.gradient.smoothed import SmoothGrad


@dataclass(frozen=True, kw_only=True)
class Detaches(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw).detach()


@dataclass(frozen=True, kw_only=True)
class DetachesFromTheWeights(Gradient):
    """An input attack works; a manipulated model would never learn."""

    def explain(self, model, images, targets, *, create_graph=False, **kw):
        with frozen(model):
            return super().explain(model, images, targets, create_graph=create_graph, **kw)


@dataclass(frozen=True, kw_only=True)
class GraphWithoutProductRule(IntegratedGradients):
    """One factor of the product is taken for a constant, as in a published attack."""

    steps: int = 2

    def explain(self, model, images, targets, *, create_graph=False, **kw):
        whole = super().explain(model, images, targets, create_graph=create_graph, **kw)
        factor = images - self.baseline
        return whole / factor * factor.detach() if create_graph else whole


@dataclass(frozen=True, kw_only=True)
class CamWithConstantWeights(GradCAM):
    """Detaches the weights of the channels: half of the derivative."""

    def explain(self, model, images, targets, *, create_graph=False, **kw):
        exact = super().explain(model, images, targets, create_graph=create_graph, **kw)
        return 0.5 * exact + 0.5 * exact.detach() if create_graph else exact


@dataclass(frozen=True, kw_only=True)
class GuidedForever(GuidedBackprop):
    """Differs from its graph: rectified once more where no graph is wanted."""

    def explain(self, model, images, targets, *, create_graph=False, **kw):
        raw = super().explain(model, images, targets, create_graph=create_graph, **kw)
        return raw if create_graph else raw.clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class ProductWithoutProductRule(IntegratedGradients):
    steps: int = 2

    def transpose_product(self, model, images, targets, cotangent, *, step, ids=None):
        images = images.detach()
        direction = (images - self.baseline) * cotangent
        return sum(
            weight * alpha * hessian_vector(
                model, self.baseline + alpha * (images - self.baseline), targets, direction,
                step=step, score=self.score,
            )[0]
            for alpha, weight in self.nodes()
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InputProductWithoutProductRule(InputXGradient):
    def transpose_product(self, model, images, targets, cotangent, *, step, ids=None):
        images = images.detach()
        return hessian_vector(
            model, images, targets, images * cotangent, step=step, score=self.score
        )[0]


@dataclass(frozen=True, kw_only=True)
class ProductOfAnotherScore(Gradient):
    score: str = "prob"

    def transpose_product(self, model, images, targets, cotangent, *, step, ids=None):
        return hessian_vector(model, images.detach(), targets, cotangent, step=step)[0]


@dataclass(frozen=True, kw_only=True)
class ProductOfOtherNoise(SmoothGrad):
    """Attacks noise that the judge never draws."""

    samples: int = 2

    def transpose_product(self, model, images, targets, cotangent, *, step, ids=None):
        return super().transpose_product(model, images, targets, cotangent, step=step, ids=None)


@dataclass(frozen=True, kw_only=True)
class WastefulProduct(Gradient):
    def transpose_product(self, model, images, targets, cotangent, *, step, ids=None):
        input_gradient(model, images.detach(), targets)
        return super().transpose_product(model, images.detach(), targets, cotangent, step=step)


BROKEN = [
    (Detaches(), "create_graph gives no graph"),
    (DetachesFromTheWeights(), "exact derivative in the weights"),
    (GraphWithoutProductRule(), "exact derivative in the images"),
    (CamWithConstantWeights(), "exact derivative in the images"),
    (GuidedForever(), "create_graph changes the numbers"),
    (ProductWithoutProductRule(), "not the vector-Jacobian product"),
    (InputProductWithoutProductRule(), "not the vector-Jacobian product"),
    (ProductOfAnotherScore(), "not the vector-Jacobian product"),
    (ProductOfOtherNoise(), "not the vector-Jacobian product"),
    (WastefulProduct(), "a product costs"),
]
