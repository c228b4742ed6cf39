"""The experiment file: what a YAML may say, checked before anything runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from robustlab.core.budget import Budget, parse_number
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.judge import Named
from robustlab.core.saving import FORMATS, FileFormat
from robustlab.data import what_is

# YAML reads yes and on as true, which would silently become 1
Whole = Annotated[int, Field(strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(BaseModel):
    """A component by name, with its options beside it: ``{name: lrp, composite: ...}``.

    ``label`` is how it appears in tables; needed where one name is used twice.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def shown(self) -> str:
        return self.label or self.name


class DataChoice(Choice):
    """Data by name, or a folder of pictures by its path, which is ``image_folder``."""

    @model_validator(mode="before")
    @classmethod
    def _of_folder(cls, value: Any) -> Any:
        raw = {"name": value} if isinstance(value, str) else value
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            return value
        name, options = what_is(raw["name"], {k: v for k, v in raw.items() if k != "name"})
        return {"name": name, **options}


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


RANDOM: Final = "random"
"""In place of an explainer: an order of pixels that knows nothing."""


class Removal(_Strict):
    """Pixels that are taken from every image of a training, held-out ones included.

    Attributes:
        explainer: whose map orders the pixels, or "random".
        model: the network that is explained, by name.
        share: of the pixels that go, the most important first.
        alone: nothing is left but where they were, 1 there and 0 elsewhere.
    """

    explainer: Choice
    model: Choice
    share: Finite = Field(ge=0, lt=1)
    alone: bool = False


class Course(_Strict):
    """How a model of the experiment is trained before anything looks at it.

    Attributes:
        objective: what is descended; see ``robustlab list training``.
        data: the training images; of data with splits its "train", else four of every five.
        images, held_out: how many of either part at most; None takes all.
        start: label of another trained model of the experiment, whose weights it goes on from.
        epochs, batch_size, learning_rate, decay, seed: of Adam, and of the order of images.
        weights: how they are kept. float16 takes half the room; what is measured is what is kept.
        remove: pixels that an explanation finds important are taken away first; see ``roar``.
    """

    objective: Choice = Choice(name="natural")
    data: DataChoice
    images: Whole | None = Field(default=None, ge=1)
    held_out: Whole | None = Field(default=None, ge=1)
    start: str | None = None
    epochs: Whole = Field(default=5, ge=1)
    batch_size: Whole = Field(default=50, ge=1)
    learning_rate: Finite = Field(default=1e-3, gt=0)
    decay: Literal["none", "cosine"] = "cosine"
    seed: Whole = 0
    weights: Literal["float32", "float16"] = "float32"
    remove: Removal | None = None


class ModelChoice(Choice):
    """A model; with ``train`` it is trained first, from the weights that its options name."""

    train: Course | None = None


class ExplainerChoice(Choice):
    """An explainer; ``target`` overrides the experiment's policy for it alone, and ``models``
    names the models (by label) that it is for: not every network has what a method reads.
    """

    target: Named | Whole | None = None
    models: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None


class AttackChoice(Choice):
    """An attack. ``against`` names the explainer (by label) that an attack on explanations
    aims at, and then every explainer is measured: what one attack does to the others.
    "each" makes the attack against each explainer and measures that one alone, and so does a
    list for the explainers in it. An attack on the prediction may have an option ``against``
    of its own: whose class is left. ``models`` names those that it disturbs. ``made_on``
    names a model that the attack looks at instead: its images are then judged on the others.
    ``seeds`` override those of the experiment: an attack that draws nothing needs one.
    """

    against: str | tuple[str, ...] = "each"
    seeds: tuple[Whole, ...] | None = Field(default=None, min_length=1)
    models: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None
    made_on: str | None = None


def _radii(value: Any) -> list[float]:
    """One number or several; fractions may be text."""
    values = value if isinstance(value, list | tuple) else [value]
    return [parse_number("epsilon", v) for v in values]


class BudgetChoice(_Strict):
    """One or several radii of one norm; fractions such as 8/255 may be written as text.

    ``patch``: shares of the picture's area. ``bits: 8`` asks for pixels of an 8-bit file.
    """

    norm: Literal["linf", "l2", "patch"] = "linf"
    epsilon: Annotated[tuple[Finite, ...], BeforeValidator(_radii), Field(min_length=1)]
    bits: Literal[8] | None = None

    def budgets(self) -> list[Budget]:
        return [Budget(self.norm, epsilon, bits=self.bits) for epsilon in self.epsilon]


class Gallery(_Strict):
    """How many images per cell leave pictures behind, and at which radii (default: all)."""

    images: Whole = Field(default=4, ge=0)
    epsilon: Annotated[
        tuple[Finite, ...] | None, BeforeValidator(lambda v: v if v is None else _radii(v))
    ] = None


