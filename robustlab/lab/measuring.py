"""The numbers of a cell: drift, chance and an explainer's own account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from attacks.explanation.climbing import climb_to
from robustlab.core.judge import Target, Trial, reexplain
from robustlab.core.randomness import generator
from robustlab.core.regions import pixels_in
from robustlab.core.streaming import logits_of
from robustlab.core.types import (
    ExplainerMetric,
    MapMetric,
    Metric,
    ModelMetric,
    Problem,
    RegionMetric,
)
from robustlab.data import Dataset
from robustlab.lab.accounts import account
from robustlab.lab.facts import facts_of, shared_facts
from robustlab.lab.origins import Origin, data_of, load_data, model_of
from robustlab.lab.posing import posed
from robustlab.lab.units import Cell
from robustlab.lab.waging import Measured
from robustlab.models import Classifier
from robustlab.records import ImageRow


def explained(cell: Cell, judged: Problem, clean: Sequence[Problem], trial: Trial) -> list[Tensor]:
    """Maps of the trial's images by every measured explainer, on the judged model."""
    return [
        reexplain(replace(p, model=judged.model), trial, m.target)
        for p, m in zip(clean, cell.measured, strict=True)
    ]


def afterwards(
    measured: Measured, clean: Problem, model: nn.Module, trial: Trial, maps: Tensor
) -> Problem:
    """What a map of the trial is about: the judged model, the disturbed image, and the class
    that was explained, which is the clean problem's unless ``target`` is "current".
    """
    targets = trial.predictions if measured.target == "current" else clean.targets
    # the raw attribution is not that of these images: whoever wants it has to ask again
    return replace(clean, model=model, images=trial.images, targets=targets, maps=maps, raw=None)


@dataclass(frozen=True)
class _Numbers:
    """One explainer's values, chance and facts, each metric → ``[B]``."""

    values: dict[str, list[float]]
    chance: dict[str, list[float]]
    facts: dict[str, list[float]]


def rows_of(
    cell: Cell,
    problem: Problem,
    judged: Problem,
    trial: Trial,
    clean: Sequence[Problem],
    after: Sequence[Tensor],
) -> list[ImageRow]:
    """What the record says of each image, saving and cautions left out."""
    net = problem.model
    assert isinstance(net, Classifier)  # noqa: S101
    names = net.class_names
    confidence = torch.softmax(logits_of(net, problem.images), 1).amax(1)
    dataset = load_data(data_of(cell))
    label_names = dict(zip(dataset.ids, dataset.names, strict=True))
    shared = shared_facts(cell, problem, trial, judged.model)
    seen = [
        afterwards(m, p, judged.model, trial, maps)
        for m, p, maps in zip(cell.measured, clean, after, strict=True)
    ]
    orders = _random_orders(cell, seen)
    measured = {
        m.label: _numbers(cell, m, p, trial, now, dataset, shared, orders[m.target])
        for m, p, now in zip(cell.measured, clean, seen, strict=True)
    }
    rows = []
    for i, image_id in enumerate(cell.ids):
        before, now = int(problem.predictions[i]), int(trial.predictions[i])
        target = int(problem.targets[i])
        rows.append(
            ImageRow(
                id=image_id,
                label=int(problem.labels[i]),
                label_name=label_names[image_id],
                prediction=before,
                prediction_name=names[before],
                confidence=float(confidence[i]),
                prediction_after=now,
                prediction_after_name=names[now],
                confidence_after=float(trial.confidences[i]),
                target=target,
                target_name=names[target],
                kept=bool(trial.prediction_kept[i]),
                radius=float(trial.radius[i]),
                outcome=trial.outcomes[i],
                values={k: {m: v[i] for m, v in n.values.items()} for k, n in measured.items()},
                chance={k: {m: v[i] for m, v in n.chance.items()} for k, n in measured.items()},
                facts={k: {m: v[i] for m, v in n.facts.items()} for k, n in measured.items()},
            )
        )
    return rows


