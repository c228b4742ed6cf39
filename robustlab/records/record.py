"""One run record: everything a cell measured, as one small file that can be reviewed.

``to_dict`` gives the file's exact shape and ``from_dict`` refuses any other, so a record
that loads is a record that can be trusted to have every field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from robustlab.records.checking import Fields
from robustlab.records.plain import plain

SCHEMA: Final = 1

Role = Literal["attack", "control", "none"]
CellOutcome = Literal["ok", "crashed"]
ImageOutcome = Literal["ok", "infeasible", "diverged", "budget_violated", "collapsed", "crashed"]

ROLES: Final[tuple[Role, ...]] = ("attack", "control", "none")
CELL_OUTCOMES: Final[tuple[CellOutcome, ...]] = ("ok", "crashed")
IMAGE_OUTCOMES: Final[tuple[ImageOutcome, ...]] = (
    "ok",
    "infeasible",
    "diverged",
    "budget_violated",
    "collapsed",
    "crashed",
)

Values = Mapping[str, Mapping[str, float | None]]
"""explainer → metric (or fact) → number, None where it is not defined."""


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """The ball and the pixel box that the attack had to stay in, in pixel units.

    ``bits`` is the depth of file whose pixels were asked for; records from before that could
    be asked do not have it.
    """

    norm: str
    epsilon: float
    lower: float = 0.0
    upper: float = 1.0
    bits: int | None = None

    @property
    def ball(self) -> str:
        """The norm, and the grid where there is one: budgets that differ have other names."""
        return self.norm if self.bits is None else f"{self.norm}/{self.bits}bit"

    @classmethod
    def read(cls, fields: Fields) -> "BudgetSpec":
        fields = Fields({"bits": None, **fields.data}, fields.where)
        fields.refuse_others(_names(cls))
        return cls(
            norm=fields.text("norm"),
            epsilon=fields.number("epsilon"),
            lower=fields.number("lower"),
            upper=fields.number("upper"),
            bits=_optional_whole(fields, "bits"),
        )


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """What one cell was asked to do; all names are labels of the manifest.

    Attributes:
        ids: the images that shared a batch, in order.
        explainers: which maps were measured, in the order of the artefact's arrays.
        control_of: the attack whose floor this is, for role "control".
        against: the explainer that the attack aimed at; None where it needs none.
        target: policy that chose the explained class.
        made_on: the model that the attack looked at; None: the cell's own.
    """

    model: str
    data: str
    ids: tuple[str, ...]
    explainers: tuple[str, ...]
    attack: str
    role: Role
    control_of: str | None
    against: str | None
    budget: BudgetSpec
    target: str
    seed: int
    metrics: tuple[str, ...]
    made_on: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> "CellSpec":
        fields.refuse_others(_names(cls))
        return cls(
            model=fields.text("model"),
            data=fields.text("data"),
            ids=fields.texts("ids"),
            explainers=fields.texts("explainers"),
            attack=fields.text("attack"),
            role=fields.one_of("role", ROLES),
            control_of=fields.optional_text("control_of"),
            against=fields.optional_text("against"),
            budget=BudgetSpec.read(fields.object("budget")),
            target=fields.text("target"),
            seed=fields.whole("seed"),
            metrics=fields.texts("metrics"),
            # records of version 0.1 know no transfer between models
            made_on=fields.optional_text("made_on") if "made_on" in fields.data else None,
        )


@dataclass(frozen=True, kw_only=True)
class SavedRow:
    """A disturbed image after it was saved in one file format and opened again.

    Attributes:
        kept: the prediction of the saved image equals the clean one.
        values: explainer → metric → drift from the clean map.
        survives: explainer → whether saving leaves the prediction as the attack had it and,
            by the cell's first metric of two maps, at least half of the map's movement;
            None where the attack had not moved the map.
    """

    kept: bool
    values: Values
    survives: Mapping[str, bool | None]

    @classmethod
    def read(cls, fields: Fields) -> "SavedRow":
        fields.refuse_others(_names(cls))
        survives = fields.object("survives")
        return cls(
            kept=fields.flag("kept"),
            values=_nested(fields.object("values")),
            survives={name: _optional_flag(survives, name) for name in survives.data},
        )


@dataclass(frozen=True, kw_only=True)
class PassCount:
    """Whole-model passes of one image, summed over the cell's images."""

    forward: int = 0
    backward: int = 0

    @classmethod
    def read(cls, fields: Fields) -> "PassCount":
        fields.refuse_others(_names(cls))
        return cls(forward=fields.whole("forward"), backward=fields.whole("backward"))


RERUN: Final = "rerun "
"""Facts of this name and a metric's label: the metric between a clean map and its own rerun."""

