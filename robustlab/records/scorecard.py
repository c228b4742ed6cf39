"""One model's line on the leaderboard: a small file that people can review and send in.

``to_dict`` gives the file's exact shape and ``from_dict`` refuses any other, values that no
measurement can have included: a file from a stranger is read by it too.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from robustlab.records.checking import Fields
from robustlab.records.plain import plain

SCORECARD: Final = 1
"""Version of the shape."""
PICTURE: Final = re.compile(r"data:image/(?:png|webp);base64,[A-Za-z0-9+/]+={0,2}")
LARGEST: Final = 200_000  # characters of one picture


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over ``n`` images with its 95 % interval; None where there is nothing to say."""

    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, read: Fields) -> "Estimate":
        read.refuse_others(_names(cls))
        made = cls(
            n=read.whole("n"),
            mean=read.optional_number("mean"),
            low=read.optional_number("low"),
            high=read.optional_number("high"),
        )
        if made.n < 0 or (made.n == 0) != (made.mean is None):
            raise ValueError(f"{read.path('n')}: {made.n} images do not go with this mean")
        if (made.low is None) != (made.high is None) or not made._ordered:
            raise ValueError(f"{read.path('mean')}: not within its own interval")
        return made

    @property
    def _ordered(self) -> bool:
        if self.low is None or self.high is None:
            return True
        slack = 1e-9  # rounding of a mean of equal numbers
        return self.mean is not None and self.low - slack <= self.mean <= self.high + slack


@dataclass(frozen=True, kw_only=True)
class Threat:
    """An attack and the ball that it had to stay in.

    Attributes:
        against: label of the explainer that it was made against; "" where it needs none.
        norm: with the grid where there was one: ``linf``, ``linf/8bit``.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    norm: str
    epsilon: float
    against: str = ""

    @classmethod
    def read(cls, read: Fields) -> "Threat":
        read.refuse_others(_names(cls))
        return cls(
            label=read.text("label"),
            name=read.text("name"),
            options=read.object("options").data,
            norm=read.text("norm"),
            epsilon=read.number("epsilon"),
            against=read.text("against"),
        )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of labelled images predicted right; after an attack, right before and after it.

    Attributes:
        attack: None for the untouched images.
    """

    share: Estimate
    attack: Threat | None = None

    @classmethod
    def read(cls, read: Fields) -> "Accuracy":
        read.refuse_others(_names(cls))
        attack = None if read.get("attack") is None else Threat.read(read.object("attack"))
        return cls(share=_share(read, "share"), attack=attack)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What one metric says of how far maps moved.

    Attributes:
        label: of the metric. options: its settings.
        ones: an image where no iterate kept the prediction has the value of an unmoved map.
        dropped: such images are left out.
        seed_range: highest minus lowest mean of a seed, unmoved maps counted; None for one seed.
        random_sign: the control of equal budget, tries and selection.
        difference: attack minus random sign, paired over images.
        chance: for two unrelated maps.
    """

    label: str
    options: Mapping[str, Any]
    ones: Estimate
    dropped: Estimate
    seed_range: float | None
    random_sign: Estimate
    difference: Estimate
    chance: float | None

    @classmethod
    def read(cls, read: Fields) -> "Stability":
        read.refuse_others(_names(cls))
        return cls(
            label=read.text("label"),
            options=read.object("options").data,
            ones=Estimate.read(read.object("ones")),
            dropped=Estimate.read(read.object("dropped")),
            seed_range=read.optional_number("seed_range"),
            random_sign=Estimate.read(read.object("random_sign")),
            difference=Estimate.read(read.object("difference")),
            chance=read.optional_number("chance"),
        )


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Deletion, lower is more faithful: of the maps, and of pixels in random order beside them.

    Attributes:
        clean, attacked: of the map of the untouched and of the attacked image, on that image.
        clean_random, attacked_random: what random orders score on the same image.
    """

    label: str
    options: Mapping[str, Any]
    clean: Estimate
    clean_random: Estimate
    attacked: Estimate
    attacked_random: Estimate

    @classmethod
    def read(cls, read: Fields) -> "Faithfulness":
        read.refuse_others(_names(cls))
        return cls(
            label=read.text("label"),
            options=read.object("options").data,
            clean=_share(read, "clean"),
            clean_random=_share(read, "clean_random"),
            attacked=_share(read, "attacked"),
            attacked_random=_share(read, "attacked_random"),
        )


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """One explainer under one attack, over the images that were predicted right at first.

    Attributes:
        explainer: its label. name, options: what it is.
        images: predicted right at first, with a value. seeds: that the attack was run with.
        infeasible, kept, changed: images × seeds. "infeasible": no iterate kept the prediction,
            and the image was left as it was.
        left_out: images × seeds that count nowhere: diverged or over budget.
    """

    explainer: str
    name: str
    options: Mapping[str, Any]
    attack: Threat
    images: int
    seeds: int
    infeasible: int
    kept: int
    changed: int
    left_out: int
    intersection: Stability | None = None
    kendall: Stability | None = None
    deletion: Faithfulness | None = None

    @classmethod
    def read(cls, read: Fields) -> "Robustness":
        read.refuse_others(_names(cls))
        return cls(
            explainer=read.text("explainer"),
            name=read.text("name"),
            options=read.object("options").data,
            attack=Threat.read(read.object("attack")),
            images=_count(read, "images"),
            seeds=_count(read, "seeds"),
            infeasible=_count(read, "infeasible"),
            kept=_count(read, "kept"),
            changed=_count(read, "changed"),
            left_out=_count(read, "left_out"),
            intersection=_stability(read, "intersection"),
            kendall=_stability(read, "kendall"),
            deletion=(
                None if read.get("deletion") is None else Faithfulness.read(read.object("deletion"))
            ),
        )


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
        read.refuse_others(_names(cls))
        if not read.text("label"):
            raise ValueError(f"{read.path('label')}: must not be empty")
        images = None if read.get("train_images") is None else _count(read, "train_images")
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
        read.refuse_others(_names(cls))
        return cls(
            protocol=read.one_of("protocol", PROTOCOLS),
            **{name: read.text(name) for name in _TOLD},
            intersection=read.optional_number("intersection"),
            kendall=read.optional_number("kendall"),
            signed=read.flag("signed"),
            size=_count(read, "size"),
            **{name: _picture(read, name) for name in _PICTURES},
        )


