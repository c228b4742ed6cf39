"""What is left of every attack once its image has been saved as a file and opened again.

Beside it stands what the file alone does: a JPEG of the untouched picture moves maps too,
and nothing that an attack leaves in a JPEG can be told from that floor if it is no further.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import Manifest, MetricInfo, RunRecord
from robustlab.reporting.largest import largest
from robustlab.reporting.loading import Run
from robustlab.reporting.results import Measurement, measurements
from robustlab.reporting.samples import COUNTED, Place, per_image
from robustlab.reporting.saved_table import SavedMeasurement, saved_measurements
from robustlab.reporting.statistics import Interval, average, interval
from robustlab.reporting.wording import attack_name, budget, count

IN_REGION: Final = (
    "energy_in_region", "pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy",
)  # fmt: skip
"""Metrics of one map and a region, also in records that do not say so of them; survival is
about how far two maps are apart."""
LEVEL: Final = 1 / 255
UNTOUCHED: Final = "no attack"


@dataclass(frozen=True)
class Entry:
    """One attack in one file format; ``said`` is who survived, or what the file alone did."""

    drift: Interval
    said: str


@dataclass(frozen=True)
class Line:
    """One attack at one budget: as attacked, and an entry per format, None if not saved."""

    key: Place
    attacked: float | None
    entries: tuple[Entry | None, ...]

    @property
    def idle(self) -> bool:
        return self.key.role == "none"

    @property
    def attack(self) -> str:
        return UNTOUCHED if self.idle else attack_name(self.key)

    @property
    def budget(self) -> str:
        return "" if self.idle else budget(self.key.norm, self.key.epsilon)

    @property
    def below_level(self) -> bool:
        return is_below_level(self.key.norm, self.key.epsilon)

    @property
    def place(self) -> Place:
        """The same at any budget."""
        return self.key._replace(epsilon=0.0)

    @property
    def epsilon(self) -> float:
        return self.key.epsilon


@dataclass(frozen=True)
class Group:
    """All lines of one explainer, its untouched pictures last."""

    explainer: str
    model: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Saved:
    """The section: largest budgets, and smaller ones to be folded away, on one metric."""

    metric: str
    formats: tuple[str, ...]
    groups: tuple[Group, ...]
    smaller: tuple[Group, ...]
    seeds: int
    below_level: tuple[str, ...]


def saved(run: Run) -> Saved | None:
    """What the section shows; None where no image was saved."""
    with_files = [r for r in run.records if any(image.saved for image in r.images)]
    metric = _metric(with_files, run.manifest)
    if metric is None:
        return None
    files: dict[Place, dict[str, list[SavedMeasurement]]] = {}
    for item in saved_measurements(with_files, COUNTED):
        if item.metric == metric:
            files.setdefault(Place.of(item), {}).setdefault(item.file_format, []).append(item)
    before: dict[Place, list[Measurement]] = {}
    for found in measurements(with_files, COUNTED):
        if found.metric == metric:
            before.setdefault(Place.of(found), []).append(found)
    formats = tuple(dict.fromkeys(name for found in files.values() for name in found))
    if not formats:
        return None
    lines = [_line(key, before[key], files[key], formats) for key in files]
    shown, smaller = largest([line for line in lines if not line.idle])
    idle = [line for line in lines if line.idle]
    return Saved(
        metric=metric,
        formats=tuple(format_name(name) for name in formats),
        groups=_groups([*shown, *idle]),
        smaller=_groups([*smaller, *idle]) if smaller else (),
        seeds=len({record.cell.seed for record in with_files}),
        below_level=tuple(dict.fromkeys(line.budget for line in lines if line.below_level)),
    )


def format_name(name: str) -> str:
    """``JPEG 95`` for ``jpeg_95``."""
    return name.upper().replace("_", " ")


def is_below_level(norm: str, epsilon: float) -> bool:
    """Whether every pixel may move by less than one level of an 8-bit file."""
    return norm.partition("/")[0] == "linf" and 0 < epsilon < LEVEL * (1 - 1e-6)


def _metric(records: Iterable[RunRecord], manifest: Manifest) -> str | None:
    """The first metric of two maps; the primary one, unless that is about one."""
    measured = {metric for record in records for metric in record.cell.metrics}
    order = dict.fromkeys([manifest.primary_metric, *manifest.metrics])
    ours = [m for m in order if not _of_one_map(manifest.metrics[m]) and m in measured]
    return ours[0] if ours else None


def _of_one_map(metric: MetricInfo) -> bool:
    return metric.of_one_map or metric.name in IN_REGION


def _groups(lines: Sequence[Line]) -> tuple[Group, ...]:
    """Lines by model, data and explainer, each in the order of the plan."""
    found: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line.key.model, line.key.data, line.key.explainer), []).append(line)
    return tuple(Group(place[2], place[0], tuple(own)) for place, own in found.items())


def _line(
    key: Place,
    before: Sequence[Measurement],
    files: dict[str, list[SavedMeasurement]],
    formats: Sequence[str],
) -> Line:
    idle = key.role == "none"
    return Line(
        key=key,
        attacked=average(list(per_image(before).values())),
        entries=tuple(_entry(files[name], idle) if name in files else None for name in formats),
    )


def _entry(items: Sequence[SavedMeasurement], idle: bool) -> Entry:
    drift = interval(list(per_image(items).values()))
    if idle:
        changed = sum(not item.prediction_kept for item in items)
        said = f"prediction changed in {changed} of {count(len(items), 'image')}"
        return Entry(drift, said if changed else "")
    asked = [item.survives for item in items if item.survives is not None]
    said = f"survives in {sum(asked)} of {count(len(asked), 'image')}"
    return Entry(drift, said if asked else "nothing had moved")
