"""An explainer's own noise: how far its map moves when only its random numbers are others.

Measured on the clean picture, where a run has one without an attack. Drift that is not beyond
it may be the explainer's draws and nothing else.
"""

from collections.abc import Iterable, Mapping

from robustlab.records import RERUN, RunRecord
from robustlab.reporting.samples import Group, Sample
from robustlab.reporting.statistics import Interval, average, paired_difference

Place = tuple[str, str, str, str]
Reruns = Mapping[Place, Mapping[str, float]]


def reruns(records: Iterable[RunRecord]) -> Reruns:
    """Metric of two clean maps by other draws: (model, data, explainer, metric) → image → value."""
    found: dict[Place, dict[str, float]] = {}
    for record in records:
        for image in record.images:
            for explainer, facts in image.facts.items():
                for name, value in facts.items():
                    if name.startswith(RERUN) and value is not None:
                        metric = name.removeprefix(RERUN)
                        place = record.cell.model, record.cell.data, explainer, metric
                        found.setdefault(place, {})[image.id] = value
    return found


def noise_of(group: Group, known: Reruns) -> float | None:
    """Mean over images; nothing where the explainer draws nothing, or nobody looked."""
    return average(list(known.get(_place(group), {}).values()))


def beyond_noise(sample: Sample, known: Reruns) -> Interval:
    """Drift minus the explainer's own noise, paired over the images that have both."""
    noise = known.get(_place(sample.group), {})
    drift = sample.by_image
    both = [name for name in drift if name in noise]
    return paired_difference([drift[name] for name in both], [noise[name] for name in both])


def _place(group: Group) -> Place:
    return group.model, group.data, group.explainer, group.metric
