"""The manifest, ``experiment.json``: what was planned and what every label means.

Fields that this version does not know are kept in the file and ignored here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from robustlab.records.checking import Fields
from robustlab.records.plain import plain
from robustlab.records.record import ROLES, SCHEMA, Role

Disturbed = Literal["image", "model", "both", "trained"]
DISTURBED: Final[tuple[Disturbed, ...]] = ("image", "model", "both", "trained")


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One line of the plan: enough to name a cell that has no record yet."""

    key: str
    attack: str
    role: Role
    against: str | None
    epsilon: float
    norm: str
    model: str
    images: int
    seed: int

    @classmethod
    def read(cls, fields: Fields) -> "PlannedCell":
        return cls(
            key=fields.text("key"),
            attack=fields.text("attack"),
            role=fields.one_of("role", ROLES),
            against=fields.optional_text("against"),
            epsilon=fields.number("epsilon"),
            norm=fields.text("norm"),
            model=fields.text("model"),
            images=fields.whole("images"),
            seed=fields.whole("seed"),
        )


@dataclass(frozen=True, kw_only=True)
class PlannedVisual:
    """Images that an explainer of the whole model is to make."""

    key: str
    model: str
    explainer: str
    classes: int

    @classmethod
    def read(cls, fields: Fields) -> "PlannedVisual":
        return cls(
            key=fields.text("key"),
            model=fields.text("model"),
            explainer=fields.text("explainer"),
            classes=fields.whole("classes"),
        )


@dataclass(frozen=True, kw_only=True)
class PlannedTraining:
    """A network that is to be trained before cells can look at it."""

    key: str
    model: str
    attack: str
    against: str
    seed: int

    @classmethod
    def read(cls, fields: Fields) -> "PlannedTraining":
        return cls(
            key=fields.text("key"),
            model=fields.text("model"),
            attack=fields.text("attack"),
            against=fields.text("against"),
            seed=fields.whole("seed"),
        )


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """A metric under its label; a bound of None means that there is none.

    ``of_region``: it looks at one map and a known region, so its value is no drift.
    ``of_model``: it looks at one map and asks the model, so its value is no drift either.
    ``of_map_alone``: it describes one map, and neither end of it is the better one.
    ``of_explainer``: it asks an explainer for further maps, so its value is no drift either.
    """

    name: str
    higher_is_more_stable: bool
    bounds: tuple[float | None, float | None]
    summary: str
    options: Mapping[str, Any]
    of_region: bool = False
    of_model: bool = False
    of_map_alone: bool = False
    of_explainer: bool = False

    @property
    def of_one_map(self) -> bool:
        """Is its value about one image's map, and not about how far two are apart?"""
        return self.of_region or self.of_model or self.of_map_alone or self.of_explainer

    @property
    def perfect(self) -> float | None:
        """The value of a map that did not move: the bound on the stable side.

        Of a metric of one map, the best there is; None where neither end is better.
        """
        if self.of_map_alone:
            return None
        return self.bounds[1] if self.higher_is_more_stable else self.bounds[0]

    @classmethod
    def read(cls, fields: Fields) -> "MetricInfo":
        bounds = fields.items("bounds")
        if len(bounds) != 2:
            raise ValueError(f"{fields.path('bounds')}: expected [lowest, highest]")
        ends = Fields({"lowest": bounds[0], "highest": bounds[1]}, fields.path("bounds"))
        return cls(
            name=fields.text("name"),
            higher_is_more_stable=fields.flag("higher_is_more_stable"),
            bounds=(ends.optional_number("lowest"), ends.optional_number("highest")),
            summary=fields.text("summary"),
            options=_options(fields),
            of_region=_new_flag(fields, "of_region"),
            of_model=_new_flag(fields, "of_model"),
            of_map_alone=_new_flag(fields, "of_map_alone"),
            of_explainer=_new_flag(fields, "of_explainer"),
        )


@dataclass(frozen=True, kw_only=True)
class ExplainerInfo:
    """An explainer under its label, with the post-processing that makes its map."""

    name: str
    options: Mapping[str, Any]
    post: str
    summary: str

    @classmethod
    def read(cls, fields: Fields) -> "ExplainerInfo":
        return cls(
            name=fields.text("name"),
            options=_options(fields),
            post=fields.text("post"),
            summary=fields.text("summary"),
        )


