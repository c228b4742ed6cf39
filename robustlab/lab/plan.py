"""From a spec to units of work: pure, duplicate-free and in a fixed order.

A cell is one (model, chunk of images, attack made against one explainer, budget, seed) and
the explainers that are measured under it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustlab import metrics
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.core.types import AnyMetric, ExplainerMetric
from robustlab.data import Dataset
from robustlab.lab.courses import fine_tuned, trained_models
from robustlab.lab.keys import digest, key_and_place, weights_in
from robustlab.lab.spec import ExperimentSpec
from robustlab.lab.units import Cell, FineTuned, ModelSource, Plan, Trained, Visual
from robustlab.lab.universes import expanded
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


@dataclass(frozen=True)
class _Chunk:
    """Images that are worked on together, the one after them, and hashes of the user's own."""

    ids: tuple[str, ...]
    follower: str | None
    pictures: str
    following_picture: str


@dataclass(frozen=True)
class _Frame:
    """What the units of one plan have in common.

    Attributes:
        models: by label. pictured: ids that leave pictures for the gallery.
        all_pictures: hash of the user's own.
    """

    spec: ExperimentSpec
    device: str
    models: Mapping[str, ModelSource]
    metrics: Mapping[str, AnyMetric]
    pictured: frozenset[str]
    all_pictures: str


@dataclass(frozen=True)
class _Bout:
    """One attack on one model, against one explainer or none, with what is measured under it."""

    model: ModelSource
    seed: int
    waged: Waged
    against: Measured | None
    measured: tuple[Measured, ...]
    tuned: FineTuned | None


def make_plan(spec: ExperimentSpec, dataset: Dataset, *, device: str = "cpu") -> Plan:
    """Cross models, seeds, attacks, budgets and chunks.

    Raises:
        InvalidInput: an unknown or ill-configured component, named by its place in the spec,
            or a picture that cannot be read.
    """
    everyone, universes = expanded(all_measured(spec), spec.multiverse)
    measured = tuple(m for m in everyone if m.explainer.about.scope == "local")
    makers = tuple(m for m in everyone if m.explainer.about.scope == "global")
    waged = all_waged(spec, measured)
    trained = trained_models(spec, device)
    ids = dataset.ids[: spec.images]
    frame = _Frame(
        spec=spec,
        device=device,
        models=_sources(spec, trained),
        metrics=_metrics(spec),
        pictured=frozenset(ids[: spec.gallery.images]),
        all_pictures=_revision(dataset, ids),
    )
    bouts = _bouts(frame, waged, measured)
    chunks = _chunks(dataset, ids, spec.chunk)
    cells = {
        cell.key: cell
        for bout in bouts
        for budget in budgets_of(spec, bout.waged)
        for chunk in chunks
        for cell in [_cell(frame, bout, budget, chunk)]
    }
    visuals = [
        _visual(frame, maker, model, ids[0])
        for label, model in frame.models.items()
        for maker in _of_model(label, makers, needed=False)
    ]
    tuned: dict[str, FineTuned] = {}
    for bout in bouts:
        if bout.tuned is not None:  # one training may serve several labels: it has the first one's
            tuned.setdefault(bout.tuned.key, bout.tuned)
    places = [*(cell.place for cell in cells.values()), *(visual.place for visual in visuals)]
    return Plan(
        spec=spec,
        trainings=(*trained, *tuned.values()),
        cells=tuple(cells.values()),
        visuals=tuple(visuals),
        left_out=left_out(waged, measured),
        measured=everyone,
        waged=waged,
        metrics=frame.metrics,
        universes=universes,
        fingerprint=digest([*places, [m.label for m in everyone]]),
    )


def _metrics(spec: ExperimentSpec) -> dict[str, AnyMetric]:
    return {
        choice.shown: located(
            f"metrics.{i}",
            lambda c=choice: metrics.build(c.name, **c.options),
        )
        for i, choice in enumerate(spec.metrics)
    }


def _sources(spec: ExperimentSpec, trained: Sequence[Trained]) -> dict[str, ModelSource]:
    """Every model by its label; a trained one has its training for a revision."""
    taught = {t.model.label: t for t in trained}
    found = {}
    for choice in spec.models:
        label, name = choice.shown, choice.name
        if label in taught:
            one = taught[label]
            options = one.model.options
            source = ModelSource(label, name, options, learnt=one.key, place=one.place)
        else:
            revision = weights_revision(choice.options.get("weights"))
            source = ModelSource(label, name, choice.options, revision)
        found[label] = source
    return found


def _bouts(frame: _Frame, waged: Sequence[Waged], measured: Sequence[Measured]) -> list[_Bout]:
    on = {label: _of_model(label, measured) for label in frame.models}
    seeds = dict.fromkeys(seed for w in waged for seed in w.seeds)
    return [
        _Bout(
            model=model,
            seed=seed,
            waged=w,
            against=against,
            measured=(against,) if against is not None and w.alone else on[label],
            tuned=fine_tuned(w, against, model, seed, frame.device),
        )
        for label, model in frame.models.items()
        for seed in seeds
        for w in waged
        if seed in w.seeds and (w.models is None or label in w.models)
        for against in aims(w, on[label])
    ]


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


