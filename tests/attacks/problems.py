"""Small problems for the attack tests: close calls in float64, with maps that are not empty."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.batch import make_batch
from robustlab.core.judge import explain_maps, pose
from robustlab.core.streaming import logits_of
from robustlab.core.types import Explainer, Problem
from robustlab.explainers import build
from tests.nets import Normalised, ResNetLike, Softplus, VGGLike, pictures, seeded


class TwoConvolutions(nn.Module):
    """A small CNN whose activation can be exchanged by hand: no interposition needed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8 * 6 * 6, 4)
        self.activation = F.relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv1(x))
        x = self.activation(self.conv2(x))
        return self.fc(x.flatten(1))


NETS = {
    "plain": lambda: Normalised(VGGLike()),
    "residual": ResNetLike,
    "smooth": lambda: Normalised(Softplus()),
}


@cache
def network(name: str) -> nn.Module:
    """One of `NETS`, balanced, with one parameter frozen: flags are not all alike."""
    net = balanced(seeded(NETS[name], seed=4), pictures())
    next(net.parameters()).requires_grad_(False)
    return net


def balanced(net: nn.Module, images: Tensor, lift: float = 1.0) -> nn.Module:
    """Shift the output bias so that, on average over ``images``, every logit is ``lift``.

    A random net predicts one class by a wide margin and often with a negative logit: no
    attack could change the prediction, and positive LRP maps would be empty.
    """
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.bias += lift - logits_of(net, images).mean(0)
    return net


def posed(
    net: nn.Module | str, explainer: Explainer | str = "gradient", images: Tensor | None = None
) -> Problem:
    """The problem of attacking ``explainer`` on ``net``; target maps are other images' maps."""
    net = network(net) if isinstance(net, str) else net
    explainer = build(explainer) if isinstance(explainer, str) else explainer
    images = pictures() if images is None else images
    labels = torch.arange(len(images)) % logits_of(net, images).shape[1]
    batch = make_batch(images, labels, [f"picture {i}" for i in range(len(images))])
    problem = pose(net, explainer, batch)
    # Grad-CAM's may be all zero here, which a user's own must not be
    return replace(problem, target_maps=problem.maps.roll(1, 0))


def maps_of(problem: Problem, images: Tensor) -> Tensor:
    """Maps ``[B,H,W]`` of other images in the place of the problem's own."""
    return explain_maps(problem.model, problem.explainer, images, problem.targets, problem.ids)


def slope_and_differences(attack, net, lesson, rows, *, step=1e-6):
    """The loss's slope in the first weights along a random direction: autograd's, and measured."""
    weight = net.features[0].weight
    (slope,) = torch.autograd.grad(sum(attack.parts(net, lesson, rows).values()), weight)
    g = torch.Generator().manual_seed(1)
    direction = torch.randn(weight.shape, generator=g, dtype=weight.dtype)

    def loss(length):
        with torch.no_grad():
            weight.add_(length * direction)
        found = float(sum(v.detach() for v in attack.parts(net, lesson, rows).values()))
        with torch.no_grad():
            weight.sub_(length * direction)
        return found

    return float((slope * direction).sum()), (loss(step) - loss(-step)) / (2 * step)