class Roar(_Strict):
    """Networks that are trained on images without their most important pixels (Hooker 2019).

    Every explainer, a random order and the whole images, at every share and seed.

    Attributes:
        explained: the network whose explanations order the pixels, by name.
        network: what is trained, by name; its ``train`` adds to the experiment's ``training``.
        explainers: by whose maps.
        shares: of the pixels that go. seeds: of each training.
        holes: shares at which networks also see nothing but which pixels are gone. What those
            know of the class, an explanation has told through the shape of what it removes.
    """

    explained: Choice
    network: ModelChoice
    explainers: tuple[Choice, ...] = Field(min_length=1)
    shares: tuple[Finite, ...] = Field(default=(0.1, 0.3, 0.5, 0.7, 0.9), min_length=1)
    seeds: tuple[Whole, ...] = Field(default=(0, 1, 2), min_length=1)
    holes: tuple[Finite, ...] = ()

    def models(self) -> list[ModelChoice]:
        """The networks, those of one explainer together."""
        orders = [(order.shown, order) for order in (*self.explainers, Choice(name=RANDOM))]
        whole = [self._model(f"whole, {seed}", seed, None) for seed in self.seeds]
        seen = [(share, "", False) for share in self.shares]
        seen += [(share, " alone", True) for share in self.holes]
        return whole + [
            self._model(
                f"{label} {share:.0%}{words}, {seed}",
                seed,
                Removal(explainer=order, model=self.explained, share=share, alone=alone),
            )
            for label, order in orders
            for share, words, alone in seen
            for seed in self.seeds
        ]

    def _model(self, label: str, seed: int, remove: Removal | None) -> ModelChoice:
        course = self.network.train
        assert course is not None  # noqa: S101
        taught = course.model_copy(update={"seed": seed, "remove": remove})
        return self.network.model_copy(update={"label": label, "train": taught})


class ExperimentSpec(_Strict):
    """A whole experiment.

    Attributes:
        question: what it wants to know, in a sentence.
        training: what the models with ``train`` have in common, the keys of `Course`; a model's
            own ``train`` says the rest: an objective's name, or keys that come before these.
        images: use the first so many images of the data; all by default.
        chunk: images that share a batch. It belongs to the cell: rounding differs with the
            batch, and iterative sign attacks amplify it.
        budgets: for attacks on images; an experiment that only disturbs models needs none.
        target: whose class is explained: the clean prediction, the class after it (runner_up),
            the label, the prediction at hand (current), or a fixed class index.
        roar: networks to be trained without the pixels that explanations find important.
        multiverse: option of explainers, or ``target`` → values, "own" being an explainer's own.
            Every explainer is measured in every combination, and the report says what of its
            ranking depends on them. Metrics, attacks and budgets are choices by themselves.
        saving: file formats in which disturbed images are saved and judged again.
        classes: what explainers that make images, instead of maps, make images of.
        smoke: overrides, by dotted path, that make it run in seconds.
    """

    name: str
    question: str
    models: tuple[ModelChoice, ...] = Field(min_length=1)
    training: dict[str, Any] = Field(default_factory=dict)
    data: DataChoice
    images: Whole | None = Field(default=None, ge=1)
    chunk: Whole = Field(default=4, ge=1)
    explainers: tuple[ExplainerChoice, ...] = Field(min_length=1)
    attacks: tuple[AttackChoice, ...] = Field(min_length=1)
    budgets: tuple[BudgetChoice, ...] = ()
    metrics: tuple[Choice, ...] = Field(min_length=1)
    target: Named | Whole = "prediction"
    classes: tuple[Whole, ...] = Field(default=tuple(range(10)), min_length=1)
    seeds: tuple[Whole, ...] = (0,)
    roar: Roar | None = None
    multiverse: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    saving: tuple[FileFormat, ...] = tuple(FORMATS)
    gallery: Gallery = Gallery()
    smoke: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _courses(cls, raw: Any) -> Any:
        """Each model's own ``train`` over what all trainings have in common."""
        common, models = raw.get("training") or {}, raw.get("models")
        roar = raw.get("roar")
        if isinstance(common, dict) and isinstance(roar, dict):
            network = roar.get("network")
            network = {"name": network} if isinstance(network, str) else network
            if isinstance(network, dict):
                network = _with_course({"train": {}, **network}, common)
            raw = {**raw, "roar": {**roar, "network": network}}
        if not isinstance(common, dict) or not isinstance(models, list | tuple):
            return raw
        return {**raw, "models": [_with_course(model, common) for model in models]}

    @model_validator(mode="after")
    def _starts(self) -> "ExperimentSpec":
        """What a training goes on from comes before it in the list."""
        trained: list[str] = []
        for i, model in enumerate(self.models):
            start = model.train.start if model.train else None
            if start is not None and start not in trained:
                raise ValueError(
                    f"models.{i}.train.start: no model before it is trained and labelled {start!r}"
                )
            trained += [model.shown] if model.train else []
        return self

    @model_validator(mode="after")
    def _distinct(self) -> "ExperimentSpec":
        for field in ("models", "explainers", "attacks", "metrics"):
            labels = [choice.shown for choice in getattr(self, field)]
            for label in labels:
                if labels.count(label) > 1:
                    raise ValueError(f"{field}: {label!r} appears twice; give each a `label`")
        _check_seeds("seeds", self.seeds)
        for i, attack in enumerate(self.attacks):
            if attack.seeds is not None:
                _check_seeds(f"attacks.{i}.seeds", attack.seeds)
        if len(set(self.classes)) != len(self.classes) or min(self.classes) < 0:
            raise ValueError("classes: must be distinct and not negative")
        return self