def _numbers(
    cell: Cell,
    measured: Measured,
    clean: Problem,
    trial: Trial,
    after: Problem,
    dataset: Dataset,
    shared: Mapping[str, list[float]],
    orders: Mapping[str, list[float]],
) -> _Numbers:
    numbers = _Numbers(values_of(cell, clean.maps, after, dataset), {}, dict(shared))
    unrelated = _shuffled(clean.maps, cell.ids)
    for label, metric in cell.metrics.items():
        if isinstance(metric, RegionMetric):
            regions = region_masks(dataset, cell.ids, clean.maps)
            numbers.chance[label] = metric.chance_in(regions).tolist()
        elif isinstance(metric, ModelMetric):
            numbers.chance[label] = (
                orders[label]
                if metric.only_order
                else _asked(metric, after, _shuffled(after.maps, cell.ids))
            )
        # to one of a map alone places are all the same, and one of an explainer has no map
        elif not isinstance(metric, MapMetric | ExplainerMetric):
            numbers.chance[label] = _chance(metric, clean.maps, unrelated)
    numbers.facts.update(facts_of(cell, clean, trial, after.maps))
    model, source = model_of(cell), data_of(cell)
    numbers.facts.update(_own_check(model, source, cell.ids, measured, cell.device))
    return numbers


def values_of(
    cell: Cell, clean: Tensor, after: Problem, dataset: Dataset
) -> dict[str, list[float]]:
    """Each metric's value per image, of the clean maps and those `afterwards`."""
    found: dict[str, list[float]] = {}
    for label, metric in cell.metrics.items():
        if isinstance(metric, RegionMetric):
            regions = region_masks(dataset, cell.ids, clean)
            found[label] = metric.measure(after.maps, regions).tolist()
        elif isinstance(metric, ModelMetric):
            found[label] = _asked(metric, after, after.maps)
        elif isinstance(metric, MapMetric):
            found[label] = metric.describe(after.maps).tolist()
        elif isinstance(metric, ExplainerMetric):
            found[label] = metric.examine(after, climb_to).tolist()
        else:
            found[label] = metric(clean, after.maps).tolist()
    return found


def _chance(metric: Metric, maps: Tensor, unrelated: Tensor) -> list[float]:
    """Closed form where there is one; else the value for the map's own pixels, shuffled."""
    known = metric.chance(maps[0].numel())
    return metric(maps, unrelated).tolist() if known is None else [known] * len(maps)


def _asked(metric: ModelMetric, after: Problem, maps: Tensor) -> list[float]:
    return metric.assess(after.model, after.images, after.targets, maps, after.ids).tolist()


def _random_orders(cell: Cell, seen: Sequence[Problem]) -> dict[Target, dict[str, list[float]]]:
    """What pixels in random order score with metrics that ask the model, by target policy.

    On the disturbed image. No map enters, so explainers of the same class share the number;
    metrics to which a map's values matter are left out.
    """
    asking = {
        k: metric
        for k, metric in cell.metrics.items()
        if isinstance(metric, ModelMetric) and metric.only_order
    }
    policies = {m.target: after for m, after in zip(cell.measured, seen, strict=True)}
    return {
        target: {k: _asked(metric, after, random_map(after)) for k, metric in asking.items()}
        for target, after in policies.items()
    }


def random_map(problem: Problem) -> Tensor:
    """Every pixel another value, in an order that knows nothing of the image; ``[B,H,W]``."""
    return _permutations(problem.maps, problem.ids).view_as(problem.maps).float()


def _shuffled(maps: Tensor, ids: Sequence[str]) -> Tensor:
    """The same values in random places: a map that knows nothing of the image."""
    return maps.flatten(1).gather(1, _permutations(maps, ids)).view_as(maps)


def _permutations(maps: Tensor, ids: Sequence[str]) -> Tensor:
    """A random order of the pixels ``[B,H·W]`` for every image."""
    pixels = maps[0].numel()
    orders = [torch.randperm(pixels, generator=generator(0, i, "chance")) for i in ids]
    return torch.stack(orders).to(maps.device)


def region_masks(dataset: Dataset, ids: Sequence[str], maps: Tensor) -> Tensor:
    """Boolean ``[B,H,W]``: pixels whose centre lies in the image's box."""
    height, width = maps.shape[1:]
    return torch.stack([pixels_in(dataset.box(i), height, width, maps.device) for i in ids])


@lru_cache(maxsize=64)
def _own_check(
    model: Origin, source: Origin, ids: tuple[str, ...], measured: Measured, device: str
) -> dict[str, list[float]]:
    """What an explainer promises of its own sum, once per process."""
    clean = posed(model, source, ids, measured, device)
    return {name: values.tolist() for name, values in account(clean).items()}
