"""The models that an experiment has trained itself: on what, for how long, and how well they do."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.records import TrainingRecord
from robustlab.reporting.wording import count, number, share


@dataclass(frozen=True)
class Taught:
    """A row of the section: one training, as text."""

    model: str
    objective: str
    outcome: str
    failed: bool
    data: str
    epochs: str
    accuracy: str
    held_out: str
    terms: str
    minutes: str
    file: str


def taught(trainings: Sequence[TrainingRecord]) -> list[Taught]:
    """One row per trained model, in plan order; empty where none was trained."""
    return [_row(one) for one in trainings if not one.against]


def fine_tuned(trainings: Sequence[TrainingRecord]) -> list[TrainingRecord]:
    """The other trainings: those that an attack has made."""
    return [one for one in trainings if one.against]


def _row(one: TrainingRecord) -> Taught:
    failed = one.outcome == "crashed"
    last = one.history[-1] if one.history else {}
    return Taught(
        model=one.model,
        objective=_objective(one),
        outcome=f"failed: {one.error}" if failed else "trained",
        failed=failed,
        data=f"{count(one.train_images, 'image')} of {one.data}" if one.data else "–",
        epochs=str(len(one.history)),
        accuracy=share(one.accuracy_after),
        held_out=str(one.held_out),
        terms=", ".join(f"{name} {number(value)}" for name, value in last.items()) or "–",
        minutes=f"{one.seconds / 60:.1f}",
        file="" if failed else f"models/{one.key}.safetensors",
    )


def _objective(one: TrainingRecord) -> str:
    """Its name, with the options that the experiment has set."""
    chosen = one.options.get("objective")
    if not isinstance(chosen, dict):
        return one.attack
    told = ", ".join(f"{k} {v}" for k, v in chosen.items() if k not in ("name", "label"))
    start = one.options.get("start")
    return one.attack + (f" ({told})" if told else "") + (f", from {start}" if start else "")
