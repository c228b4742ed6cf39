"""From one run's records to one model's numbers on the leaderboard.

The no-op gives natural accuracy; what else counts, ``protocols`` says, and of it the cells made
on the judged model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from robustlab.records import MetricInfo, PlannedCell, RunRecord
from robustlab.records.scores import Accuracy, Faithfulness, Robustness, Stability, Threat
from robustlab.reporting import controls
from robustlab.reporting.comparison import PAPER_EXPLAINER
from robustlab.reporting.estimates import (
    estimate,
    estimate_of_chance,
    from_interval,
    labelled_share,
    right,
    right_first,
    seed_range,
)
from robustlab.reporting.loading import Run
from robustlab.reporting.protocols import first_planned, fits, is_pgd, is_published, is_strict
from robustlab.reporting.samples import COUNTED, Sample, mean, samples


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
        share = labelled_share(self._untouched, right)
        return Accuracy(share=share) if share.n else None

    def adversarial(self) -> Accuracy | None:
        """Share of labelled images that are right before and after PGD; wrong before is wrong."""
        planned = first_planned(self.run.manifest, self.model, is_pgd)
        if planned is None:
            return None
        attacked = [record for record in self.records if fits(record, planned)]
        share = labelled_share(
            attacked, lambda image: image.prediction == image.label == image.prediction_after
        )
        return Accuracy(share=share, attack=self._threat(attacked[0])) if share.n else None

    def published(self) -> Robustness | None:
        """Integrated gradients, attacked as the paper does; None where that was not measured."""
        manifest = self.run.manifest
        known = [k for k, info in manifest.explainers.items() if info.name == PAPER_EXPLAINER]
        planned = first_planned(manifest, self.model, is_published, known)
        found = [] if planned is None else self.records_of(planned, str(planned.against))
        return self._robustness(found, str(found[0].cell.against)) if found else None

    def strict(self) -> tuple[Robustness, ...]:
        """Every explainer that was measured under the stricter attack, in the manifest's order.

        The attack made against the explainer itself is preferred to one made against another.
        """
        made, manifest = [], self.run.manifest
        for label in manifest.explainers:
            direct = first_planned(manifest, self.model, is_strict, [label])
            planned = direct or first_planned(manifest, self.model, is_strict)
            found = [] if planned is None else self.records_of(planned, label)
            made += [self._robustness(found, label)] if found else []
        return tuple(made)

    def records_of(self, planned: PlannedCell, explainer: str) -> list[RunRecord]:
        """Chunks and seeds of one attack in which the explainer was measured."""
        fitting = [
            record
            for record in self.records
            if fits(record, planned) and explainer in record.cell.explainers
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
        rows = [image for record in attacked for image in record.images if right(image)]
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
            ones=estimate(sample.counted()),
            dropped=estimate(sample.counted(outcome="ok")),
            seed_range=seed_range(sample),
            random_sign=from_interval(controls.floor(sample, control)),
            difference=from_interval(controls.advantage(sample, control)),
            chance=mean(sample.chances()) if sample.chances() else None,
        )

    def _deletion(self, attacked: Sequence[RunRecord], explainer: str) -> Faithfulness | None:
        found = self._metric("deletion")
        if found is None:
            return None
        label, metric = found
        before, after = (
            [m for m in right_first(part) if (m.explainer, m.metric) == (explainer, label)]
            for part in (self._untouched, attacked)
        )
        if not [m for m in (*before, *after) if m.value is not None]:
            return None
        return Faithfulness(
            label=label,
            options=metric.options,
            clean=estimate(before),
            clean_random=estimate_of_chance(before),
            attacked=estimate(after),
            attacked_random=estimate_of_chance(after),
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
    def _untouched(self) -> list[RunRecord]:
        return [record for record in self.records if record.cell.role == "none"]

    @cached_property
    def _samples(self) -> list[Sample]:
        return samples(right_first(self.records))

    @cached_property
    def _floors(self) -> controls.Controls:
        return controls.find_controls(self._samples)
