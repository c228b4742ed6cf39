"""Attributional robustness training: an image must look like its own gradient map."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Passes
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Smoothed
from robustlab.training.examples import Examples, Reach
from robustlab.training.objective import task
from robustlab.training.objectives.options import not_negative
from robustlab.training.objectives.slopes import leaf, of_class, outputs, runner_up, slope


@dataclass(frozen=True, kw_only=True)
class Art(Reach):
    """ℓ(f(x'), y) + λ · L_attr, ART: Singh et al., ECCV 2020.

    With d(a, b) = 1 − cos(a, b), x is drawn to ∇f_y and pushed off ∇f_i, i the strongest other
    class: L_attr = log(1 + exp(d(x, ∇f_y) − d(x, ∇f_i))). Hard mining in the pair {x, x'}: each of
    the two is compared with the maps of both, and takes the larger of its distances to ∇f_y
    and the smaller of those to ∇f_i; the mean over the pair counts.

    Gradients are those of the same weights with softplus_β (``beta``) for ReLU, the cross entropy
    is of the true network. Inner maximisation: PGD from a random start on the L_attr of x' alone,
    seen only on the coordinates where |∇f_y| is largest (a ``share`` of all).

    Terms: *task*, of x'; *alignment*, λ · mean L_attr. Cost: in each inner step a forward and 5
    backward passes (two gradients, back through both and through the forward pass); in the
    step itself that for x and for x', and one of each for the cross entropy.

    Settings of the paper for CIFAR-10: ε = 8/255, 3 steps of 5/255, 1000 of 3072 coordinates,
    λ = 0.5, β = 50, SGD 0.1, about 100 epochs. Ours: ε = 0.1, 3 steps of 2.5·ε/3. Deviations: the
    coordinates are chosen at x on the smoothed network, not at the random start on the ReLU net.
    x is the *normalised* input there; our images come unnormalised, and a black background
    would leave the cosine to few pixels, so with ``centre`` each image's mean is taken off,
    channel by channel.
    """

    epsilon: float = 0.1
    steps: int = 3
    share: float = 1 / 3
    weight: float = 0.5
    beta: float = 50.0
    centre: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("weight", self.weight)
        if not 0 < self.share <= 1:
            raise InvalidInput("share", f"must be above 0 and at most 1, got {self.share}")
        if not self.beta > 0:
            raise InvalidInput("beta", f"must be above 0, got {self.beta}")

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        images, labels = examples.images, examples.labels
        smooth = Smoothed(net, self.beta)
        clean = own_and_other(smooth, images, labels)
        seen = largest(clean[0].detach(), self.share)

        def gain(x: Tensor) -> Tensor:
            own, other = own_and_other(smooth, x, labels)
            vectors = (torch.where(seen, v, 0) for v in (self.shown(x), own, other))
            return misalignment(*(v.unsqueeze(1) for v in vectors))

        with frozen(net):
            worst = examples.worst(gain, self)
        moved = own_and_other(smooth, worst, labels)
        pair = torch.stack([self.shown(images), self.shown(worst)], 1)
        own, other = (torch.stack(both, 1) for both in zip(clean, moved, strict=True))
        return {
            "task": task(net, worst, labels).mean(),
            "alignment": self.weight * misalignment(pair, own, other).mean(),
        }

    def shown(self, images: Tensor) -> Tensor:
        """The images as the cosine takes them."""
        return images - images.mean((2, 3), keepdim=True) if self.centre else images

    def cost(self) -> Passes:
        return Passes(self.steps + 3, 5 * (self.steps + 2) + 1)


def own_and_other(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """∇f_y and ∇f_i, i the strongest class but y, with their graphs."""
    images = leaf(images)
    logits = outputs(net, images)
    return slope(of_class(logits, labels), images), slope(runner_up(logits, labels), images)


def misalignment(anchors: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """L_attr ``[B]``, mean over the n anchors of each image; all ``[B,n,C,H,W]``."""
    near, far = 1 - cosines(anchors, own), 1 - cosines(anchors, other)
    return F.softplus(near.amax(2) - far.amin(2)).mean(1)


def cosines(anchors: Tensor, maps: Tensor) -> Tensor:
    """Cosine ``[B,n,m]`` of every anchor with every map of the same image; 0 with a zero map."""
    first, second = (F.normalize(v.flatten(2), dim=2) for v in (anchors, maps))
    return first @ second.mT


def largest(maps: Tensor, share: float) -> Tensor:
    """Where each image's map has its largest absolute values: true in that share of it."""
    flat = maps.flatten(1).abs()
    top = flat.topk(max(1, round(share * flat.shape[1])), 1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, top, True).view_as(maps)
