"""Explainers that depend on what they must not."""

import random
from dataclasses import dataclass

import numpy as np
import torch

from robustlab.explainers.gradient.plain import Gradient
from robustlab.explainers.gradient.smoothed import SmoothGrad


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


BROKEN = [
    (MixesImages(), "mixes the images"),
    (CountsPlaces(), "mixes the images|order of images"),
    (IgnoresIds(), "mixes the images|order of images"),
    (GlobalNoise(), "random numbers of torch"),
    (NumpyNoise(), "random numbers of numpy"),
    (PythonNoise(), "random numbers of python"),
    (NeedsTrainableWeights(), "parameters are frozen"),
    (NeedsGradMode(), "differs inside no_grad"),
    (SwallowsErrors(), "DID NOT RAISE"),
]
