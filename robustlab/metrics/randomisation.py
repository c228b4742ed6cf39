"""Does the map notice another question? The same picture, with other weights or another class.

Read the other way round than drift: a map that explains has to change, so a low similarity is
the sane one. About 0 is what two unrelated maps share; a negative one is no better than that.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, Final, Literal, get_args

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps
from robustlab.core.randomness import generator
from robustlab.core.streaming import logits_of
from robustlab.core.tables import check_choice
from robustlab.core.types import Climb, Explainer, Metric, Passes, Problem
from robustlab.metrics.agreement import SSIM, Cosine, Pearson
from robustlab.metrics.ranks import Against, Kendall, Spearman, check_count
from robustlab.models.randomised import How, layers_from_the_output, redraw
from robustlab.models.seeding import seeded

Similarity = Literal["spearman", "kendall", "pearson", "cosine", "ssim"]
Order = Literal["top_down", "bottom_up", "independent"]

_SIMILARITIES: Final[Mapping[str, type[Metric]]] = {
    "spearman": Spearman,
    "kendall": Kendall,
    "pearson": Pearson,
    "cosine": Cosine,
    "ssim": SSIM,
}


@dataclass(frozen=True, kw_only=True)
class MPRT:
    """Mean similarity of the map to those of the same network with more and more random weights.

    The L layers (modules with parameters, in the order in which they run) are cut into
    K = min(``stages``, L) groups of consecutive ones, as even as possible; m is the map and
    m_k that of the same image and class after the k-th group: the value is 1/K Σ_k sim(m, m_k).

    ``order`` *top_down* goes on from the output and keeps what is random already, as in the
    paper; *bottom_up* does so from the input; *independent* randomises each group alone.
    ``how`` *fresh* draws new initial weights, *shuffled* permutes each tensor of weights, which
    keeps their scale: deep networks without batch-norm go silent under fresh weights, and a
    map that is empty then is no sign of a good explainer. With *top_down* and one seed the
    k-th network is that of the attack random_weights with ``share`` k/K.

    Maps ``[B,H,W]``, one float64 number per image in [-1, 1]; low is sane. The picture's edges
    alone may leave a map like the old one (Adebayo et al. show it of guided backprop), and
    signs that flip bring the mean down: ``post`` of the explainer says whether there are
    signs. A constant or empty map, and ties, are treated as ``similarity`` treats them:
    correlations with a constant map are 0, but for two equal ones.

    All images meet the same networks, drawn from ``seed`` alone on a copy of the model on the
    CPU. The class stays, also where the random network would predict another one. An automatic
    choice of the explainer (Grad-CAM's layer) is the one that the problem was posed with.
    Cost: at most K maps and one forward pass.

    Source: Adebayo et al., NeurIPS 2018, Sanity checks for saliency maps; the mean over layers
    per image as in Quantus (MPRT, return_average_correlation). Quantus takes the similarity of
    the unchanged network's map, 1, into that mean; we do not. They randomise the modules that
    have a ``reset_parameters`` in the order in which they are written, one by one.

    Args:
        similarity: the metric of two maps, with its defaults.
        stages: at most so many networks; as many as there are layers is the paper's.

    Raises:
        InvalidInput: no module with parameters runs.
    """

    name: ClassVar[str] = "mprt"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    similarity: Similarity = "spearman"
    order: Order = "top_down"
    how: How = "fresh"
    stages: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, get_args(Similarity))
        check_choice("order", self.order, get_args(Order))
        check_choice("how", self.how, get_args(How))
        check_count("stages", self.stages)

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        """Nothing is searched: ``climb`` is not called."""
        device = problem.images.device
        model = deepcopy(problem.model).cpu()  # where one seed means the same weights everywhere
        groups = self._groups(layers_from_the_output(model, problem.images[:1].cpu()))
        similarity = _against(problem.maps, _SIMILARITIES[self.similarity]())
        found = []
        with seeded(self.seed):
            for group in groups:
                if self.order == "independent":
                    model.load_state_dict(problem.model.state_dict())
                redraw(group, self.how)
                maps = _maps(problem, model.to(device), problem.targets)
                found.append(similarity(maps))
                model.cpu()
        return torch.stack(found).mean(0)

    def _groups(self, layers: Sequence[nn.Module]) -> list[Sequence[nn.Module]]:
        """The layers in the order in which they lose their weights, cut into stages."""
        ordered = layers[::-1] if self.order == "bottom_up" else layers
        count, total = min(self.stages, len(layers)), len(layers)
        cuts = [-(-k * total // count) for k in range(count + 1)]  # rounded up, as `share` is
        return [ordered[a:b] for a, b in pairwise(cuts)]

    def cost(self, explainer: Explainer) -> Passes:
        one = explainer.cost()
        return Passes(self.stages * one.forward + 1, self.stages * one.backward)


@dataclass(frozen=True, kw_only=True)
class RandomLogit:
    """Similarity of the map to that of another class, on the same image and network.

    sim(m_t, m_s) with t the explained class and s another one, drawn for each image by
    (``seed``, its id), all others alike. Maps ``[B,H,W]``, one float64 number per image in
    [-1, 1]; low is sane: an explainer that shows every class the same explains none of them.
    Two classes may well share their evidence (two dogs), so it is no proof against a map.

    A constant or empty map, and ties, are treated as ``similarity`` treats them: of two
    equal constant maps it is 1. Where a map is made from a margin, or a model has two classes,
    m_s may be −m_t, which correlations call −1 and maps without signs 1.

    Cost: one map, and a forward pass of one image of the batch.

    Source: Sixt, Granz and Landgraf, ICML 2020, When explanations lie (SSIM). Quantus takes the
    SSIM of flattened maps, that is of windows of seven pixels in a row.

    Args:
        similarity: the metric of two maps, with its defaults; *ssim* needs 11x11 pixels.

    Raises:
        InvalidInput: the model has one class only.
    """

    name: ClassVar[str] = "random_logit"
    higher_is_more_stable: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    similarity: Similarity = "ssim"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, get_args(Similarity))

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        """Nothing is searched: ``climb`` is not called."""
        maps = _maps(problem, problem.model, self.other_classes(problem))
        return _SIMILARITIES[self.similarity]()(problem.maps, maps)

    def other_classes(self, problem: Problem) -> Tensor:
        """The class s of each image, ``[B]``."""
        classes = logits_of(problem.model, problem.images[:1]).shape[1]
        if classes < 2:
            raise InvalidInput("model", "has one class: there is no other one to explain")
        draws = [generator(self.seed, image_id, self.name) for image_id in problem.ids]
        steps = [int(torch.randint(1, classes, (), generator=g, device="cpu")) for g in draws]
        return (problem.targets + problem.targets.new_tensor(steps)) % classes

    def cost(self, explainer: Explainer) -> Passes:
        one = explainer.cost()
        return Passes(one.forward + 1, one.backward)


def _against(clean: Tensor, metric: Metric) -> Against:
    """``metric`` of ``clean`` and any other maps; where order counts, ``clean`` is ranked once."""
    if isinstance(metric, Spearman | Kendall):
        return metric.against(clean)
    return partial(metric, clean)


def _maps(problem: Problem, model: nn.Module, targets: Tensor) -> Tensor:
    return explain_maps(model, problem.explainer, problem.images, targets, problem.ids)
