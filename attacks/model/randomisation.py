"""Randomised models: an explanation that does not notice has not explained the model.

Adebayo et al. 2018, "Sanity checks for saliency maps". Here a map that *stays* is the bad news.
"""

from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.models import Classifier
from robustlab.models.randomised import How, layers_from_the_output, redraw
from robustlab.models.seeding import seeded
from robustlab.models.shipped import give_weights


@dataclass(frozen=True, kw_only=True)
class RandomWeights:
    """Model randomisation: the layers nearest to the output get random weights.

    ``share`` of the layers with parameters, counted from the output in the order in which
    they run: 1 randomises the whole network; any share above 0 takes at least one layer.
    ``independent`` randomises only the last layer reached and keeps those above it. *fresh*
    draws new initial weights, as in the paper; *shuffled* permutes each tensor of weights,
    which keeps their scale (deep networks without batch-norm go silent under fresh weights).
    Running statistics of a batch-norm are reset with fresh weights and kept when shuffled.
    """

    share: float = 1.0
    independent: bool = False
    how: How = "fresh"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidInput("share", f"must be above 0 and at most 1, got {self.share}")

    @property
    def needs_explainer(self) -> bool:
        return False

    def manipulate(self, problem: Problem) -> nn.Module:
        model = deepcopy(problem.model).cpu()  # where one seed means the same weights everywhere
        layers = layers_from_the_output(model, problem.images[:1].cpu())
        reached = layers[: ceil(self.share * len(layers))]
        with seeded(problem.seed):
            redraw(reached[-1:] if self.independent else reached, self.how)
        return model.to(problem.images.device).eval()

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None


@dataclass(frozen=True, kw_only=True)
class OtherWeights:
    """The same architecture with other weights: label randomisation, or a suspect checkpoint.

    ``weights``: the name of weights that ship for this architecture (``random_labels`` for
    small_cnn: trained until it knew digits with shuffled labels by heart), or a file.
    """

    weights: str | Path = "random_labels"

    @property
    def needs_explainer(self) -> bool:
        return False

    def manipulate(self, problem: Problem) -> nn.Module:
        model = deepcopy(problem.model)
        if not isinstance(model, Classifier):
            raise InvalidInput("model", "other weights need a model of robustlab.models.load")
        give_weights(model.net, model.name, self.weights)
        return model.eval()

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None
