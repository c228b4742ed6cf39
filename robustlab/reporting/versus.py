"""Two results folders row by row: what changed between them, by how much, and how surely.

Rows are matched by model, attack, role, explainer, budget, what the attack aimed at and was made
on, and metric. Within a row images are matched by id, seeds averaged within an image first, as in
``summary.csv``; the means, the difference ``B − A`` and its interval are over the images that have
a value in both. The interval is the paired bootstrap of the summary; beside it stands a paired
sign-flip test, adjusted by Holm over all rows that are asked for. A row has changed if the
adjusted p is below 0.05 *and* the interval leaves out zero.

Runs of one model each whose labels differ are compared with each other: the same model with and
without a defence. A run is on one set of images; that the other run's images of the same id are
the same pictures is taken on trust, and the difference in ``data`` is told.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from robustlab.core.errors import InvalidInput, nearest
from robustlab.records import MetricInfo, Role, UnreadableResults
from robustlab.reporting.loading import Run, load
from robustlab.reporting.results import measurements
from robustlab.reporting.samples import Sample, samples
from robustlab.reporting.significance import holm, sign_flip
from robustlab.reporting.statistics import Floats, Interval, average, paired_difference
from robustlab.reporting.versus_runs import RunDifferences, run_differences
from robustlab.reporting.wording import budget

Direction = Literal[
    "more stable", "less stable", "more faithful", "less faithful", "better aimed", "worse aimed",
    "higher", "lower",
]  # fmt: skip
Verdict = Literal["same numbers", "no clear difference", "nothing to compare"] | Direction
CHANGED: Final[tuple[Direction, ...]] = get_args(Direction)
LEVEL: Final = 0.05


class Place(NamedTuple):
    """What makes a row of one run and a row of another the same row."""

    model: str
    explainer: str
    against: str
    attack: str
    role: Role
    norm: str
    epsilon: float
    metric: str
    made_on: str


@dataclass(frozen=True, kw_only=True)
class VersusRow:
    """One matched row.

    Attributes:
        model_b: the model's label in B, where it has another one there.
        n: images with a value in both, which everything else rests on.
        only_a, only_b: images with a value in one run only, which are left out.
        difference, low, high: B − A, and its 95 % interval, paired by image.
        p: of a paired, two-sided sign-flip test. p_holm: adjusted over all rows.
        verdict: "same numbers" is said of the images in both, and means every digit.
    """

    model: str
    model_b: str
    explainer: str
    against: str
    attack: str
    role: Role
    norm: str
    epsilon: float
    metric: str
    made_on: str
    n: int
    only_a: int
    only_b: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: Verdict

    @property
    def surprise(self) -> float:
        """|difference| in units of half its interval; what has no interval comes last."""
        if not self.difference or self.low is None or self.high is None:
            return 0.0
        half = (self.high - self.low) / 2
        return abs(self.difference) / half if half else float("inf")


@dataclass(frozen=True, kw_only=True)
class Versus:
    """Two runs beside each other.

    Attributes:
        rows: the clearest difference first.
        only_a, only_b: rows that one run has, in plan order.
        renamed: labels of the one model of each, where they differ.
        runs: what differs between the runs themselves.
    """

    a: Path
    b: Path
    rows: tuple[VersusRow, ...]
    only_a: tuple[Place, ...]
    only_b: tuple[Place, ...]
    renamed: tuple[str, str] | None
    runs: RunDifferences


def compare_runs(
    a: Path | str, b: Path | str, *, metric: str | None = None, every: bool = False
) -> Versus:
    """Compare the results folders ``a`` and ``b``, on A's primary metric unless told otherwise.

    Args:
        a: where differences count from.
        b: what is compared with it.
        metric: label of the metric to compare by.
        every: all metrics that both have; the correction then is over all their rows.

    Raises:
        UnreadableResults: a folder holds no readable manifest, or no finished cell.
        InvalidInput: no such metric, or the runs have no row in common.
    """
    first, second = _measured(a), _measured(b)
    chosen = _metrics(first, second, metric, every)
    mine, theirs = _places(first, chosen), _places(second, chosen)
    renamed = _renamed(mine, theirs)
    if renamed:
        theirs = {place._replace(model=renamed[0]): one for place, one in theirs.items()}
    both = [place for place in mine if place in theirs]
    if not both:
        raise _nothing_shared(first, second, list(mine), list(theirs))
    pairs = [_Pair.of(place, mine[place], theirs[place]) for place in both]
    return Versus(
        a=first.folder,
        b=second.folder,
        rows=tuple(_rows(pairs, first, renamed)),
        only_a=tuple(place for place in mine if place not in theirs),
        only_b=tuple(place for place in theirs if place not in mine),
        renamed=renamed,
        runs=run_differences(first, second),
    )


@dataclass(frozen=True)
class _Pair:
    """The values of a row's images in both runs, in the order of their ids."""

    place: Place
    a: Floats
    b: Floats
    only_a: int
    only_b: int

    @classmethod
    def of(cls, place: Place, a: Sample, b: Sample) -> "_Pair":
        first, second = a.by_image, b.by_image
        ids = sorted(first.keys() & second.keys())  # no order of cells may decide a resample
        return cls(
            place,
            np.array([first[name] for name in ids]),
            np.array([second[name] for name in ids]),
            len(first) - len(ids),
            len(second) - len(ids),
        )


