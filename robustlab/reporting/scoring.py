"""From one run's records to one model's numbers on the leaderboard.

Which cells count is decided by what attacks are, not by their labels: the no-op gives natural
accuracy; ``pgd`` adversarial accuracy; ``top_k`` that selects by Kendall, against integrated
gradients, is the protocol of Chen et al. 2019; ``worst_case`` is the stricter one of this lab.
Of each the first label and the first budget of the plan count, and cells made on the judged
model itself.

Maps are counted over images that were predicted right at first, as all papers do; images
without a label are not among them. Diverged and over-budget images count nowhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Final

from robustlab.records import AttackInfo, ImageRow, Manifest, MetricInfo, PlannedCell, RunRecord
from robustlab.records.scorecard import (
    Accuracy,
    Estimate,
    Faithfulness,
    Robustness,
    Stability,
    Threat,
)
from robustlab.reporting import controls
from robustlab.reporting.loading import Run
from robustlab.reporting.results import Measurement, measurements
from robustlab.reporting.samples import COUNTED, Sample, mean, per_image, samples
from robustlab.reporting.statistics import Interval, interval

Z: Final = 1.959963984540054  # of the normal distribution, for 95 %
PAPER_EXPLAINER: Final = "integrated_gradients"
FIXED: Final = "fixed_map"


def is_pgd(info: AttackInfo) -> bool:
    """Does it give adversarial accuracy?"""
    return info.role == "attack" and info.name == "pgd"


def is_published(info: AttackInfo) -> bool:
    """Is it the attack of Chen et al. 2019?"""
    kendall = info.options.get("select_by") == "kendall"
    return info.role == "attack" and info.name == "top_k" and kendall


def is_strict(info: AttackInfo) -> bool:
    """Is it the stricter attack of this lab?"""
    return info.role == "attack" and info.name == "worst_case"


def is_scored(manifest: Manifest) -> bool:
    """Has the experiment anything that the leaderboard could show beside natural accuracy?"""
    kinds = (is_pgd, is_published, is_strict)
    return any(kind(info) for info in manifest.attacks.values() for kind in kinds)


def leading(strict: Sequence[Robustness]) -> Robustness | None:
    """The explainer that stands for the stricter protocol, and never the picture that is fixed.

    One that was attacked through its own definition, if there is any: a map that an attack on
    another explainer leaves alone has passed no test. Among these the paper's.
    """
    useful = [one for one in strict if one.name != FIXED]
    direct = [one for one in useful if one.attack.against == one.explainer]
    some = direct or useful
    return next((one for one in some if one.name == PAPER_EXPLAINER), (*some, None)[0])


@dataclass(frozen=True)
class Scoring:
    """One model of a run, and what its records say."""

    run: Run
    model: str

    @cached_property
    def records(self) -> tuple[RunRecord, ...]:
        """Of this model, attacked by looking at itself."""
        cells = (record for record in self.run.records if record.cell.model == self.model)
        return tuple(r for r in cells if r.cell.made_on is None and r.outcome == "ok")

    def clean(self) -> Accuracy | None:
        """Share of labelled images whose prediction is the label; None without a no-op."""
        idle = [record for record in self.records if record.cell.role == "none"]
        share = _share(idle, lambda image: image.prediction == image.label)
        return Accuracy(share=share) if share.n else None

    def adversarial(self) -> Accuracy | None:
        """Share of labelled images that are right before and after PGD; wrong before is wrong."""
        planned = self._planned(is_pgd)
        if planned is None:
            return None
        hits = [record for record in self.records if _fits(record, planned)]
        share = _share(
            hits, lambda image: image.prediction == image.label == image.prediction_after
        )
        return Accuracy(share=share, attack=self._threat(hits[0])) if share.n else None

    def published(self) -> Robustness | None:
        """Integrated gradients, attacked as the paper does; None where that was not measured."""
        mine = [
            label
            for label, info in self.run.manifest.explainers.items()
            if info.name == PAPER_EXPLAINER
        ]
        planned = self._planned(is_published, mine)
        found = [] if planned is None else self.records_of(planned, str(planned.against))
        return self._robustness(found, str(found[0].cell.against)) if found else None

    def strict(self) -> tuple[Robustness, ...]:
        """Every explainer that was measured under the stricter attack, in the manifest's order.

        The attack made against the explainer itself is preferred to one made against another.
        """
        made = []
        for label in self.run.manifest.explainers:
            planned = self._planned(is_strict, [label]) or self._planned(is_strict)
            found = [] if planned is None else self.records_of(planned, label)
            made += [self._robustness(found, label)] if found else []
        return tuple(made)

    def records_of(self, planned: PlannedCell, explainer: str) -> list[RunRecord]:
        """Chunks and seeds of one attack in which the explainer was measured."""
        fitting = [
            record
            for record in self.records
            if _fits(record, planned) and explainer in record.cell.explainers
        ]
        return [record for record in fitting if record.cell.budget == fitting[0].cell.budget]

    def notes(self) -> tuple[str, ...]:
        """What is missing from the numbers."""
        planned = [cell for cell in self.run.manifest.plan if cell.model == self.model]
        missing = sum(cell.model == self.model for cell in self.run.missing)
        crashed = sum(record.cell.model == self.model for record in self.run.crashed)
        said = []
        if missing:
            said.append(f"{missing} of {len(planned)} cells have not been run")
        if crashed:
            said.append(f"{crashed} of {len(planned)} cells failed")
        return tuple(said)

    def _planned(
        self, kind: Callable[[AttackInfo], bool], against: Sequence[str] | None = None
    ) -> PlannedCell | None:
        """The first cell of the plan that is of this kind: label, aim and budget are its."""
        known = self.run.manifest.attacks
        for cell in self.run.manifest.plan:
            mine = cell.model == self.model and cell.attack in known and kind(known[cell.attack])
            if mine and (against is None or cell.against in against):
                return cell
        return None

    def _threat(self, record: RunRecord) -> Threat:
        cell = record.cell
        info = self.run.manifest.attacks[cell.attack]
        return Threat(
            label=cell.attack,
            name=info.name,
            options=info.options,
            norm=cell.budget.ball,
            epsilon=cell.budget.epsilon,
            against=cell.against or "",
        )

    def _robustness(self, attacked: Sequence[RunRecord], explainer: str) -> Robustness:
        first = attacked[0]
        rows = [image for record in attacked for image in record.images if _right(image)]
        counted = [image for image in rows if image.outcome in COUNTED]
        info = self.run.manifest.explainers[explainer]
        return Robustness(
            explainer=explainer,
            name=info.name,
            options={**info.options, "map": info.post},
            attack=self._threat(first),
            images=len({image.id for image in counted}),
            seeds=len({record.cell.seed for record in attacked}),
            infeasible=sum(image.outcome == "infeasible" for image in counted),
            kept=sum(bool(image.kept) for image in counted),
            changed=sum(image.kept is False for image in counted),
            left_out=len(rows) - len(counted),
            intersection=self._stability(attacked, explainer, "top_k_intersection"),
            kendall=self._stability(attacked, explainer, "kendall"),
            deletion=self._deletion(attacked, explainer),
        )

    def _stability(
        self, attacked: Sequence[RunRecord], explainer: str, name: str
    ) -> Stability | None:
        found = self._metric(name)
        sample = found and self._sample(attacked, explainer, found[0])
        if not found or not sample:
            return None
        label, metric = found
        control = controls.control_for(sample, self._floors)
        return Stability(
            label=label,
            options=metric.options,
            ones=_estimate(sample.counted()),
            dropped=_estimate(sample.counted(outcome="ok")),
            seed_range=_seed_range(sample),
            random_sign=_from(controls.floor(sample, control)),
            difference=_from(controls.advantage(sample, control)),
            chance=mean(sample.chances()) if sample.chances() else None,
        )

    def _deletion(self, attacked: Sequence[RunRecord], explainer: str) -> Faithfulness | None:
        found = self._metric("deletion")
        if found is None:
            return None
        label, metric = found
        idle = [r for r in self.records if r.cell.role == "none"]
        before, after = (
            [m for m in _right_first(part) if (m.explainer, m.metric) == (explainer, label)]
            for part in (idle, attacked)
        )
        if not [m for m in (*before, *after) if m.value is not None]:
            return None
        return Faithfulness(
            label=label,
            options=metric.options,
            clean=_estimate(before),
            clean_random=_estimate([_Chance.of(m) for m in before]),
            attacked=_estimate(after),
            attacked_random=_estimate([_Chance.of(m) for m in after]),
        )

    def _sample(self, attacked: Sequence[RunRecord], explainer: str, metric: str) -> Sample | None:
        cell = attacked[0].cell
        place = (explainer, cell.against or "", cell.attack, cell.budget.ball, cell.budget.epsilon)
        for sample in self._samples:
            group = sample.group
            here = (group.explainer, group.against, group.attack, group.norm, group.epsilon)
            if here == place and group.metric == metric:
                return sample
        return None

    def _metric(self, name: str) -> tuple[str, MetricInfo] | None:
        for label, info in self.run.manifest.metrics.items():
            if info.name == name:
                return label, info
        return None

    @cached_property
    def _samples(self) -> list[Sample]:
        return samples(_right_first(self.records))

    @cached_property
    def _floors(self) -> controls.Controls:
        return controls.find_controls(self._samples)


@dataclass(frozen=True)
class _Chance:
    """What random orders score on an image."""

    image_id: str
    value: float | None

    @classmethod
    def of(cls, item: Measurement) -> "_Chance":
        return cls(item.image_id, item.chance)


def wilson(share: float, images: int) -> Estimate:
    """A share of images with its 95 % Wilson interval.

    With several seeds ``share`` is the mean over images of each one's own share, whose variance
    is at most that of as many single verdicts: the interval is then too wide, never too narrow.
    Unlike a bootstrap it has a width where no image, or every image, is right.
    Source: Wilson 1927.
    """
    if not images:
        return Estimate()
    weight = Z * Z / images
    middle = (share + weight / 2) / (1 + weight)
    reach = Z * sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Estimate(n=images, mean=share, low=min(low, share), high=max(high, share))


def _share(records: Iterable[RunRecord], right: Callable[[ImageRow], bool]) -> Estimate:
    """Over labelled images; several seeds of one image count as their mean."""
    found: dict[str, list[float]] = {}
    for record in records:
        for image in record.images:
            if image.label >= 0 and image.outcome in COUNTED:
                found.setdefault(image.id, []).append(float(right(image)))
    return wilson(mean([mean(v) for v in found.values()]), len(found)) if found else Estimate()


def _right(image: ImageRow) -> bool:
    return image.label >= 0 and image.prediction == image.label


def _right_first(records: Iterable[RunRecord]) -> list[Measurement]:
    """Measurements of images that were predicted right before anything was done to them."""
    return [
        item
        for item in measurements(records)
        if item.label >= 0 and item.prediction == item.label and item.outcome in COUNTED
    ]


def _fits(record: RunRecord, planned: PlannedCell) -> bool:
    cell = record.cell
    here = (cell.attack, cell.against, cell.budget.norm, cell.budget.epsilon)
    return here == (planned.attack, planned.against, planned.norm, planned.epsilon)


def _seed_range(sample: Sample) -> float | None:
    """Highest minus lowest mean of a seed."""
    found: dict[int, list[float]] = {}
    for item in sample.counted():
        if item.value is not None:
            found.setdefault(item.seed, []).append(item.value)
    means = [mean(values) for values in found.values()]
    return max(means) - min(means) if len(means) > 1 else None


def _estimate(items: Sequence[Measurement] | Sequence[_Chance]) -> Estimate:
    values: Mapping[str, float] = per_image(items)
    return _from(interval(list(values.values())))


def _from(found: Interval) -> Estimate:
    return Estimate(n=found.n, mean=found.mean, low=found.low, high=found.high)
