"""What a global explainer made of one model: one image per class, and what the model says of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from robustlab.records.checking import Fields
from robustlab.records.plain import plain
from robustlab.records.record import CELL_OUTCOMES, SCHEMA, CellOutcome, PassCount


@dataclass(frozen=True, kw_only=True)
class VisualRow:
    """One image: which class it was made for and what the model sees in it.

    Attributes:
        score: the class's logit. confidence: its probability.
    """

    target: int
    target_name: str
    prediction: int
    prediction_name: str
    score: float | None
    confidence: float | None

    @classmethod
    def read(cls, fields: Fields) -> "VisualRow":
        fields.refuse_others(_names(cls))
        return cls(
            target=fields.whole("target"),
            target_name=fields.text("target_name"),
            prediction=fields.whole("prediction"),
            prediction_name=fields.text("prediction_name"),
            score=fields.optional_number("score"),
            confidence=fields.optional_number("confidence"),
        )


@dataclass(frozen=True, kw_only=True)
class VisualRecord:
    """One explainer's images of one model, or its failure. The pixels lie beside it."""

    key: str
    model: str
    explainer: str
    outcome: CellOutcome
    images: tuple[VisualRow, ...] = ()
    error: str = ""
    passes: PassCount = field(default_factory=PassCount)
    seconds: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The file's shape; NaN and infinities become None."""
        shape: dict[str, Any] = plain(asdict(self))
        return shape

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "VisualRecord":
        """The record that ``data`` describes.

        Raises:
            ValueError: another schema, or a missing, unknown or ill-typed field, by name.
        """
        fields = Fields.of(plain(data))
        schema = fields.version(SCHEMA)
        fields.refuse_others(_names(cls))
        return cls(
            key=fields.text("key"),
            model=fields.text("model"),
            explainer=fields.text("explainer"),
            outcome=fields.one_of("outcome", CELL_OUTCOMES),
            images=tuple(
                VisualRow.read(Fields.of(item, f"images[{i}]"))
                for i, item in enumerate(fields.items("images"))
            ),
            error=fields.text("error"),
            passes=PassCount.read(fields.object("passes")),
            seconds=fields.number("seconds"),
            provenance=fields.object("provenance").data,
            schema=schema,
        )


def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))
