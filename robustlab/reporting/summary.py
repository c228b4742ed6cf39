"""The summary: one row per thing that was attacked, how, and by how much it moved.

Conventions, each with its source in the literature:

* ``mean`` counts an image for which no iterate kept the prediction as unmoved, because
  the attack had to leave it alone (Ghorbani et al. 2019); ``mean_dropped`` leaves such
  images out (Singh et al. 2020).
* Values of diverged, budget-violating and crashed images enter no mean; their counts
  stand in columns of their own.
* Drift under a kept prediction is told apart from drift under a changed one.
* ``difference`` is paired over images: the attack minus random sign of equal budget,
  tries and selection. An attack that does not beat it found nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Protocol

import pandas as pd

from robustlab.records import REACHED, Manifest, RunRecord
from robustlab.reporting import controls
from robustlab.reporting.reruns import Reruns, beyond_noise, noise_of, reruns
from robustlab.reporting.results import Measurement
from robustlab.reporting.samples import Group, Sample, mean, per_image
from robustlab.reporting.statistics import average, interval
from robustlab.reporting.told import Aim, told
from robustlab.reporting.verdicts import Verdict, about_noise, beats_control, flags


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One line of ``summary.csv``; None is an empty cell.

    Attributes:
        n, n_dropped: images that ``mean`` and ``mean_dropped`` rest on; an image's seeds
            are averaged. The other counts are over images × seeds.
        chance: the metric's value for two unrelated maps.
        control: mean of the random-sign control over its own images.
        beats_control: by the paired interval; "" where there is no control.
        path: where the attack's gradients came from.
        disturbs: "image"; "model", and then drift is what a map should do; or "both", a
            shift that the model undoes, and then a map should stay.
        made_on: the model that the attack looked at; "" is the judged one.
        rerun: mean between clean maps that differ by the explainer's own draws alone.
        forwards_per_image, backwards_per_image: whole-model passes of the cell, which
            several explainers may share.
        flags: short cautions, joined by "; " in the file.
    """

    model: str
    data: str
    explainer: str
    against: str
    attack: str
    norm: str
    epsilon: float
    metric: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    mean_dropped: float | None
    n_dropped: int
    kept_rate: float | None
    n_kept: int
    mean_kept: float | None
    n_changed: int
    mean_changed: float | None
    chance: float | None
    control: float | None
    control_low: float | None
    control_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    beats_control: Verdict
    n_infeasible: int
    n_violated: int
    n_diverged: int
    n_crashed: int
    path: str
    forwards_per_image: float | None
    backwards_per_image: float | None
    flags: tuple[str, ...]
    role: str
    control_of: str
    control_name: str
    seeds: int
    disturbs: str = "image"
    made_on: str = ""
    rerun: float | None = None
    reached_rate: float | None = None
    n_reached: int = 0
    n_aimed: int = 0


@dataclass(frozen=True)
class Cost:
    """What the cells of one attack and budget spent per image."""

    path: str = ""
    forwards: float | None = None
    backwards: float | None = None


