"""The first thing to read: what the numbers say, in sentences made from the numbers."""

from collections.abc import Sequence
from typing import Final

from robustlab.records import Manifest, MetricInfo
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import MISSING, budget, count, ignorant, number, percent

MOST: Final = 6
DOUBT: Final = {
    "yes": "",
    "undecided": ", and with these images the two cannot be told apart",
    "no": ", so the attack is no stronger than noise",
    "": "",
}
SHARES: Final = ("top_k_intersection", "lens_recall", "lens_precision", "iou")
"""Metrics that are shares of pixels, which read best in percent."""


def headlines(table: Sequence[SummaryRow], manifest: Manifest) -> list[str]:
    """One sentence per explainer on the primary metric, the furthest drift first.

    For each model and explainer the attack is the strongest at the largest budget, among
    those that kept at least half of the predictions where there are such. Of a metric
    without a better end no attack is the strongest: the first, in the order of the plan.
    """
    label = manifest.primary_metric
    metric = manifest.metrics[label]
    rows = [row for row in table if row.metric == label and row.role == "attack"]
    strongest = (_strongest(group, metric) for group in _by_place(rows))
    chosen = [row for row in strongest if row is not None]
    chosen.sort(key=lambda row: _stability(row, metric))
    several = len({row.model for row in chosen}) > 1
    sentences = [_sentence(row, rows, label, metric, several) for row in chosen[:MOST]]
    if len(chosen) > MOST:
        sentences.append(f"The table below has the other {len(chosen) - MOST}.")
    return sentences


def verdict(table: Sequence[SummaryRow], manifest: Manifest) -> str:
    """How many attacks are worth the name, by their paired comparison with random sign."""
    label = manifest.primary_metric
    if manifest.metrics[label].of_map_alone:
        return f"{label} describes a map and has no better end, so no attack has won or lost by it."
    rows = [row for row in table if row.metric == label and row.role == "attack"]
    compared = [row for row in rows if row.beats_control]
    if not compared:
        return "No attack could be compared with a random-sign control."
    numbers = [sum(row.beats_control == word for row in compared) for word in ("yes", "no")]
    undecided = len(compared) - sum(numbers)
    beaten = f"{numbers[0]} of {count(len(compared), 'compared attack')} went further"
    parts = [f"{beaten} than random sign of equal budget"]
    parts += [f"{numbers[1]} did not"] if numbers[1] else []
    parts += [f"{undecided} cannot be decided with these images"] if undecided else []
    return f"On {label}, " + ", ".join(parts) + "."


def _by_place(rows: Sequence[SummaryRow]) -> list[list[SummaryRow]]:
    places: dict[tuple[str, str, str, str], list[SummaryRow]] = {}
    for row in rows:
        if row.against in ("", row.explainer):
            key = row.model, row.data, row.norm, row.explainer
            places.setdefault(key, []).append(row)
    return list(places.values())


def _strongest(rows: Sequence[SummaryRow], metric: MetricInfo) -> SummaryRow | None:
    known = [row for row in rows if row.mean is not None]
    if not known:
        return None
    largest = max(row.epsilon for row in known)
    last = [row for row in known if row.epsilon == largest]
    kept = [row for row in last if (row.kept_rate or 0) >= 0.5]
    return min(kept or last, key=lambda row: _stability(row, metric))


def _stability(row: SummaryRow, metric: MetricInfo) -> float:
    value = row.mean if row.mean is not None and not metric.of_map_alone else 0.0
    return value if metric.higher_is_more_stable else -value


def _sentence(
    row: SummaryRow,
    rows: Sequence[SummaryRow],
    label: str,
    metric: MetricInfo,
    several: bool,
) -> str:
    where = f" on {row.model}" if several or row.made_on else ""
    made = f", made on {row.made_on}," if row.made_on else ""
    opening = f"At ε = {budget(row.norm, row.epsilon)} the {row.attack} attack{where}{made}"
    text = f"{opening} {_effect(row, label, metric)}"
    if row.control is not None:
        text += f"; random sign {_verb(metric)} {_value(row, metric, control=True)}"
        text += DOUBT[row.beats_control]
    text += "."
    text += f" The prediction was kept on {row.n_kept} of {row.n_kept + row.n_changed}."
    smallest = _smallest(row, rows)
    if smallest is not None:
        already = f"{_verb(metric)} {_value(smallest, metric)}"
        floor = f", random sign {_value(smallest, metric, control=True)}"
        text += f" At ε = {budget(row.norm, smallest.epsilon)} it {already}"
        text += (floor if smallest.control is not None else "") + "."
    return text


def _effect(row: SummaryRow, label: str, metric: MetricInfo) -> str:
    value = _value(row, metric)
    if metric.name == "top_k_intersection":
        k = metric.options.get("k")
        return f"leaves {value} of the top-{k or 'k'} pixels of {row.explainer}"
    if metric.name in SHARES:
        return f"leaves {value} {label} of {row.explainer}"
    still = f", where {metric.perfect:g} is unmoved" if metric.perfect is not None else ""
    if metric.of_one_map:  # which has a best value, but none that says "not moved"
        known = f", where {ignorant(metric)} have {number(row.chance)}"
        still = known if row.chance is not None else ""
    return f"brings {label} of {row.explainer} to {value}{still}"


def _verb(metric: MetricInfo) -> str:
    return "leaves" if metric.name in SHARES else "brings it to"


def _value(row: SummaryRow, metric: MetricInfo, *, control: bool = False) -> str:
    ours = row.mean, row.low, row.high
    mean, low, high = (row.control, row.control_low, row.control_high) if control else ours
    if mean is None:
        return MISSING
    if metric.name not in SHARES:
        ends = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
        return number(mean) + ends
    ends = "" if low is None or high is None else f" [{_bare(low)}, {_bare(high)}]"
    return percent(mean) + ends


def _bare(value: float) -> str:
    return percent(value).removesuffix("\u202f%")


def _smallest(row: SummaryRow, rows: Sequence[SummaryRow]) -> SummaryRow | None:
    """The same attack at the smallest budget, if that is another one."""
    others = [
        other
        for other in rows
        if _but_budget(other) == _but_budget(row)
        and 0 < other.epsilon < row.epsilon
        and other.mean is not None
    ]
    return min(others, key=lambda other: other.epsilon, default=None)


def _but_budget(row: SummaryRow) -> tuple[str, ...]:
    attack = row.attack, row.against, row.made_on
    return row.model, row.data, row.norm, row.explainer, *attack
