"""Smooth surface regularisation: the loss must not be curved in the image."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.types import Passes
from robustlab.training.examples import Examples
from robustlab.training.objectives.options import not_negative
from robustlab.training.objectives.slopes import leaf, outputs, slope


@dataclass(frozen=True, kw_only=True)
class Ssr:
    """ℓ(f(x), y) + λ · λ_max(∇²_x ℓ), SSR: Wang et al., NeurIPS 2020.

    In a piecewise linear network the Hessian of the cross entropy comes from the softmax alone:
    H = W (diag(p) − p pᵀ) Wᵀ with W = [∇f_1, ..., ∇f_C], d×C. With L = diag(√p) − p √pᵀ, for which
    L Lᵀ = diag(p) − p pᵀ, its largest eigenvalue is that of the C×C matrix (W L)ᵀ(W L), and never
    above ½ ‖W‖². Of a smooth network this is the Gauss-Newton part of H.

    Terms: *task*; *curvature*, λ · mean λ_max. No inner maximisation. λ_max = ‖W L u‖² at its unit
    eigenvector u, and its derivative is that with u held: so only one of all gradients, of the
    mixture L u of the logits, is differentiated again. Cost: one forward and C + 3 backward passes
    (13 of ten classes).

    The paper's loss is (1 − α) ℓ + α s λ_max, α = 0.3, with a scale s that the authors' code
    leaves open between 0.3 and 1e6; λ = ``weight`` is α s / (1 − α), and ours. Deviations: their
    code averages W over colour channels and factors by an eigendecomposition with a jitter of
    1e-12; here all of W counts, and L is exact with finite derivatives where p is one-hot.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        not_negative("weight", self.weight)

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        images = leaf(examples.images)
        logits = outputs(net, images)
        return {
            "task": F.cross_entropy(logits, examples.labels),
            "curvature": self.weight * largest_eigenvalue(logits, images).mean(),
        }

    def cost(self) -> Passes:
        return Passes(1, 13)


def largest_eigenvalue(logits: Tensor, images: Tensor) -> Tensor:
    """λ_max ``[B]`` of W (diag(p) − p pᵀ) Wᵀ, differentiable in the weights."""
    root = root_of_softmax(logits)
    gradients = class_gradients(logits, images)
    with torch.no_grad():
        inner = gradients @ root  # W L, [B,d,C]
        top = torch.linalg.eigh(inner.mT @ inner).eigenvectors[:, :, -1:]
    mixture = (root @ top).squeeze(2)
    return slope(logits, images, mixture).flatten(1).square().sum(1)


def root_of_softmax(logits: Tensor) -> Tensor:
    """L = diag(√p) − p √pᵀ ``[B,C,C]``, a square root of diag(p) − p pᵀ that is not symmetric."""
    logs = torch.log_softmax(logits, 1)
    half = (logs / 2).exp()  # √p itself would have no finite derivative at 0
    return torch.diag_embed(half) - logs.exp().unsqueeze(2) * half.unsqueeze(1)


def class_gradients(logits: Tensor, images: Tensor) -> Tensor:
    """W = [∇f_1, ..., ∇f_C] ``[B,d,C]`` without a graph: C backward passes."""
    columns = [
        torch.autograd.grad(logits[:, c].sum(), images, retain_graph=True)[0].flatten(1)
        for c in range(logits.shape[1])
    ]
    return torch.stack(columns, 2)