def _check_seeds(where: str, seeds: Sequence[int]) -> None:
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ValueError(f"{where}: must be distinct and at least one")


def _with_course(model: Any, common: Mapping[str, Any]) -> Any:
    if not isinstance(model, dict) or model.get("train") is None:
        return model
    own = model["train"]
    own = {"objective": own} if isinstance(own, str) else own
    return {**model, "train": {**common, **own} if isinstance(own, dict) else own}


def load_spec(path: Path, *, overrides: Sequence[str] = (), smoke: bool = False) -> ExperimentSpec:
    """Read, override, then validate an experiment file.

    ``smoke`` applies the file's own ``smoke:`` overrides first, then ``overrides``
    (``key=value``, dotted paths such as ``attacks.0.steps=50``, values in YAML).

    Raises:
        InvalidInput: not YAML, an unknown or ill-typed key (named, with the nearest
            spelling), or an override of something that is not there.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(path), f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(
            str(path), f"is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise InvalidInput(str(path), "expected keys and values at the top level")
    raw.setdefault("name", path.stem)
    chosen = raw.get("smoke") or {} if smoke else {}
    if not isinstance(chosen, dict):
        raise InvalidInput(f"{path}: smoke", f"expected keys and values, got {chosen!r}")
    for key, value in dict(chosen).items():
        _override(raw, str(key), value)
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            raise InvalidInput("--set", f"{text!r} has no '='", "write --set chunk=8")
        try:
            _override(raw, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise InvalidInput("--set", f"the value of {text!r} is not valid YAML") from None
    return parse_spec(raw, str(path))


def parse_spec(raw: Mapping[str, Any], where: str = "spec") -> ExperimentSpec:
    """Validate plain values; the error names the key as it stands in the file."""
    try:
        return ExperimentSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        if first["type"] == "extra_forbidden":
            known = _known_keys(first["loc"][:-1])
            raise InvalidInput(
                f"{where}: {path}", "there is no such key", nearest(str(first["loc"][-1]), known)
            ) from None
        cause = (first.get("ctx") or {}).get("error")
        if isinstance(cause, InvalidInput):
            raise InvalidInput(f"{where}: {path}", cause.problem, cause.remedy) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise InvalidInput(f"{where}: {path}", "is missing") from None
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise InvalidInput(f"{where}: {path}" if path else where, f"{message}{got}") from None


def _known_keys(location: Sequence[Any]) -> list[str]:
    inside: dict[str, type[BaseModel]] = {
        "budgets": BudgetChoice,
        "gallery": Gallery,
        "train": Course,
    }
    owner: type[BaseModel] = ExperimentSpec
    for part in location:
        owner = inside.get(str(part), owner)
    return list(owner.model_fields)


def _override(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.0.b`` inside nested dicts and lists; lists must already be long enough."""
    parts = key.split(".")
    here: Any = raw
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        done = ".".join(parts[: i + 1])
        if isinstance(here, list):
            if not re.fullmatch("-?[0-9]+", part) or not -len(here) <= int(part) < len(here):
                raise InvalidInput(done, f"the list has {len(here)} entries", "count from 0")
            if last:
                here[int(part)] = value
            elif isinstance(here[int(part)], str):
                here[int(part)] = {"name": here[int(part)]}
            here = here[int(part)]
        elif isinstance(here, dict):
            if last:
                here[part] = value
            elif isinstance(here.get(part), str):
                here[part] = {"name": here[part]}
            here = here.setdefault(part, {})
        else:
            raise InvalidInput(done, f"{'.'.join(parts[:i])!r} holds {here!r}, nothing inside it")
