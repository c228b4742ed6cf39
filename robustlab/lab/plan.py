"""From a spec to cells: pure, duplicate-free and in a fixed order.

A cell is one (model, chunk of images, attack made against one explainer, budget, seed) and
the explainers that are measured under it. Its key is a hash of everything that its numbers
depend on, the contents of the user's own files included, so the same key always means the
same numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustlab import metrics
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.saving import FileFormat
from robustlab.core.tables import options_of
from robustlab.core.types import Metric, RegionMetric, Training
from robustlab.data import Dataset
from robustlab.lab.spec import ExperimentSpec
from robustlab.lab.waging import (
    Measured,
    Waged,
    aims,
    all_measured,
    all_waged,
    budgets_of,
    left_out,
    located,
)
from robustlab.models.weight_files import weights_revision

CELL_SCHEMA = 2


@dataclass(frozen=True)
class MadeOn:
    """The model that an attack looks at, where it is not the one that it disturbs."""

    model: str
    model_options: Mapping[str, Any]
    model_label: str
    model_revision: str


@dataclass(frozen=True)
class Cell:
    """One unit of work; everything it needs to run in another process.

    ``place`` is the key without the contents of files: what the experiment calls this cell,
    whatever its pictures and weights have become. The revisions are those of the model's
    weights file and of all planned pictures; empty where neither is the user's own.
    """

    key: str
    place: str
    model: str
    model_options: Mapping[str, Any]
    model_label: str
    model_revision: str
    data: str
    data_options: Mapping[str, Any]
    data_label: str
    data_revision: str
    ids: tuple[str, ...]
    follower: str | None  # the image after the last, whose map an imitation gives to the last
    waged: Waged
    against: Measured | None
    made_on: MadeOn | None
    measured: tuple[Measured, ...]
    budget: Budget
    seed: int
    metrics: Mapping[str, Metric | RegionMetric]
    device: str
    saving: tuple[FileFormat, ...]
    training: str  # key of the network that it looks at; "" for the model itself
    keep: int  # how many of its first images leave pictures for the gallery
    cost: float  # estimated gradient passes, for the progress bar

    @property
    def title(self) -> str:
        return f"{self.waged.label} on {', '.join(self.ids)}"


@dataclass(frozen=True)
class Trained:
    """One unit of work before all cells that look at it: a network that an attack trains."""

    key: str
    place: str
    model: str
    model_options: Mapping[str, Any]
    model_label: str
    model_revision: str
    waged: Waged
    against: Measured
    seed: int
    device: str
    cost: float

    @property
    def title(self) -> str:
        return f"training of {self.waged.label} against {self.against.label}"


@dataclass(frozen=True)
class Visual:
    """One unit of work for an explainer that makes images: some classes of one model.

    Of the data only the shape of an image is used.
    """

    key: str
    place: str
    model: str
    model_options: Mapping[str, Any]
    model_label: str
    model_revision: str
    data: str
    data_options: Mapping[str, Any]
    data_revision: str
    shaped_like: str  # id of an image; only its shape counts
    measured: Measured
    classes: tuple[int, ...]
    device: str
    cost: float

    @property
    def title(self) -> str:
        return f"{self.measured.label} of {self.model_label}"


@dataclass(frozen=True)
class Plan:
    """All cells of an experiment, with the parts that its manifest describes.

    ``fingerprint`` says which experiment it is. Contents of files are no part of it: a folder
    of results goes on with a changed picture, and only the cells that show it are new.
    ``left_out`` holds (attack, explainer) where "each" found no gradient to follow.
    """

    spec: ExperimentSpec
    trainings: tuple[Trained, ...]
    cells: tuple[Cell, ...]
    visuals: tuple[Visual, ...]
    left_out: tuple[tuple[str, str], ...]
    measured: tuple[Measured, ...]
    waged: tuple[Waged, ...]
    metrics: Mapping[str, Metric | RegionMetric]
    fingerprint: str


@dataclass(frozen=True)
class _Chunk:
    """Images that are worked on together, the one after them, and hashes of the user's own."""

    ids: tuple[str, ...]
    follower: str | None
    pictures: str
    following_picture: str


@dataclass(frozen=True)
class _Files:
    """Hashes of the user's own files: weights by the model's label, and all pictures."""

    weights: Mapping[str, str]
    all_pictures: str