def _cell(frame: _Frame, bout: _Bout, budget: Budget, chunk: _Chunk) -> Cell:
    spec, waged, against = frame.spec, bout.waged, bout.against
    made_on = _made_on(frame, bout)
    follower = chunk.follower if waged.imitates else None
    # a model attack leaves the images alone, and a control is there to be compared with
    saving = spec.saving if waged.disturbs == "image" and waged.role != "control" else ()
    numbers = {
        "model": bout.model.card(),
        "data": [spec.data.shown, spec.data.name, spec.data.options],
        "ids": chunk.ids,
        **({} if follower is None else {"follower": follower}),
        **({"training": bout.tuned.place} if bout.tuned else {}),
        "attack": waged.card(),
        "role": [waged.role, waged.label, waged.control_of],
        "against": against and [against.label, against.card()],
        "made_on": made_on and made_on.card(),
        "measured": [[m.label, m.card()] for m in bout.measured],
        "budget": _budget_card(budget),
        "seed": bout.seed,
        "saving": saving,
        "metrics": _cards(frame.metrics),
        "device": frame.device.split(":")[0],
    }
    other = made_on.contents() if made_on else {}
    contents = {
        **bout.model.contents(),
        **{f"made_on {name}": content for name, content in other.items()},
        "training": bout.tuned.key if bout.tuned and bout.tuned.key != bout.tuned.place else "",
        "data": chunk.pictures,
        "follower": chunk.following_picture if follower else "",
        "components": weights_in(waged.card(), *(m.card() for m in bout.measured)),
    }
    key, place = key_and_place(numbers, contents)
    return Cell(
        key=key,
        place=place,
        model=bout.model,
        data=spec.data.name,
        data_options=spec.data.options,
        data_label=spec.data.shown,
        data_revision=frame.all_pictures,
        ids=chunk.ids,
        follower=follower,
        waged=waged,
        against=against,
        made_on=made_on,
        measured=bout.measured,
        budget=budget,
        seed=bout.seed,
        metrics=frame.metrics,
        device=frame.device,
        saving=saving,
        tuned=bout.tuned.key if bout.tuned else "",
        keep=_kept(frame, bout, budget, chunk),
        cost=_cost(frame, bout, len(chunk.ids), len(saving)),
    )


def _budget_card(budget: Budget) -> list[Any]:
    bits = [] if budget.bits is None else [budget.bits]  # keys from before it existed hold
    return [budget.norm, budget.epsilon, budget.lower, budget.upper, *bits]


def _cards(chosen: Mapping[str, AnyMetric]) -> list[Any]:
    return [[label, metric.name, options_of(metric)] for label, metric in chosen.items()]


def _kept(frame: _Frame, bout: _Bout, budget: Budget, chunk: _Chunk) -> int:
    """How many of the chunk's images leave pictures for the gallery."""
    gallery = frame.spec.gallery
    shown = gallery.epsilon is None or budget.epsilon in gallery.epsilon
    if not (shown or bout.waged.role == "none") or bout.seed != bout.waged.seeds[0]:
        return 0
    return sum(i in frame.pictured for i in chunk.ids)


def _made_on(frame: _Frame, bout: _Bout) -> ModelSource | None:
    """The other model that the attack looks at; None where it looks at the one it disturbs."""
    made_on = bout.waged.made_on
    return None if made_on in (None, bout.model.label) else frame.models[str(made_on)]


def _visual(frame: _Frame, maker: Measured, model: ModelSource, image_id: str) -> Visual:
    spec = frame.spec
    numbers = {
        "model": model.card(),
        "data": [spec.data.shown, spec.data.name, spec.data.options],
        "made_by": [maker.label, maker.card()],
        "classes": spec.classes,
        "device": frame.device.split(":")[0],
    }
    contents = {**model.contents(), "components": weights_in(maker.card())}
    key, place = key_and_place(numbers, contents)
    return Visual(
        key=key,
        place=place,
        model=model,
        data=spec.data.name,
        data_options=spec.data.options,
        data_revision=frame.all_pictures,
        shaped_like=image_id,
        measured=maker,
        classes=spec.classes,
        device=frame.device,
        cost=len(spec.classes) * maker.explainer.cost().gradient,
    )


def _cost(frame: _Frame, bout: _Bout, images: int, formats: int) -> float:
    """Gradient passes, roughly: for the progress bar."""
    asking = [m for m in frame.metrics.values() if isinstance(m, ExplainerMetric)]
    maps = sum(
        m.explainer.cost().gradient + sum(one.cost(m.explainer).gradient for one in asking)
        for m in bout.measured
    )
    return images * (maps * (1 + formats) + _effort(bout.waged, bout.against))


def _effort(waged: Waged, against: Measured | None) -> float:
    """Gradient passes per image that the attack itself takes."""
    steps = getattr(waged.attack, "steps", getattr(waged.attack, "tries", 1))
    if against is None:
        return float(steps if waged.role == "attack" else 0)
    one = against.explainer.cost().gradient
    queries = getattr(waged.attack, "queries", None)
    if waged.role == "control" or queries is not None:
        return float((queries or steps) * (one + 0.5))
    factor = 3.0 if waged.attack.gradient_path(against.explainer) == "hessian_vector" else 5.0
    return float(steps * (factor * one + 0.5))
