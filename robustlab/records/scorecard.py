"""One model's line on the leaderboard: a small file that people can review and send in.

``to_dict`` gives the file's exact shape and ``from_dict`` refuses any other, values that no
measurement can have included: a file from a stranger is read by it too.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from robustlab.records.card_fields import count, each, names, optional
from robustlab.records.checking import Fields
from robustlab.records.plain import plain
from robustlab.records.scores import Accuracy, Robustness

SCORECARD: Final = 1
"""Version of the shape."""
PICTURE: Final = re.compile(r"data:image/(?:png|webp);base64,[A-Za-z0-9+/]+={0,2}")
LARGEST: Final = 200_000  # characters of one picture
PROTOCOLS: Final = ("published", "strict")
_TOLD: Final = ("image_id", "label_name", "explainer", "attack", "outcome", "before", "after")
_PICTURES: Final = ("clean", "map_before", "attacked", "map_after")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the model is, as far as its training record or its card tells.

    Attributes:
        label: its name on the leaderboard. arch: the architecture.
        objective: what its training descended, by name; "" where nobody said.
        settings: of the objective and of the schedule.
        sha256: of the weights.
    """

    label: str
    arch: str = ""
    objective: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    train_images: int | None = None
    minutes: float | None = None
    command: str = ""
    sha256: str = ""

    @classmethod
    def read(cls, read: Fields) -> "ModelCard":
        read.refuse_others(names(cls))
        if not read.text("label"):
            raise ValueError(f"{read.path('label')}: must not be empty")
        images = None if read.get("train_images") is None else count(read, "train_images")
        return cls(
            label=read.text("label"),
            arch=read.text("arch"),
            objective=read.text("objective"),
            settings=read.object("settings").data,
            trained_on=read.text("trained_on"),
            train_images=images,
            minutes=read.optional_number("minutes"),
            command=read.text("command"),
            sha256=read.text("sha256"),
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image before and after an attack, with its maps, as data URIs of PNG or WebP.

    Maps are transparent where they are zero, to lie over their picture.

    Attributes:
        protocol: "published" or "strict".
        signed: the map has values of both signs.
        size: longer side of the pictures, in pixels.
    """

    protocol: str
    image_id: str
    label_name: str
    explainer: str
    attack: str
    outcome: str
    before: str
    after: str
    intersection: float | None
    kendall: float | None
    signed: bool
    size: int
    clean: str
    map_before: str
    attacked: str
    map_after: str

    @classmethod
    def read(cls, read: Fields) -> "Scene":
        read.refuse_others(names(cls))
        return cls(
            protocol=read.one_of("protocol", PROTOCOLS),
            **{name: read.text(name) for name in _TOLD},
            intersection=read.optional_number("intersection"),
            kendall=read.optional_number("kendall"),
            signed=read.flag("signed"),
            size=count(read, "size"),
            **{name: _picture(read, name) for name in _PICTURES},
        )


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """One model on one set of images; a part that was not measured is None or empty.

    Attributes:
        data: label of the images. dataset: their name in the lab.
        clean: natural accuracy. adversarial: accuracy after PGD.
        published: integrated gradients under the protocol of Chen et al. 2019.
        strict: each explainer under the stricter protocol of this lab.
        notes: what a reader must know, such as cells that are missing.
        experiment, fingerprint: of the run behind the numbers. commit: of the lab's code.
    """

    model: ModelCard
    data: str
    dataset: str
    clean: Accuracy | None = None
    adversarial: Accuracy | None = None
    published: Robustness | None = None
    strict: tuple[Robustness, ...] = ()
    notes: tuple[str, ...] = ()
    experiment: str = ""
    fingerprint: str = ""
    commit: str = ""
    scenes: tuple[Scene, ...] = ()
    schema: int = SCORECARD

    @property
    def file_name(self) -> str:
        """``<data>--<model>.json``; what no file name may hold becomes a dash."""
        safe = (re.sub(r"[^A-Za-z0-9_.]+", "-", part) for part in (self.data, self.model.label))
        return "--".join(safe).lstrip(".") + ".json"

    def to_dict(self) -> dict[str, Any]:
        """The file's shape, in the order of its fields; NaN and infinities become None."""
        shape: dict[str, Any] = plain({"schema": self.schema, **asdict(self)})
        return shape

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Scorecard":
        """The card that ``data`` describes.

        Raises:
            ValueError: another schema, a missing, unknown or ill-typed field, or a value that
                cannot be; the message names the field.
        """
        read = Fields.of(plain(data))
        schema = read.version(SCORECARD)
        read.refuse_others(names(cls))
        return cls(
            model=ModelCard.read(read.object("model")),
            data=read.text("data"),
            dataset=read.text("dataset"),
            clean=optional(read, "clean", Accuracy.read),
            adversarial=optional(read, "adversarial", Accuracy.read),
            published=optional(read, "published", Robustness.read),
            strict=tuple(Robustness.read(item) for item in each(read, "strict")),
            notes=read.texts("notes"),
            experiment=read.text("experiment"),
            fingerprint=read.text("fingerprint"),
            commit=read.text("commit"),
            scenes=tuple(Scene.read(item) for item in each(read, "scenes")),
            schema=schema,
        )


def _picture(read: Fields, key: str) -> str:
    text = read.text(key)
    if len(text) > LARGEST or not PICTURE.fullmatch(text):
        raise ValueError(f"{read.path(key)}: not a data URI of a small PNG or WebP picture")
    return text