def make_plan(spec: ExperimentSpec, dataset: Dataset, *, device: str = "cpu") -> Plan:
    """Cross models, seeds, attacks, budgets and chunks.

    Raises:
        InvalidInput: an unknown or ill-configured component, named by its place in the spec,
            or a picture that cannot be read.
    """
    everyone = all_measured(spec)
    measured = tuple(m for m in everyone if m.explainer.about.scope == "local")
    makers = tuple(m for m in everyone if m.explainer.about.scope == "global")
    chosen = {
        choice.shown: located(
            f"metrics.{i}",
            lambda c=choice: metrics.build(c.name, **c.options),
        )
        for i, choice in enumerate(spec.metrics)
    }
    waged = all_waged(spec, measured)
    on = {m.shown: _of_model(m.shown, measured) for m in spec.models}
    ids = dataset.ids[: spec.images]
    chunks = _chunks(dataset, ids, spec.chunk)
    pictured = frozenset(ids[: spec.gallery.images])
    files = _Files(
        weights={m.shown: weights_revision(m.options.get("weights")) for m in spec.models},
        all_pictures=_revision(dataset, ids),
    )
    made = [
        (model, seed, w, against, _trained(w, against, model, seed, device, files))
        for model in spec.models
        for seed in spec.seeds
        for w in waged
        if w.models is None or model.shown in w.models
        for against in aims(w, on[model.shown])
    ]
    trainings: dict[str, Trained] = {}
    for *_, trained in made:
        if trained is not None:  # one training may serve several labels: it has the first one's
            trainings.setdefault(trained.key, trained)
    cells = [
        _cell(
            spec,
            chunk,
            w,
            against,
            on[model.shown],
            budget,
            seed,
            model,
            chosen,
            device,
            pictured,
            files,
            trained.key if trained else "",
        )
        for model, seed, w, against, trained in made
        for budget in budgets_of(spec, w)
        for chunk in chunks
    ]
    unique = {cell.key: cell for cell in cells}
    visuals = [
        _visual(spec, maker, model, ids[0], device, files)
        for model in spec.models
        for maker in _of_model(model.shown, makers, needed=False)
    ]
    places = [*(cell.place for cell in unique.values()), *(visual.place for visual in visuals)]
    return Plan(
        spec=spec,
        trainings=tuple(trainings.values()),
        cells=tuple(unique.values()),
        visuals=tuple(visuals),
        left_out=left_out(waged, measured),
        measured=everyone,
        waged=waged,
        metrics=chosen,
        fingerprint=_digest([*places, [m.label for m in everyone]]),
    )


def _chunks(dataset: Dataset, ids: tuple[str, ...], size: int) -> tuple[_Chunk, ...]:
    found = []
    for i in range(0, len(ids), size):
        part = ids[i : i + size]
        follower = ids[i + size] if i + size < len(ids) else ids[0]
        found.append(
            _Chunk(
                ids=part,
                follower=follower if len(ids) > 1 else None,
                pictures=_revision(dataset, part),
                following_picture=_revision(dataset, (follower,)),
            )
        )
    return tuple(found)


def _revision(dataset: Dataset, ids: tuple[str, ...]) -> str:
    return located("data", lambda: dataset.revision(ids))


def _of_model(
    label: str, measured: Sequence[Measured], *, needed: bool = True
) -> tuple[Measured, ...]:
    found = tuple(m for m in measured if m.models is None or label in m.models)
    if needed and not found:
        raise InvalidInput(
            "explainers", f"none makes a map of {label!r}", "name one that explains images"
        )
    return found


def _cell(
    spec: ExperimentSpec,
    chunk: _Chunk,
    waged: Waged,
    against: Measured | None,
    everyone: tuple[Measured, ...],
    budget: Budget,
    seed: int,
    model: Any,
    chosen: Mapping[str, Metric | RegionMetric],
    device: str,
    pictured: frozenset[str],
    files: _Files,
    training: str,
) -> Cell:
    measured = (against,) if against is not None and waged.alone else everyone
    made_on = _made_on(spec, waged, model, files)
    follower = chunk.follower if waged.imitates else None
    # a model attack leaves the images alone, and a control is there to be compared with
    saving = spec.saving if waged.disturbs == "image" and waged.role != "control" else ()
    numbers = {
        "schema": CELL_SCHEMA,
        "model": [model.shown, model.name, model.options],
        "data": [spec.data.shown, spec.data.name, spec.data.options],
        "ids": chunk.ids,
        **({} if follower is None else {"follower": follower}),
        **({"training": training} if training else {}),
        "attack": waged.card(),
        "role": [waged.role, waged.label, waged.control_of],
        "against": against and [against.label, against.card()],
        "made_on": made_on and [made_on.model, made_on.model_options],
        "measured": [[m.label, m.card()] for m in measured],
        "budget": [
            budget.norm,
            budget.epsilon,
            budget.lower,
            budget.upper,
            *([] if budget.bits is None else [budget.bits]),  # keys from before it existed hold
        ],
        "seed": seed,
        "saving": saving,
        "metrics": [[label, metric.name, options_of(metric)] for label, metric in chosen.items()],
        "device": device.split(":")[0],
    }
    contents = {
        "model": files.weights[model.shown],
        "made_on": made_on.model_revision if made_on else "",
        "data": chunk.pictures,
        "follower": chunk.following_picture if follower else "",
        "components": _weights_in(waged.card(), *(m.card() for m in measured)),
    }
    owned = {name: content for name, content in contents.items() if content}
    shown = spec.gallery.epsilon is None or budget.epsilon in spec.gallery.epsilon
    shown = (shown or waged.role == "none") and seed == spec.seeds[0]
    return Cell(
        # what ships has the same key on every machine
        key=_digest({**numbers, "files": owned} if owned else numbers),
        place=_digest(numbers),
        model=model.name,
        model_options=model.options,
        model_label=model.shown,
        model_revision=files.weights[model.shown],
        data=spec.data.name,
        data_options=spec.data.options,
        data_label=spec.data.shown,
        data_revision=files.all_pictures,
        ids=chunk.ids,
        follower=follower,
        waged=waged,
        against=against,
        made_on=made_on,
        measured=measured,
        budget=budget,
        seed=seed,
        metrics=chosen,
        device=device,
        saving=saving,
        training=training,
        keep=sum(i in pictured for i in chunk.ids) if shown else 0,
        cost=len(chunk.ids)
        * (
            sum(m.explainer.cost().gradient for m in measured) * (1 + len(saving))
            + _effort(waged, against)
        ),
    )