@dataclass(frozen=True, kw_only=True)
class Universe:
    """One combination of a multiverse's choices.

    Attributes:
        choices: option → value. members: explainer → the label of its variant.
    """

    choices: Mapping[str, str]
    members: Mapping[str, str]

    @classmethod
    def read(cls, fields: Fields) -> "Universe":
        choices, members = fields.object("choices"), fields.object("members")
        return cls(
            choices={key: choices.text(key) for key in choices.data},
            members={key: members.text(key) for key in members.data},
        )


@dataclass(frozen=True, kw_only=True)
class AttackInfo:
    """An attack, control or no-op under its label, and what it disturbs.

    ``keeps_maps``: its aim is that a map stays, not that it moves.
    """

    name: str
    options: Mapping[str, Any]
    role: Role
    control_of: str | None
    against: str | None
    summary: str
    disturbs: Disturbed = "image"
    keeps_maps: bool = False

    @classmethod
    def read(cls, fields: Fields) -> "AttackInfo":
        return cls(
            name=fields.text("name"),
            options=_options(fields),
            role=fields.one_of("role", ROLES),
            control_of=fields.optional_text("control_of"),
            against=fields.optional_text("against"),
            summary=fields.text("summary"),
            # records of version 0.1 know no attacks on models
            disturbs=fields.one_of("disturbs", DISTURBED) if "disturbs" in fields.data else "image",
            keeps_maps=fields.flag("keeps_maps") if "keeps_maps" in fields.data else False,
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole experiment as it was planned.

    Attributes:
        fingerprint: hash of the resolved spec; two manifests with one fingerprint give
            the same numbers as long as the files that they name hold the same.
        plan: the cells in the order in which tables list them.
        visuals: images of whole models to be made.
        trainings: networks to be trained.
        left_out: (attack, explainer) pairs without a gradient to follow.
        universes: of a multiverse, who stands for whom under which choices.
        models: labels, or objects that say more about a model.
        primary_metric: the label that headlines and short tables use.
    """

    name: str
    question: str
    fingerprint: str
    spec: Mapping[str, Any]
    plan: tuple[PlannedCell, ...]
    models: tuple[Any, ...]
    metrics: Mapping[str, MetricInfo]
    explainers: Mapping[str, ExplainerInfo]
    attacks: Mapping[str, AttackInfo]
    primary_metric: str
    visuals: tuple[PlannedVisual, ...] = ()
    trainings: tuple[PlannedTraining, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    universes: tuple[Universe, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Manifest":
        """The manifest that ``data`` describes.

        Raises:
            ValueError: another schema, or a missing or ill-typed field, which it names.
        """
        fields = Fields.of(plain(data))
        fields.version(SCHEMA)
        plan = tuple(
            PlannedCell.read(Fields.of(item, f"plan[{i}]"))
            for i, item in enumerate(fields.items("plan"))
        )
        metrics = fields.object("metrics")
        explainers = fields.object("explainers")
        attacks = fields.object("attacks")
        return cls(
            name=fields.text("name"),
            question=fields.text("question"),
            fingerprint=fields.text("fingerprint"),
            spec=fields.object("spec").data,
            plan=plan,
            models=fields.items("models"),
            metrics={name: MetricInfo.read(metrics.object(name)) for name in metrics.data},
            explainers={n: ExplainerInfo.read(explainers.object(n)) for n in explainers.data},
            attacks={name: AttackInfo.read(attacks.object(name)) for name in attacks.data},
            primary_metric=fields.text("primary_metric"),
            visuals=tuple(
                PlannedVisual.read(Fields.of(item, f"visuals[{i}]"))
                for i, item in enumerate(_listed(fields, "visuals"))
            ),
            trainings=tuple(
                PlannedTraining.read(Fields.of(item, f"trainings[{i}]"))
                for i, item in enumerate(_listed(fields, "trainings"))
            ),
            universes=tuple(
                Universe.read(Fields.of(item, f"universes[{i}]"))
                for i, item in enumerate(_listed(fields, "universes"))
            ),
            left_out=tuple((str(pair[0]), str(pair[1])) for pair in _listed(fields, "left_out")),
        )


def _listed(fields: Fields, key: str) -> tuple[Any, ...]:
    return fields.items(key) if key in fields.data else ()


def _new_flag(fields: Fields, key: str) -> bool:
    """False in a file from before there was such a flag."""
    return fields.flag(key) if key in fields.data else False


def _options(fields: Fields) -> Mapping[str, Any]:
    return fields.object("options").data if "options" in fields.data else {}
