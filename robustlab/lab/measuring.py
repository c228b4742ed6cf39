"""The numbers of a cell: drift, chance, an explainer's own account, and what saving leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from robustlab.core.judge import Trial, reexplain, saved
from robustlab.core.randomness import generator
from robustlab.core.regions import pixels_in
from robustlab.core.streaming import logits_of
from robustlab.core.types import Metric, Problem, RegionMetric
from robustlab.data import Dataset
from robustlab.lab.accounts import account
from robustlab.lab.facts import facts_of
from robustlab.lab.origins import Origin, data_of, load_data, model_of
from robustlab.lab.plan import Cell
from robustlab.lab.posing import posed
from robustlab.lab.waging import Measured
from robustlab.models import Classifier
from robustlab.records import ImageRow, SavedRow


def explained(cell: Cell, judged: Problem, clean: Sequence[Problem], trial: Trial) -> list[Tensor]:
    """Maps of the trial's images by every measured explainer, on the judged model."""
    return [
        reexplain(replace(p, model=judged.model), trial, m.target)
        for p, m in zip(clean, cell.measured, strict=True)
    ]


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
    measured = {
        m.label: _numbers(cell, m, p, judged, trial, maps, dataset)
        for m, p, maps in zip(cell.measured, clean, after, strict=True)
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
    judged: Problem,
    trial: Trial,
    maps: Tensor,
    dataset: Dataset,
) -> _Numbers:
    numbers = _Numbers(_values(cell, clean.maps, maps, dataset), {}, {})
    unrelated = _shuffled(clean.maps, cell.ids)
    for label, metric in cell.metrics.items():
        if isinstance(metric, RegionMetric):
            regions = region_masks(dataset, cell.ids, clean.maps)
            numbers.chance[label] = metric.chance_in(regions).tolist()
            continue
        numbers.chance[label] = _chance(metric, clean.maps, unrelated)
    numbers.facts.update(facts_of(cell, clean, trial, maps, judged.model))
    model, source = model_of(cell), data_of(cell)
    numbers.facts.update(_own_check(model, source, cell.ids, measured, cell.device))
    return numbers


def _values(cell: Cell, clean: Tensor, maps: Tensor, dataset: Dataset) -> dict[str, list[float]]:
    """Each metric's value per image, of the clean maps and those afterwards."""
    found: dict[str, list[float]] = {}
    for label, metric in cell.metrics.items():
        if isinstance(metric, RegionMetric):
            regions = region_masks(dataset, cell.ids, clean)
            found[label] = metric.measure(maps, regions).tolist()
        else:
            found[label] = metric(clean, maps).tolist()
    return found


def _chance(metric: Metric, maps: Tensor, unrelated: Tensor) -> list[float]:
    """Closed form where there is one; else the value for the map's own pixels, shuffled."""
    known = metric.chance(maps[0].numel())
    return metric(maps, unrelated).tolist() if known is None else [known] * len(maps)


def _shuffled(maps: Tensor, ids: Sequence[str]) -> Tensor:
    """The same values in random places: a map that knows nothing of the image."""
    flat = maps.flatten(1)
    orders = [torch.randperm(flat.shape[1], generator=generator(0, i, "chance")) for i in ids]
    return flat.gather(1, torch.stack(orders).to(flat.device)).view_as(maps)


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


def saved_rows(
    cell: Cell, judged: Problem, clean: Sequence[Problem], trial: Trial, rows: Sequence[ImageRow]
) -> list[dict[str, SavedRow]]:
    """Per image: what is left of it, and of the moved maps, in each file format."""
    if judged.images.shape[1] not in (1, 3):
        return [{} for _ in rows]
    dataset = load_data(data_of(cell))
    unmoved = _still(cell, clean)
    found: list[dict[str, SavedRow]] = [{} for _ in rows]
    for file_format in cell.saving:
        files = saved(judged, trial, file_format)
        numbers = {
            m.label: _values(cell, p.maps, maps, dataset)
            for m, p, maps in zip(
                cell.measured, clean, explained(cell, judged, clean, files), strict=True
            )
        }
        for i, row in enumerate(rows):
            values = {k: {m: v[i] for m, v in n.items()} for k, n in numbers.items()}
            kept = bool(files.prediction_kept[i])
            found[i][file_format] = SavedRow(
                kept=kept,
                values=values,
                survives={
                    label: _survives(row.values[label], values[label], still[i])
                    if kept == row.kept
                    else False
                    for label, still in unmoved.items()
                },
            )
    return found


def _still(cell: Cell, clean: Sequence[Problem]) -> dict[str, list[dict[str, float]]]:
    """explainer → image → the first metric of two maps, of a map that has not moved."""
    first = next((k for k, m in cell.metrics.items() if not isinstance(m, RegionMetric)), None)
    found: dict[str, list[dict[str, float]]] = {}
    for m, p in zip(cell.measured, clean, strict=True):
        metric = None if first is None else cell.metrics[first]
        if first is None or metric is None or isinstance(metric, RegionMetric):
            found[m.label] = [{} for _ in cell.ids]
            continue
        found[m.label] = [{first: value} for value in metric(p.maps, p.maps).tolist()]
    return found


def _survives(
    attacked: Mapping[str, float | None], again: Mapping[str, float], still: Mapping[str, float]
) -> bool | None:
    """Is at least half of a map's movement left? None where there was none."""
    for name, start in still.items():
        moved = abs((attacked[name] or 0.0) - start)
        return abs(again[name] - start) >= moved / 2 if moved > 0 else None
    return None
