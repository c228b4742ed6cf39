"""Problems on shipped models, and readings of maps, for tests of exact manipulations."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.model.probes import probes
from robustlab import data, models
from robustlab.core.judge import pose
from robustlab.core.streaming import input_gradient
from robustlab.explainers import build as explainer
from robustlab.metrics import build as metric
from tests.nets import pictures

EXACT = {"rtol": 1e-9, "atol": 1e-12}
PICTURES = ("cross", "frame", "disc", "checkerboard")
SHIPPED = ("small_cnn", "small_resnet")


def digits(model: str, name: str = "gradient", count: int = 12, **options):
    """The problem of explaining the first test digits with a shipped model, in float32."""
    batch = data.load("mnist_5k").batch(count)
    return pose(models.load(model), explainer(name, **options), batch)


def in_double(model: str, name: str = "gradient", count: int = 4, **options):
    batch = data.load("mnist_5k").batch(count)
    batch = replace(batch, images=batch.images.double())
    return pose(models.load(model).double(), explainer(name, **options), batch)


def all_test_digits() -> Tensor:
    return data.load("mnist_5k").batch().images


def pearson(maps: Tensor, wanted: Tensor) -> float:
    """The worst correlation of any map with its wanted one."""
    wanted = wanted.double().expand(len(maps), *maps.shape[1:])
    return float(metric("pearson")(maps.double(), wanted).min())


def ssim(maps: Tensor, wanted: Tensor) -> float:
    """The worst structural similarity, both scaled to [0, 1]."""
    maps, wanted = (
        m.double() / m.amax((1, 2), keepdim=True).clamp(min=1e-30)
        for m in (maps, wanted.expand(len(maps), -1, -1))
    )
    return float(metric("ssim")(maps, wanted).min())


def agrees_with_finite_differences(model: nn.Module, images: Tensor, step: float = 1e-7) -> bool:
    """Is the logits' derivative along a few directions what the logits themselves do?"""
    directions = pictures(len(images), images.shape[-1], images.shape[1], seed=7) - 0.5
    for c in range(3):
        targets = torch.full((len(images),), c)
        slope = (input_gradient(model, images, targets) * directions).flatten(1).sum(1)
        up, down = (model(images + sign * step * directions)[:, c] for sign in (1, -1))
        if not torch.allclose((up - down) / (2 * step), slope, rtol=1e-5, atol=1e-5):
            return False
    return True


def steepest(problem):
    """The largest gradient of a predicted logit over the probes, one picture at a time."""
    lengths = []
    for picture in probes(problem.images).split(1):
        leaf = picture.clone().requires_grad_()
        (slope,) = torch.autograd.grad(problem.model(leaf).max(), leaf)
        lengths.append(float(slope.norm()))
    return max(lengths)
