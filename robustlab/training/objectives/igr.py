"""Integrated gradient regularisation: an adversary's map must point where the clean one does."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.types import Passes
from robustlab.core.untouched import frozen
from robustlab.training.examples import Examples, Reach
from robustlab.training.objective import task
from robustlab.training.objectives.options import at_least, not_negative
from robustlab.training.objectives.path_loss import path_attribution
from robustlab.training.objectives.slopes import cosine, of_class


@dataclass(frozen=True, kw_only=True)
class Igr(Reach):
    """ℓ(f(x̃), y) + λ · (1 − cos(IG(x), IG(x̃))): IGR, Wang & Kong, NeurIPS 2022.

    x̃ is an ordinary adversary of the prediction, so the map is never attacked in training. IG is
    of the label's logit from a black image, right Riemann sum of ``points``. Why a cosine: for
    normal maps E[τ] = (2/π) asin(cos), so raising it raises Kendall's τ.

    Terms: *task*, of x̃; *alignment*, λ · mean (1 − cos). Inner maximisation: PGD on ℓ, as in
    adversarial training. Cost: that, and 3 backward passes for each forward pass along two
    paths, one of which ends in x̃ and so gives the task for nothing.

    The paper puts the regulariser on top of adversarial training, TRADES and MART; here it is the
    first. λ = 1 and 5 points are ours: the paper's values could not be checked.
    """

    epsilon: float = 0.1
    steps: int = 7
    points: int = 5
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("points", self.points, 1)
        not_negative("weight", self.weight)

    def terms(self, net: nn.Module, examples: Examples) -> Mapping[str, Tensor]:
        labels = examples.labels
        with frozen(net):
            worst = examples.worst(lambda x: task(net, x, labels), self)
        both = torch.cat([examples.images, worst])
        logits, maps = path_attribution(
            net, torch.zeros_like(both), both, labels.repeat(2), self.points, of_class
        )
        clean, moved = maps.chunk(2)
        return {
            "task": F.cross_entropy(logits.chunk(2)[1], labels),
            "alignment": self.weight * (1 - cosine(clean, moved)).mean(),
        }

    def cost(self) -> Passes:
        return Passes(self.steps + 2 * self.points, self.steps + 6 * self.points)
