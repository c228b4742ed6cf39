"""R2ET: a map whose most important pixels lead by a margin, on a surface of little curvature."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objectives.options import at_least, not_negative
from robustlab.training.objectives.slopes import leaf, outputs, slope


@dataclass(frozen=True, kw_only=True)
class R2et:
    """ℓ + λ₁ · Σ_{(i,j)} (m_j − m_i) + λ₂ · ‖∇ℓ(x + hu) − ∇ℓ(x)‖₂ / h: Chen et al., NeurIPS 2024.

    m = Σ_channels |∇_x ℓ| is the map, sorted m_1 ≥ m_2 ≥ ... Pairs (i, j) of a salient and another
    pixel are taken against the k-th: (i, k) for i < k, and (k, k + i) for i ≤ k, the authors'
    mode *tx*, so the sum is Σ_{i<k} (m_k − m_i) + Σ_{i≤k} (m_{k+i} − m_k). The third term is how
    much the gradient changes along u = sign(∇ℓ)/‖sign(∇ℓ)‖₂, an estimate of the Hessian's norm
    from below; u is held constant.

    Terms: *task*; *ranking*, λ₁ · mean of the sums; *curvature*, λ₂ · mean. No inner maximisation.
    Cost: two forward and 6 backward passes.

    Settings of the authors' code: k = 100, fine-tuning with Adam 1e-5 for 10 epochs, weights from
    1e-3 to 100 and scaled as it goes. Ours: fixed weights, h = ``probe`` = 0.1. The second term has
    no floor (a steeper loss has larger gaps), so λ₁ must stay small. Deviations, all
    errors of that code: its map is that of a batch's mean loss, and so shrinks with the batch;
    its probe has the length h/3072 · √d but the change is divided by h; its other mode looks
    up sorted gradients by unsorted places. h is longer than its 2e-5, at which single
    precision leaves little of a difference.
    """

    k: int = 100
    weight: float = 0.01
    curvature: float = 0.01
    probe: float = 0.1

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        not_negative("weight", self.weight)
        not_negative("curvature", self.curvature)
        if not self.probe > 0:
            raise InvalidInput("probe", f"must be above 0, got {self.probe}")

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        images, labels = leaf(examples.images), examples.labels
        loss = F.cross_entropy(outputs(net, images), labels, reduction="none")
        gradient = slope(loss, images)
        probes = leaf(images.detach() + self.probe * unit_sign(gradient.detach()))
        there = F.cross_entropy(outputs(net, probes), labels, reduction="none")
        change = (slope(there, probes) - gradient).flatten(1)
        return {
            "task": loss.mean(),
            "ranking": self.weight * overtaking(gradient.abs().sum(1), self.k).mean(),
            "curvature": self.curvature / self.probe * change.norm(dim=1).mean(),
        }

    def cost(self) -> Passes:
        return Passes(2, 6)


def overtaking(maps: Tensor, k: int) -> Tensor:
    """Σ_{i<k} (m_k − m_i) + Σ_{i≤k} (m_{k+i} − m_k) ``[B]`` of sorted maps; never above 0.

    Raises:
        InvalidInput: the map has fewer than 2k pixels.
    """
    flat = maps.flatten(1)
    if flat.shape[1] < 2 * k:
        raise InvalidInput("k", f"{k} salient pixels and as many others: a map has {flat.shape[1]}")
    ordered = flat.topk(2 * k, 1).values
    salient, last, rest = ordered[:, : k - 1], ordered[:, k - 1 : k], ordered[:, k:]
    return (last - salient).sum(1) + (rest - last).sum(1)


def unit_sign(gradient: Tensor) -> Tensor:
    """sign(g) at length 1 in each image; 0 where g is."""
    return F.normalize(gradient.sign().flatten(1), dim=1).view_as(gradient)
