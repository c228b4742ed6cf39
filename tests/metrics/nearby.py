"""Copies of images nearby, one by one, and how the tests of the metrics around an image ask."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from robustlab.core.maps import to_maps
from robustlab.core.randomness import uniform
from robustlab.core.types import Problem
from robustlab.explainers import build as explainer
from robustlab.explainers.gradient.plain import Gradient
from robustlab.metrics import build
from tests.attacks.problems import posed

SEARCHED = ("max_sensitivity", "local_lipschitz", "ris", "ros", "rrs")
ALL = ("max_sensitivity", "avg_sensitivity", "local_lipschitz", "ris", "ros", "rrs")
RELATIVE = ("ris", "ros", "rrs")
SIZE = 2


def never(*_):
    raise AssertionError("nothing is to be searched")


def examined(name: str, problem: Problem, climb=never, **options) -> Tensor:
    value = build(name, **options).examine(problem, climb)
    assert value.shape == (len(problem.images),) and value.dtype == torch.float64
    assert torch.isfinite(value).all() and (value >= 0).all() and not value.requires_grad
    return value


@cache
def problem_of(net="plain", name="gradient", **options) -> Problem:
    return posed(net, explainer(name, **options))


@dataclass(frozen=True, kw_only=True)
class Scaled(Gradient):
    """c times the gradient, and without products: its slope goes through the graph."""

    factor: float = 1.0
    transpose_product = None

    def explain(self, *args, **kwargs) -> Tensor:
        return self.factor * super().explain(*args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Told(Gradient):
    """``here`` of the images of a problem, ``there`` of all others."""

    known: Tensor
    here: float
    there: float

    def explain(self, model, images, targets, *, ids=None, create_graph=False):
        same = torch.stack([(image == self.known).flatten(1).all(1).any() for image in images])
        value = torch.where(same, self.here, self.there).to(images)
        return value.view(-1, 1, 1, 1).expand(len(images), 1, 12, 12)


def copies_of(problem: Problem, i: int, radius: float, samples: int, *, clip: bool) -> list[Tensor]:
    """The copies of image ``i``, one by one."""
    image = problem.images[i]
    found = []
    for j in range(samples):
        noise = uniform(image.unsqueeze(0), [problem.ids[i]], 7, f"nearby/{j}")[0]
        near = image + radius * noise
        found.append(near.clamp(0, 1) if clip else near)
    return found


def explained(problem: Problem, i: int, image: Tensor, compare: str) -> np.ndarray:
    one = problem.targets[i : i + 1], [problem.ids[i]]
    raw = problem.explainer.explain(problem.model, image.unsqueeze(0), one[0], ids=one[1])
    raw = raw.detach()
    shown = raw if compare == "raw" else to_maps(raw, problem.explainer.post, (12, 12))
    return shown[0].double().numpy()


def inside(net: nn.Module, image: Tensor) -> np.ndarray:
    """What goes into the last dense layer of the networks of these tests."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    kept = []
    handle = last.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    net(image.unsqueeze(0))
    handle.remove()
    return kept[0][0].detach().numpy()


def size(x) -> float:
    return float(sum(v * v for v in np.asarray(x).ravel()) ** 0.5)


def quotients(a, b) -> list[float]:
    pairs = zip(np.asarray(a).ravel(), np.asarray(b).ravel(), strict=True)
    return [(v - u) / u for u, v in pairs if u != 0]


def by_loops(name: str, problem: Problem, compare: str, radius: float, samples: int, *, clip: bool):
    net, said = problem.model, []
    for i, image in enumerate(problem.images):
        before, values = explained(problem, i, image, compare), []
        logits = net(image.unsqueeze(0))[0].detach().numpy()
        for near in copies_of(problem, i, radius, samples, clip=clip):
            after = explained(problem, i, near, compare)
            if name in ("max_sensitivity", "avg_sensitivity"):
                values.append(size(after - before) / size(before) if before.any() else after.any())
                continue
            if name == "local_lipschitz":
                values.append(size(after - before) / size(near - image))
                continue
            there = net(near.unsqueeze(0))[0].detach().numpy()
            if there.argmax() != logits.argmax():
                continue
            below = {
                "ris": lambda near=near: size(quotients(image, near)),  # noqa: B023
                "ros": lambda there=there: size(there - logits),  # noqa: B023
                "rrs": lambda near=near: size(quotients(inside(net, image), inside(net, near))),  # noqa: B023
            }[name]()
            values.append(size(quotients(before, after)) / below)
        whole = sum(values) / len(values) if name == "avg_sensitivity" else max(values, default=0)
        said.append(whole)
    return torch.tensor(said, dtype=torch.float64)
