"""Explainers broken on purpose, each in one way: the battery must name every breach."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from robustlab.core.interposition import Interposition
from robustlab.core.streaming import hessian_vector, input_gradient
from robustlab.core.types import Passes
from robustlab.core.untouched import frozen
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.control.fixed import FixedMap
from robustlab.explainers.gradient.path import IntegratedGradients
from robustlab.explainers.gradient.plain import Gradient, InputXGradient
from robustlab.explainers.gradient.rectified import GuidedBackprop
from robustlab.explainers.gradient.smoothed import SmoothGrad
from tests.explainers.battery import check_explainer
from tests.nets import ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])


def nothing(*_: object) -> None:
    return None


# --- leaves something behind ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LeaksHook(Gradient):
    def explain(self, model, images, targets, **kw):
        next(model.children()).register_forward_hook(nothing)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class LeaksHookAfterAnError(Gradient):
    """Removes its hook, but not in a ``finally``."""

    def explain(self, model, images, targets, **kw):
        handle = list(model.modules())[-1].register_forward_hook(nothing)
        raw = super().explain(model, images, targets, **kw)
        handle.remove()
        return raw


@dataclass(frozen=True, kw_only=True)
class LeavesGrad(Gradient):
    """Calls ``backward`` on a whole graph, so that every weight collects a gradient."""

    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        with torch.enable_grad():
            model(images.detach()).sum().backward()
        return raw


@dataclass(frozen=True, kw_only=True)
class StaysInTrainMode(Gradient):
    """Forgets to go back to evaluation when the model raises."""

    def explain(self, model, images, targets, **kw):
        model.train()
        raw = super().explain(model, images, targets, **kw)
        model.eval()
        return raw


@dataclass(frozen=True, kw_only=True)
class LeavesItsModeOn(Gradient):
    def explain(self, model, images, targets, **kw):
        mode = Interposition({})
        mode.__enter__()
        raw = super().explain(model, images, targets, **kw)
        mode.__exit__(None, None, None)
        return raw


@dataclass(frozen=True, kw_only=True)
class FreezesForGood(Gradient):
    def explain(self, model, images, targets, *, create_graph=False, **kw):
        if not create_graph:
            model.requires_grad_(False)
        return super().explain(model, images, targets, create_graph=create_graph, **kw)


@dataclass(frozen=True, kw_only=True)
class MarksTheImages(Gradient):
    def explain(self, model, images, targets, **kw):
        if images.is_leaf:
            images.requires_grad_()
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class ClampsTheImages(Gradient):
    def explain(self, model, images, targets, **kw):
        images.detach().clamp_(0.2, 0.8)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class WritesABuffer(Gradient):
    def explain(self, model, images, targets, **kw):
        for name, buffer in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.add_(1)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class PatchesAModule(Gradient):
    def explain(self, model, images, targets, **kw):
        model.explained = True
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class TurnsGradOff(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        torch.set_grad_enabled(False)
        return raw


# --- depends on what it must not ------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MixesImages(Gradient):
    """Normalises by the largest value of the whole batch."""

    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw / raw.detach().abs().amax().clamp(min=1e-30)


@dataclass(frozen=True, kw_only=True)
class CountsPlaces(Gradient):
    """Noise by place in the batch instead of by image."""

    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw * torch.arange(1, len(raw) + 1).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class IgnoresIds(SmoothGrad):
    """Without ids it draws a stream per place."""

    samples: int = 2

    def explain(self, model, images, targets, *, ids=None, **kw):
        ids = [str(i) for i in range(len(images))] if ids is None else ids
        return super().explain(model, images, targets, ids=ids, **kw)


@dataclass(frozen=True, kw_only=True)
class GlobalNoise(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw + 1e-14 * torch.randn(())


@dataclass(frozen=True, kw_only=True)
class NumpyNoise(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw) + 0.0 * np.random.rand()  # noqa: NPY002


@dataclass(frozen=True, kw_only=True)
class PythonNoise(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw) + 0.0 * random.random()


@dataclass(frozen=True, kw_only=True)
class NeedsTrainableWeights(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw if any(p.requires_grad for p in model.parameters()) else 2 * raw


@dataclass(frozen=True, kw_only=True)
class NeedsGradMode(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw if torch.is_grad_enabled() else 0 * raw


@dataclass(frozen=True, kw_only=True)
class SwallowsErrors(Gradient):
    def explain(self, model, images, targets, **kw):
        try:
            return super().explain(model, images, targets, **kw)
        except Exception:
            return torch.zeros_like(images)


# --- returns the wrong thing ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SinglePrecision(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw).float()


@dataclass(frozen=True, kw_only=True)
class ReturnsMaps(Gradient):
    def explain(self, model, images, targets, **kw):
        return super().explain(model, images, targets, **kw).sum(1)


@dataclass(frozen=True, kw_only=True)
class NotFinite(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw / (raw.abs() > raw.abs().mean())


@dataclass(frozen=True, kw_only=True)
class KeepsItsGraph(InputXGradient):
    """Multiplies by images that may want a gradient: the graph lacks half the derivative."""

    def explain(self, model, images, targets, **kw):
        return images * self._gradient.explain(model, images, targets, **kw)


# --- lies about itself ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UnderstatesItsCost(SmoothGrad):
    samples: int = 2

    def cost(self):
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class ForgetsTheBackwardPass(Gradient):
    def cost(self):
        return Passes(1, 0)


@dataclass(kw_only=True)
class CanBeEdited:
    score: str = "logit"
    differentiable = "exact"
    post = "abs_sum"

    def cost(self):
        return Passes(1, 1)


@dataclass(frozen=True, kw_only=True)
class KeepsAList(Gradient):
    sizes: list[int] | None = None

    def __post_init__(self):
        object.__setattr__(self, "sizes", [1, 2])


@dataclass(frozen=True, kw_only=True, eq=False)
class OnlyEqualToItself(Gradient):
    __eq__, __hash__ = object.__eq__, object.__hash__


# --- cannot be attacked as it says ----------------------------------------------------------


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


# --- explains, though it says that it does not -----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CostsNothing(Gradient):
    def cost(self):
        return Passes(0, 0)


@dataclass(frozen=True, kw_only=True)
class LooksAtTheClass(FixedMap):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw + targets.view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class LooksAtTheImage(FixedMap):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        return raw + 1e-12 * images.detach().mean((1, 2, 3), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class HasAGraph(FixedMap):
    differentiable = "exact"


BROKEN = [
    (LeaksHook(), "_forward_hooks of module"),
    (LeaksHookAfterAnError(), "left behind after an exception: _forward_hooks"),
    (LeavesGrad(), r"\.grad of parameter"),
    (StaysInTrainMode(), "left behind after an exception: training flag"),
    (LeavesItsModeOn(), "left behind after an exception: a torch function mode"),
    (FreezesForGood(), "requires_grad of parameter"),
    (MarksTheImages(), "requires_grad of the images"),
    (ClampsTheImages(), "value of the images"),
    (WritesABuffer(), "value of buffer"),
    (PatchesAModule(), "an attribute of module"),
    (TurnsGradOff(), "the grad mode"),
    (MixesImages(), "mixes the images"),
    (CountsPlaces(), "mixes the images|order of images"),
    (IgnoresIds(), "mixes the images|order of images"),
    (GlobalNoise(), "random numbers of torch"),
    (NumpyNoise(), "random numbers of numpy"),
    (PythonNoise(), "random numbers of python"),
    (NeedsTrainableWeights(), "parameters are frozen"),
    (NeedsGradMode(), "differs inside no_grad"),
    (SwallowsErrors(), "DID NOT RAISE"),
    (SinglePrecision(), "another dtype"),
    (ReturnsMaps(), r"not \[B,C,h,w\]"),
    (NotFinite(), "not finite"),
    (KeepsItsGraph(), "carries a graph"),
    (UnderstatesItsCost(), "states Passes"),
    (ForgetsTheBackwardPass(), "states Passes"),
    (CanBeEdited(), "not frozen"),
    (KeepsAList(), "not hashable"),
    (OnlyEqualToItself(), "a copy is not equal"),
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
    (CostsNothing(), "cost is not a number of passes"),
    (LooksAtTheClass(), "a control looks at something"),
    (LooksAtTheImage(), "a control looks at something"),
    (HasAGraph(), "a control with a gradient"),
]


@pytest.mark.parametrize(
    ("broken", "breach"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN]
)
def test_battery_rejects_a_broken_explainer(broken, breach):
    net = seeded(ResNetLike if isinstance(broken, WritesABuffer) else VGGLike)
    exact = not isinstance(broken, GradCAM)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception), match=breach):
            check_explainer(broken, net, pictures(), TARGETS, exact_cost=exact)
    finally:  # what the broken one left behind must not reach other tests
        torch.set_grad_enabled(True)
        while torch._C._len_torch_function_stack():
            torch._C._pop_torch_function_stack()