def _trained(
    waged: Waged, against: Measured | None, model: Any, seed: int, device: str, files: _Files
) -> Trained | None:
    """The network that an attack trains; None for any other attack."""
    if not isinstance(waged.attack, Training) or against is None:
        return None
    numbers = {
        "schema": CELL_SCHEMA,
        "model": [model.shown, model.name, model.options],
        "attack": {k: v for k, v in waged.card().items() if k not in waged.attack.apart},
        "against": [against.label, against.card()],
        "seed": seed,
        "device": device.split(":")[0],
    }
    weights = files.weights[model.shown]
    pictures = located("attacks", waged.attack.revision)
    files_read = weights + pictures + _weights_in(waged.card(), against.card())
    return Trained(
        key=_digest({**numbers, "files": files_read} if files_read else numbers),
        place=_digest(numbers),
        model=model.name,
        model_options=model.options,
        model_label=model.shown,
        model_revision=weights,
        waged=waged,
        against=against,
        seed=seed,
        device=device,
        cost=_training_cost(waged.attack, against),
    )


def _training_cost(attack: Training, against: Measured) -> float:
    """Gradient passes, roughly; how many images there are is not known before they are read."""
    images = (getattr(attack, "images", None) or 4000) * (1 + getattr(attack, "copies", 0))
    return float(images * getattr(attack, "epochs", 1) * 3 * against.explainer.cost().gradient)


def _made_on(spec: ExperimentSpec, waged: Waged, model: Any, files: _Files) -> MadeOn | None:
    """The other model that the attack looks at; None where it looks at the one it disturbs."""
    if waged.made_on in (None, model.shown):
        return None
    other = next(m for m in spec.models if m.shown == waged.made_on)
    return MadeOn(other.name, other.options, other.shown, files.weights[other.shown])


def _visual(
    spec: ExperimentSpec, maker: Measured, model: Any, image_id: str, device: str, files: _Files
) -> Visual:
    numbers = {
        "schema": CELL_SCHEMA,
        "model": [model.shown, model.name, model.options],
        "data": [spec.data.shown, spec.data.name, spec.data.options],
        "made_by": [maker.label, maker.card()],
        "classes": spec.classes,
        "device": device.split(":")[0],
    }
    weights = files.weights[model.shown]
    files_read = weights + _weights_in(maker.card())
    return Visual(
        key=_digest({**numbers, "files": files_read} if files_read else numbers),
        place=_digest(numbers),
        model=model.name,
        model_options=model.options,
        model_label=model.shown,
        model_revision=weights,
        data=spec.data.name,
        data_options=spec.data.options,
        data_revision=files.all_pictures,
        shaped_like=image_id,
        measured=maker,
        classes=spec.classes,
        device=device,
        cost=len(spec.classes) * maker.explainer.cost().gradient,
    )


def _weights_in(*cards: Mapping[str, Any]) -> str:
    """Hashes of the weight files that options of attacks and explainers name."""
    return "".join(weights_revision(value) for card in cards for value in card.values())


def _effort(waged: Waged, against: Measured | None) -> float:
    """Gradient passes per image that the attack itself takes, roughly: for the progress bar."""
    steps = getattr(waged.attack, "steps", getattr(waged.attack, "tries", 1))
    if against is None:
        return float(steps if waged.role == "attack" else 0)
    one = against.explainer.cost().gradient
    queries = getattr(waged.attack, "queries", None)
    if waged.role == "control" or queries is not None:
        return float((queries or steps) * (one + 0.5))
    factor = 3.0 if waged.attack.gradient_path(against.explainer) == "hessian_vector" else 5.0
    return float(steps * (factor * one + 0.5))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
