"""A network that a run has trained: how well it still does its task, or why there is none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from robustlab.records.checking import Fields
from robustlab.records.plain import plain
from robustlab.records.record import SCHEMA

TrainingOutcome = Literal["ok", "collapsed", "crashed"]
OUTCOMES: Final[tuple[TrainingOutcome, ...]] = ("ok", "collapsed", "crashed")


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What came of one training; the weights lie beside it.

    Attributes:
        attack: label of the attack that has trained it, or of the objective. against: label of
            the explainer that is fooled; "" for an objective.
        data: what it was trained on. train_images, held_out: how many.
        accuracy_before, accuracy_after: share of held-out images with the right label; None
            where no label is known. agreement: share with the true model's prediction; None
            for an objective, which has none to agree with.
        most_lost: the loss of accuracy (or of agreement) beyond which a model has collapsed.
        history: each epoch's mean terms of the loss.
        facts: what else was measured on the held-out images, by name: shares and scores.
        sha256: of the weights.
    """

    key: str
    model: str
    attack: str
    against: str
    seed: int
    outcome: TrainingOutcome
    error: str = ""
    data: str = ""
    train_images: int = 0
    held_out: int = 0
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    agreement: float | None = None
    most_lost: float = 0.0
    history: tuple[Mapping[str, float | None], ...] = ()
    facts: Mapping[str, float | None] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    seconds: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The file's shape; NaN and infinities become None."""
        shape: dict[str, Any] = plain(asdict(self))
        return shape

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrainingRecord":
        """The record that ``data`` describes.

        Raises:
            ValueError: another schema, or a missing, unknown or ill-typed field, by name.
        """
        read = Fields.of(plain(data))
        schema = read.version(SCHEMA)
        read.refuse_others(tuple(f.name for f in fields(cls)))
        return cls(
            key=read.text("key"),
            model=read.text("model"),
            attack=read.text("attack"),
            against=read.text("against"),
            seed=read.whole("seed"),
            outcome=read.one_of("outcome", OUTCOMES),
            error=read.text("error"),
            data=read.text("data"),
            train_images=read.whole("train_images"),
            held_out=read.whole("held_out"),
            accuracy_before=read.optional_number("accuracy_before"),
            accuracy_after=read.optional_number("accuracy_after"),
            agreement=read.optional_number("agreement"),
            most_lost=read.number("most_lost"),
            history=tuple(
                Fields.of(item, f"history[{i}]").numbers()
                for i, item in enumerate(read.items("history"))
            ),
            facts=read.object("facts").numbers(),
            options=read.object("options").data,
            sha256=read.text("sha256"),
            seconds=read.number("seconds"),
            provenance=read.object("provenance").data,
            schema=schema,
        )