class Measured(Protocol):
    """What a summary is made of: a run, as `loading` reads it."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def records(self) -> Sequence[RunRecord]: ...
    @property
    def samples(self) -> Sequence[Sample]: ...


def summarise(run: Measured) -> list[SummaryRow]:
    """All rows, in plan order, then explainer and metric; ``run.summary`` keeps them."""
    floors = controls.find_controls(run.samples)
    costs = _costs(run.records)
    noise = reruns(run.records)
    hits = {one.aim: one.values(REACHED) for one in told(run.records, REACHED)}
    return [_row(sample, floors, costs, noise, hits, run.manifest) for sample in run.samples]


def to_frame(table: Iterable[SummaryRow]) -> pd.DataFrame:
    """The rows as ``summary.csv`` holds them."""
    data = [{**asdict(row), "flags": "; ".join(row.flags)} for row in table]
    return pd.DataFrame(data, columns=[field.name for field in fields(SummaryRow)])


def _row(
    sample: Sample,
    floors: controls.Controls,
    costs: Mapping[tuple[object, ...], Cost],
    noise: Reruns,
    hits: Mapping[Aim, Sequence[float]],
    manifest: Manifest,
) -> SummaryRow:
    metric = manifest.metrics[sample.group.metric]
    drift = interval(list(sample.by_image.values()))
    control = controls.control_for(sample, floors)
    floor, difference = controls.floor(sample, control), controls.advantage(sample, control)
    info = manifest.attacks[sample.group.attack]
    verdict, disturbs = (
        beats_control(difference, metric, keeps_maps=info.keeps_maps),
        info.disturbs,
    )
    chance = mean(sample.chances()) if sample.chances() else None
    cost = costs.get(_cell_of(sample.group), Cost())
    success = hits.get(_aim_of(sample), ())
    kept, changed = sample.counted(kept=True), sample.counted(kept=False)
    feasible = per_image(sample.counted(outcome="ok"))
    return SummaryRow(
        **sample.group._asdict(),
        n=drift.n,
        mean=drift.mean,
        low=drift.low,
        high=drift.high,
        mean_dropped=average(list(feasible.values())),
        n_dropped=len(feasible),
        kept_rate=len(kept) / (len(kept) + len(changed)) if kept or changed else None,
        n_kept=len(kept),
        mean_kept=_mean(kept),
        n_changed=len(changed),
        mean_changed=_mean(changed),
        chance=chance,
        control=floor.mean,
        control_low=floor.low,
        control_high=floor.high,
        difference=difference.mean,
        difference_low=difference.low,
        difference_high=difference.high,
        beats_control=verdict,
        n_infeasible=sample.count("infeasible"),
        n_violated=sample.count("budget_violated"),
        n_diverged=sample.count("diverged"),
        n_crashed=sample.count("crashed"),
        path=cost.path,
        forwards_per_image=cost.forwards,
        backwards_per_image=cost.backwards,
        flags=(
            *flags(sample, drift, verdict, chance, metric, disturbs),
            *about_noise(sample, beyond_noise(sample, noise), metric),
        ),
        rerun=noise_of(sample.group, noise),
        role=sample.role,
        control_of=sample.control_of,
        control_name=control.group.attack if control else "",
        seeds=len(sample.seeds),
        disturbs=disturbs,
        reached_rate=sum(success) / len(success) if success else None,
        n_reached=int(sum(success)),
        n_aimed=len(success),
    )


def _mean(items: Iterable[Measurement]) -> float | None:
    return average(list(per_image(items).values()))


def _cell_of(group: Group) -> tuple[object, ...]:
    where = group.model, group.data, group.made_on
    return *where, group.against, group.attack, group.norm, group.epsilon


def _aim_of(sample: Sample) -> Aim:
    group = sample.group
    return Aim(
        model=group.model,
        data=group.data,
        explainer=group.explainer,
        against=group.against,
        attack=group.attack,
        made_on=group.made_on,
        ball=group.norm,
        epsilon=group.epsilon,
        role=sample.role,
    )


def _costs(records: Iterable[RunRecord]) -> dict[tuple[object, ...], Cost]:
    """Cost of each attack and budget, over the chunks and seeds that did not crash."""
    found: dict[tuple[object, ...], list[RunRecord]] = {}
    for record in records:
        cell = record.cell
        budget = cell.budget
        where = cell.model, cell.data, cell.made_on or ""
        key = *where, cell.against or "", cell.attack, budget.ball, budget.epsilon
        if record.outcome == "ok":
            found.setdefault(key, []).append(record)
    return {key: _cost(group) for key, group in found.items()}


def _cost(records: list[RunRecord]) -> Cost:
    images = sum(len(record.images) for record in records)
    paths = "; ".join(dict.fromkeys(record.path for record in records if record.path))
    if not images:
        return Cost(paths)
    return Cost(
        path=paths,
        forwards=sum(record.passes.forward for record in records) / images,
        backwards=sum(record.passes.backward for record in records) / images,
    )