REACHED: Final = "reached"
"""The fact of whether the model now predicts the class that the attack leads to."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One image of a cell: what the model said before and after, and how far maps moved.

    Only a crashed image may leave out the rest; there is nothing to say about it.

    Attributes:
        label: true class, -1 where unknown.
        kept: the prediction after the attack equals the clean one.
        radius: distance of the attacked image from the clean one, in the budget's norm.
        outcome: "infeasible" means that no iterate kept the prediction, so that the image
            was left unchanged and its values are those of an unmoved map; "collapsed" that a
            manipulated model has lost its task.
        values: explainer → metric → drift. chance: the same for two unrelated maps.
        facts: explainer → anything else that was measured on the way.
        saved: file format → what is left of the disturbance in a file of that format.
        cautions: why the attack itself says that its result must not be trusted blindly.
    """

    id: str
    label: int = -1
    label_name: str = ""
    prediction: int | None = None
    prediction_name: str = ""
    confidence: float | None = None
    prediction_after: int | None = None
    prediction_after_name: str = ""
    confidence_after: float | None = None
    target: int | None = None
    target_name: str = ""
    kept: bool | None = None
    radius: float | None = None
    outcome: ImageOutcome = "crashed"
    values: Values = field(default_factory=dict)
    chance: Values = field(default_factory=dict)
    facts: Values = field(default_factory=dict)
    saved: Mapping[str, SavedRow] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> "ImageRow":
        fields.refuse_others(_names(cls))
        outcome = fields.one_of("outcome", IMAGE_OUTCOMES)
        if outcome == "crashed":
            blank = {key: value for key, value in vars(cls(id="")).items() if key != "id"}
            fields = Fields({**blank, **fields.data}, fields.where)
        whole = _optional_whole if outcome == "crashed" else Fields.whole
        flag = _optional_flag if outcome == "crashed" else Fields.flag
        return cls(
            id=fields.text("id"),
            label=fields.whole("label"),
            label_name=fields.text("label_name"),
            prediction=whole(fields, "prediction"),
            prediction_name=fields.text("prediction_name"),
            confidence=fields.optional_number("confidence"),
            prediction_after=whole(fields, "prediction_after"),
            prediction_after_name=fields.text("prediction_after_name"),
            confidence_after=fields.optional_number("confidence_after"),
            target=whole(fields, "target"),
            target_name=fields.text("target_name"),
            kept=flag(fields, "kept"),
            radius=fields.optional_number("radius"),
            outcome=outcome,
            values=_nested(fields.object("values")),
            chance=_nested(fields.object("chance")),
            facts=_nested(fields.object("facts")),
            # neither is in records of version 0.1
            saved=_saved(fields.object("saved")) if "saved" in fields.data else {},
            cautions=fields.texts("cautions") if "cautions" in fields.data else (),
        )


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One cell's result, or its failure.

    Attributes:
        error: what went wrong, for outcome "crashed".
        path: where the attack's gradients came from; "" if it has none.
        seconds: wall time. It never enters a table, so tables can be compared byte by byte.
        attack_seconds: of these, what the attack took to propose its images.
        provenance: versions, device, commit: whatever helps to run it again.
    """

    key: str
    cell: CellSpec
    outcome: CellOutcome
    images: tuple[ImageRow, ...]
    error: str = ""
    passes: PassCount = field(default_factory=PassCount)
    path: str = ""
    seconds: float = 0.0
    attack_seconds: float = 0.0
    cautions: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def crashed(
        cls,
        key: str,
        cell: CellSpec,
        error: str,
        *,
        seconds: float = 0.0,
        provenance: Mapping[str, Any] | None = None,
    ) -> "RunRecord":
        """A failed cell as visible rows: every image, explainer and metric without a value."""
        return cls(
            key=key,
            cell=cell,
            outcome="crashed",
            images=tuple(ImageRow(id=name) for name in cell.ids),
            error=error,
            seconds=seconds,
            provenance=provenance or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """The file's shape; NaN and infinities become None."""
        shape: dict[str, Any] = plain({"schema": self.schema, **asdict(self)})
        return shape

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunRecord":
        """The record that ``data`` describes.

        Raises:
            ValueError: another schema, a missing, unknown or ill-typed field, or images
                that are not the cell's; the message names the field.
        """
        fields = Fields.of(plain(data))
        schema = fields.version(SCHEMA)
        fields.refuse_others(_names(cls))
        record = cls(
            key=fields.text("key"),
            cell=CellSpec.read(fields.object("cell")),
            outcome=fields.one_of("outcome", CELL_OUTCOMES),
            error=fields.text("error"),
            images=tuple(
                ImageRow.read(Fields.of(item, f"images[{i}]"))
                for i, item in enumerate(fields.items("images"))
            ),
            passes=PassCount.read(fields.object("passes")),
            path=fields.text("path"),
            seconds=fields.number("seconds"),
            attack_seconds=(
                fields.number("attack_seconds") if "attack_seconds" in fields.data else 0.0
            ),
            cautions=fields.texts("cautions"),
            provenance=fields.object("provenance").data,
            schema=schema,
        )
        record._check_images()
        return record

    def _check_images(self) -> None:
        ids = tuple(image.id for image in self.images)
        if ids != self.cell.ids:
            raise ValueError(f"images: ids {ids} are not those of the cell, {self.cell.ids}")
        for i, image in enumerate(self.images):
            saved = [(f"saved.{name}.values", row.values) for name, row in image.saved.items()]
            for name, table in (("values", image.values), ("chance", image.chance), *saved):
                _check_known(f"images[{i}].{name}", table, self.cell.explainers)
                for explainer, inner in table.items():
                    _check_known(f"images[{i}].{name}.{explainer}", inner, self.cell.metrics)


def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _check_known(where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"{where}.{name}: not in this cell, which has {', '.join(known)}")


def _nested(fields: Fields) -> dict[str, dict[str, float | None]]:
    return {name: fields.object(name).numbers() for name in fields.data}


def _saved(fields: Fields) -> dict[str, SavedRow]:
    return {name: SavedRow.read(fields.object(name)) for name in fields.data}


def _optional_whole(fields: Fields, key: str) -> int | None:
    return None if fields.get(key) is None else fields.whole(key)


def _optional_flag(fields: Fields, key: str) -> bool | None:
    return None if fields.get(key) is None else fields.flag(key)
