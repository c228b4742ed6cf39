"""What a reader must know before believing a number, in a few words."""

from typing import Final, Literal, Protocol

from robustlab.records import ImageOutcome, MetricInfo
from robustlab.reporting.samples import Sample
from robustlab.reporting.statistics import Interval

Verdict = Literal["yes", "no", "undecided", ""]

FEW: Final = 10  # below this many images a percentile interval is clearly too narrow
NEAR: Final = 0.1  # of the way from an unmoved map to chance that is left
LEFT_OUT: Final[dict[ImageOutcome, str]] = {
    "diverged": "diverged",
    "budget_violated": "over budget",
    "crashed": "crashed",
}


class Difference(Protocol):
    """Attack minus control, with its interval; None where there is nothing to say."""

    @property
    def mean(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def beats_control(difference: Interval, metric: MetricInfo, *, keeps_maps: bool = False) -> Verdict:
    """Whether the attack does more damage than its control, by the paired interval.

    For an attack that ``keeps_maps``, whether it does less: that is what it wants. No
    question where neither end of the metric is damage.
    """
    if metric.of_map_alone:
        return ""
    return beyond_control(difference, falls=metric.higher_is_more_stable != keeps_maps)


def beyond_control(difference: Difference, *, falls: bool) -> Verdict:
    """Whether the attack is clearly beyond its control: below it for a value that ``falls``.

    "no" includes an interval that ends at zero: equal damage is not more. Without an interval
    nothing is decided, and without a control there is no question.
    """
    if difference.mean is None:
        return ""
    if difference.low is None or difference.high is None:
        return "undecided"
    if falls:
        least, most = -difference.high, -difference.low
    else:
        least, most = difference.low, difference.high
    return "yes" if least > 0 else "no" if most <= 0 else "undecided"


def flags(
    sample: Sample,
    drift: Interval,
    verdict: Verdict,
    chance: float | None,
    metric: MetricInfo,
    disturbs: str = "image",
) -> tuple[str, ...]:
    """Short cautions about one row of the summary."""
    if disturbs == "model":  # another model may predict something else, and maps should move
        return (f"few images (n={drift.n})",) if 0 < drift.n < FEW else ()
    found = [*_about_images(sample, drift)]
    if sample.role == "attack" and drift.n:
        found += {
            "no": ["does not beat random sign"],
            "undecided": ["not clearly beyond random sign"],
            # a shift that the model undoes has no random counterpart
            "": ["no random-sign control"]
            if disturbs == "image" and not metric.of_map_alone
            else [],
            "yes": [],
        }[verdict]
    if sample.role == "none" and not metric.of_one_map and moved(drift.mean, metric):
        found.append("moves without an attack")
    found += _about_chance(drift, chance, metric)
    return tuple(found)


def about_noise(sample: Sample, beyond: Interval, metric: MetricInfo) -> tuple[str, ...]:
    """Of a drift that is not clearly beyond what an explainer's own draws do."""
    asked = sample.role == "attack" and not metric.of_one_map
    verdict = beyond_control(beyond, falls=metric.higher_is_more_stable) if asked else ""
    return ("not clearly beyond its own draws",) if verdict in ("no", "undecided") else ()


def _about_images(sample: Sample, drift: Interval) -> list[str]:
    counted, changed = len(sample.counted()), len(sample.counted(kept=False))
    found = [f"prediction changed on {changed} of {counted}"] if changed else []
    infeasible = sample.count("infeasible")
    found += [f"{infeasible} infeasible, counted as unmoved"] if infeasible else []
    for outcome, words in LEFT_OUT.items():
        number = sample.count(outcome)
        found += [f"{number} {words}, left out"] if number else []
    undefined = sum(item.value is None for item in sample.items if item.outcome == "ok")
    found += [f"{undefined} without a value"] if undefined else []
    return found + ([f"few images (n={drift.n})"] if 0 < drift.n < FEW else [])


def _about_chance(drift: Interval, chance: float | None, metric: MetricInfo) -> list[str]:
    if drift.mean is None or chance is None or metric.perfect is None or chance == metric.perfect:
        return []
    if metric.of_model:  # no map reaches the bound, so there is no way to have come along
        better = drift.mean > chance if metric.higher_is_more_stable else drift.mean < chance
        return [] if better else ["no more faithful than random"]
    left = (drift.mean - chance) / (metric.perfect - chance)  # 1 unmoved, 0 like another map
    if left < 0:
        return ["past the chance floor"]
    return ["near chance floor"] if left <= NEAR else []


def moved(mean: float | None, metric: MetricInfo) -> bool:
    """Whether a mean is away from what an unmoved map scores, beyond rounding."""
    return mean is not None and metric.perfect is not None and abs(mean - metric.perfect) > 1e-6