def _measured(folder: Path | str) -> Run:
    run = load(folder)
    if not run.records:
        why = f" ({run.problems[0]})" if run.problems else ""
        remedy = "let `robustlab run` finish a cell first"
        raise UnreadableResults(run.folder, f"holds a plan but no results{why}; {remedy}")
    return run


def _metrics(a: Run, b: Run, metric: str | None, every: bool) -> frozenset[str]:
    if metric is not None and every:
        raise InvalidInput("metric", "one metric and all of them", "choose one or the other")
    shared = [name for name in a.manifest.metrics if name in b.manifest.metrics]
    if every:
        return frozenset(shared)
    wanted = metric or a.manifest.primary_metric
    if wanted in shared:
        return frozenset([wanted])
    if not shared:
        said = [f"{run.folder} has {', '.join(run.manifest.metrics)}" for run in (a, b)]
        raise InvalidInput("metric", f"none in common: {'; '.join(said)}")
    raise InvalidInput("metric", f"{wanted!r} is not in both runs", nearest(wanted, shared))


def _places(run: Run, metrics: frozenset[str]) -> dict[Place, Sample]:
    """Every row of a run, in plan order."""
    found = samples(item for item in measurements(run.records) if item.metric in metrics)
    return {_place(sample): sample for sample in found}


def _place(sample: Sample) -> Place:
    whole = {**sample.group._asdict(), "role": sample.role}
    return Place(**{name: whole[name] for name in Place._fields})


def _renamed(a: Iterable[Place], b: Iterable[Place]) -> tuple[str, str] | None:
    """The two labels, if there is one model in each run and they are not called the same."""
    mine, theirs = {place.model for place in a}, {place.model for place in b}
    if len(mine) == len(theirs) == 1 and mine != theirs:
        return mine.pop(), theirs.pop()
    return None


def _rows(pairs: Sequence[_Pair], a: Run, renamed: tuple[str, str] | None) -> list[VersusRow]:
    asked = [i for i, pair in enumerate(pairs) if len(pair.a)]
    values = sign_flip([pairs[i].b - pairs[i].a for i in asked])
    chances = dict(zip(asked, zip(values, holm(values), strict=True), strict=True))
    rows = [
        _row(pair, chances.get(i), a.manifest.metrics[pair.place.metric], renamed)
        for i, pair in enumerate(pairs)
    ]
    return sorted(rows, key=lambda row: -row.surprise)  # stable: plan order where they tie


def _row(
    pair: _Pair,
    chances: tuple[float, float] | None,
    info: MetricInfo,
    renamed: tuple[str, str] | None,
) -> VersusRow:
    found = paired_difference(pair.b.tolist(), pair.a.tolist())
    p, adjusted = chances or (None, None)
    return VersusRow(
        **pair.place._asdict(),
        model_b=renamed[1] if renamed else pair.place.model,
        n=found.n,
        only_a=pair.only_a,
        only_b=pair.only_b,
        mean_a=average(pair.a),
        mean_b=average(pair.b),
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=p,
        p_holm=adjusted,
        verdict=verdict(found, adjusted, info, same=bool((pair.a == pair.b).all())),
    )


def verdict(found: Interval, adjusted: float | None, info: MetricInfo, *, same: bool) -> Verdict:
    """What to say of a difference, its adjusted p, and whether all values are the same."""
    if not found.n or adjusted is None:
        return "nothing to compare"
    if same:
        return "same numbers"
    if found.mean is None or found.low is None or found.high is None:
        return "no clear difference"
    if adjusted >= LEVEL or found.low <= 0 <= found.high:
        return "no clear difference"
    return direction(info, rises=found.mean > 0)


def direction(info: MetricInfo, *, rises: bool) -> Direction:
    """What a clear change of a metric means; only words for the sign where no end is better."""
    if info.of_map_alone:
        return "higher" if rises else "lower"
    improves = rises == info.higher_is_more_stable
    if info.of_model:
        return "more faithful" if improves else "less faithful"
    if info.of_region:
        return "better aimed" if improves else "worse aimed"
    return "more stable" if improves else "less stable"


_FACETS: Final[tuple[tuple[str, Callable[[Place], str]], ...]] = (
    ("models", lambda place: place.model),
    ("explainers", lambda place: place.explainer),
    ("attacks", lambda place: place.attack),
    ("aims", lambda place: place.against),
    ("budgets", lambda place: budget(place.norm, place.epsilon)),
)


def _nothing_shared(a: Run, b: Run, mine: list[Place], theirs: list[Place]) -> InvalidInput:
    """Says what each run has, of the things that they do not share."""
    said = []
    for name, value in _FACETS:
        have = [sorted({value(place) or "none" for place in places}) for places in (mine, theirs)]
        if have[0] != have[1]:
            said.append(f"{name} {', '.join(have[0])} against {', '.join(have[1])}")
    what = "; ".join(said) or "the same names, but in other combinations"
    return InvalidInput(f"{a.folder} and {b.folder}", f"no row in common: {what}")
