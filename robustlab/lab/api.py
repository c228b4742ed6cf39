"""The few functions that a notebook needs: explain, attack, drift."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attacks.explanation.climbing import climb_to
from robustlab import metrics
from robustlab.core.batch import Batch, check_images
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import (
    Judged,
    Target,
    check_eval_mode,
    check_labels,
    check_local,
    choose_targets,
    explain_maps,
    judge,
    pose,
)
from robustlab.core.streaming import logits_of
from robustlab.core.types import (
    AnyMetric,
    Attack,
    Explainer,
    ExplainerMetric,
    MapMetric,
    ModelAttack,
    ModelMetric,
    RegionMetric,
)


@dataclass(frozen=True, eq=False)
class AttackResult(Judged):
    """A judged attack: ``images``, ``maps``, ``clean_maps``, ``prediction_kept``, ``radius``,
    ``outcomes``, ``forwards`` and ``backwards``; and how far the maps drifted.
    """

    def drift(self, metric: str, **options: Any) -> Tensor:
        """A metric between clean and attacked maps, ``[B]``: ``drift("spearman")``."""
        measure = metrics.build(metric, **options)
        if isinstance(measure, RegionMetric):
            raise InvalidInput("metric", f"{metric!r} compares a map with a region, not two maps")
        if isinstance(measure, ModelMetric):
            raise InvalidInput("metric", f"{metric!r} asks the model about one map, not two maps")
        if isinstance(measure, MapMetric):
            raise InvalidInput("metric", f"{metric!r} describes one map, it does not compare two")
        if isinstance(measure, ExplainerMetric):
            raise InvalidInput(
                "metric",
                f"{metric!r} asks the explainer for maps of its own, it does not compare two",
                "use rl.examine",
            )
        return measure(self.clean_maps, self.maps)


def explain(
    model: nn.Module, explainer: Explainer, batch: Batch, *, target: Target = "prediction"
) -> Tensor:
    """Maps ``[B,H,W]`` of a batch, post-processed as the explainer says.

    Raises:
        InvalidInput: images outside [0,1] or not finite, a model in training mode, a target
            class that the model does not have.
    """
    check_images(batch.images)
    check_eval_mode(model)
    check_local(explainer)
    logits = logits_of(model, batch.images)
    check_labels(batch.labels, logits.shape[1])
    targets = choose_targets(target, batch.labels, logits)
    return explain_maps(model, explainer, batch.images, targets, batch.ids)


def examine(
    model: nn.Module,
    explainer: Explainer,
    batch: Batch,
    metric: AnyMetric,
    *,
    target: Target = "prediction",
) -> Tensor:
    """A number ``[B]`` about an explainer at each image: ``examine(model, explainer, batch,
    metrics.build("max_sensitivity", search="gradient"))``.

    Raises:
        InvalidInput: as for `explain`; a metric of another kind, or one that cannot work
            with this explainer.
    """
    if not isinstance(metric, ExplainerMetric):
        name = getattr(metric, "name", type(metric).__name__)
        raise InvalidInput(
            "metric", f"{name!r} asks an explainer for nothing", "call it, or use drift"
        )
    return metric.examine(pose(model, explainer, batch, target=target), climb_to)


def attack(
    model: nn.Module,
    explainer: Explainer,
    attack: Attack | ModelAttack,
    batch: Batch,
    budget: Budget | None = None,
    *,
    target: Target = "prediction",
    seed: int = 0,
    target_maps: Tensor | None = None,
) -> AttackResult:
    """Attack an explanation and let the judge measure it on the true model.

    Attacks on images need a ``budget``; those on the model leave the images alone.
    ``target_maps`` ``[B,H,W]`` are for attacks that imitate a chosen map.

    Raises:
        InvalidInput: as for `explain`, or settings that do not fit (k above the map's pixels).
        NotDifferentiable: a gradient attack on an explainer that has no gradient path.
    """
    problem = pose(model, explainer, batch, target=target, seed=seed, target_maps=target_maps)
    return AttackResult(**vars(judge(attack, problem, budget, target=target)))
