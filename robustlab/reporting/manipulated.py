"""Networks that were trained to deceive: what they still can, and whom they fool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import Manifest, TrainingRecord
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import count, number, percent, share

GOALS: Final = {
    "location_fooling": "location",
    "top_k_fooling": "top_k",
    "center_mass_fooling": "center_mass",
}
"""Which of its goals the success rate has to judge, for attacks that have one."""
RATE: Final = "fooling_success_rate"
MOST: Final = 6
NAMES: Final = {"ok": "kept its task", "collapsed": "collapsed", "crashed": "failed"}


@dataclass(frozen=True)
class Manipulated:
    """A row of the section: one training, as text."""

    model: str
    attack: str
    against: str
    seed: int
    outcome: str
    collapsed: bool
    data: str
    before: str
    after: str
    agreement: str
    success: str
    also: str
    loss: str
    file: str


def manipulated(
    trainings: Sequence[TrainingRecord], table: Sequence[SummaryRow], manifest: Manifest
) -> list[Manipulated]:
    """One row per trained network, in plan order; empty where nothing was trained."""
    return [_row(one, table, manifest) for one in trainings]


def manipulated_headlines(
    trainings: Sequence[TrainingRecord], table: Sequence[SummaryRow], manifest: Manifest
) -> list[str]:
    """One sentence per trained network, of the first few."""
    said = [_sentence(one, table, manifest) for one in trainings[:MOST]]
    more = len(trainings) - MOST
    return [*said, f"Below are {count(more, 'more network')}."] if more > 0 else said


def _row(one: TrainingRecord, table: Sequence[SummaryRow], manifest: Manifest) -> Manipulated:
    rate = success(one, table, manifest)
    return Manipulated(
        model=one.model,
        attack=one.attack,
        against=one.against,
        seed=one.seed,
        outcome=f"failed: {one.error}" if one.outcome == "crashed" else NAMES[one.outcome],
        collapsed=one.outcome != "ok",
        data=f"{count(one.train_images, 'image')} of {one.data}" if one.data else "–",
        before=share(one.accuracy_before),
        after=share(one.accuracy_after),
        agreement=share(one.agreement),
        success="–" if rate is None or rate.mean is None else _rate(rate),
        also=", ".join(f"{name} {number(value)}" for name, value in one.facts.items()) or "–",
        loss=", ".join(f"{k} {number(v)}" for k, v in one.history[-1].items())
        if one.history
        else "–",
        file="" if one.outcome == "crashed" else f"models/{one.key}.safetensors",
    )


def success(
    one: TrainingRecord, table: Sequence[SummaryRow], manifest: Manifest
) -> SummaryRow | None:
    """The success rate on the explainer that was fooled, for the attack's own goal."""
    goal = GOALS.get(manifest.attacks[one.attack].name)
    own = {
        label
        for label, info in manifest.metrics.items()
        if info.name == RATE and info.options.get("goal") == goal
    }
    return _of(one, [row for row in table if row.metric in own])


def _of(one: TrainingRecord, rows: Sequence[SummaryRow]) -> SummaryRow | None:
    return next(
        (
            row
            for row in rows
            if (row.model, row.attack, row.against) == (one.model, one.attack, one.against)
            and row.explainer == one.against
        ),
        None,
    )


def _sentence(one: TrainingRecord, table: Sequence[SummaryRow], manifest: Manifest) -> str:
    if one.outcome == "crashed":
        return f"{one.attack} could not be trained: {one.error}."
    opening = f"{one.attack}, trained to fool {one.against} of {one.model}, {_task(one)}"
    if one.outcome == "collapsed":
        most = percent(one.most_lost)
        return f"{opening}: more than {most} is lost, so it has collapsed and fools nobody."
    rate = success(one, table, manifest)
    primary = [row for row in table if row.metric == manifest.primary_metric]
    drift = _of(one, primary)
    said = []
    if rate is not None and rate.mean is not None:
        said.append(f"it fools {one.against} on {_rate(rate)} of {count(rate.n, 'image')}")
    label = manifest.primary_metric
    if drift is not None and drift.mean is not None and not manifest.metrics[label].of_one_map:
        said.append(f"{label} of its maps with the true model’s is {number(drift.mean)}")
    said += [f"{name} {number(value)}" for name, value in one.facts.items()]
    return f"{opening}; {'; '.join(said)}." if said else f"{opening}."


def _task(one: TrainingRecord) -> str:
    if one.accuracy_before is None:
        return f"agrees with it on {share(one.agreement)} of {count(one.held_out, 'image')}"
    before, after = share(one.accuracy_before), share(one.accuracy_after)
    return (
        f"is right about {after} of {count(one.held_out, 'held-out image')}, {before} before, and "
        f"agrees with it on {share(one.agreement)}"
    )


def _rate(row: SummaryRow) -> str:
    assert row.mean is not None  # noqa: S101
    return percent(row.mean)