PROTOCOLS: Final = ("published", "strict")
_TOLD: Final = ("image_id", "label_name", "explainer", "attack", "outcome", "before", "after")
_PICTURES: Final = ("clean", "map_before", "attacked", "map_after")


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
        read.refuse_others(_names(cls))
        return cls(
            model=ModelCard.read(read.object("model")),
            data=read.text("data"),
            dataset=read.text("dataset"),
            clean=_accuracy(read, "clean"),
            adversarial=_accuracy(read, "adversarial"),
            published=(
                None if read.get("published") is None else Robustness.read(read.object("published"))
            ),
            strict=tuple(Robustness.read(item) for item in _each(read, "strict")),
            notes=read.texts("notes"),
            experiment=read.text("experiment"),
            fingerprint=read.text("fingerprint"),
            commit=read.text("commit"),
            scenes=tuple(Scene.read(item) for item in _each(read, "scenes")),
            schema=schema,
        )


def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _each(read: Fields, key: str) -> list[Fields]:
    place = read.path(key)
    return [Fields.of(item, f"{place}[{i}]") for i, item in enumerate(read.items(key))]


def _count(read: Fields, key: str) -> int:
    value = read.whole(key)
    if value < 0:
        raise ValueError(f"{read.path(key)}: cannot be {value}")
    return value


def _share(read: Fields, key: str) -> Estimate:
    made = Estimate.read(read.object(key))
    if any(v is not None and not 0 <= v <= 1 for v in (made.mean, made.low, made.high)):
        raise ValueError(f"{read.path(key)}: a share lies between 0 and 1")
    return made


def _accuracy(read: Fields, key: str) -> Accuracy | None:
    return None if read.get(key) is None else Accuracy.read(read.object(key))


def _stability(read: Fields, key: str) -> Stability | None:
    return None if read.get(key) is None else Stability.read(read.object(key))


def _picture(read: Fields, key: str) -> str:
    text = read.text(key)
    if len(text) > LARGEST or not PICTURE.fullmatch(text):
        raise ValueError(f"{read.path(key)}: not a data URI of a small PNG or WebP picture")
    return text
