"""Networks whose random weights are known, and how the tests of `mprt` and `random_logit` ask."""

from functools import cache

import torch
from scipy import stats
from torch import Tensor, nn

from robustlab.core.batch import make_batch
from robustlab.core.judge import explain_maps, pose
from robustlab.core.types import Problem
from robustlab.explainers import build as explainer
from tests.attacks.problems import posed
from tests.nets import pictures

SIMILARITIES = ("spearman", "kendall", "pearson", "cosine", "ssim")
ORDERS = ("top_down", "bottom_up", "independent")
# of the network "plain" of tests.attacks.problems, the first to run first
LAYERS = ("net.features.0", "net.features.2", "net.features.5", "net.head.0", "net.head.2")


def never(*_):
    raise AssertionError("nothing is searched")


def spearman(a, b):
    """SciPy's, and 0 with a constant map."""
    lines = [(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)]
    varied = [bool(x.min() < x.max() and y.min() < y.max()) for x, y in lines]
    pairs = zip(varied, lines, strict=True)
    return [stats.spearmanr(*line).statistic if some else 0.0 for some, line in pairs]


def examined(metric, problem) -> Tensor:
    value = metric.examine(problem, never)
    low, high = metric.bounds
    assert value.shape == (len(problem.images),) and value.dtype == torch.float64
    assert not value.requires_grad and ((low <= value) & (value <= high)).all()
    return value


def maps_on(problem: Problem, model: nn.Module) -> Tensor:
    return explain_maps(model, problem.explainer, problem.images, problem.targets, problem.ids)


@cache
def problem_of(net="plain", name="gradient", **options) -> Problem:
    return posed(net, explainer(name, **options))


class Reset(nn.Module):
    """x Wᵀ whose "fresh" weights are told: what a layer becomes is known."""

    def __init__(self, weight: Tensor, spare: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.register_buffer("spare", spare.double())

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(self.spare)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def linear(*layers: Reset, classes=2, name="gradient", count=2) -> Problem:
    """A linear model's signed gradient maps are the rows of its product, whatever the image."""
    net = nn.Sequential(*layers).eval()
    images = pictures(count, 12, 1)
    batch = make_batch(images, torch.arange(count) % classes, [f"i{j}" for j in range(count)])
    return pose(net, explainer(name, post="signed"), batch, target="label")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
